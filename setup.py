"""What pyproject.toml cannot say: the README in the form that a package index can show."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

LOCAL = r"\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)"


def for_an_index(text: str) -> str:
    """Markdown without targets that only the source tree has.

    A picture becomes its caption and a link its text, each with the file's path in the source distribution.
    """
    text = re.sub(f"!{LOCAL}", r"*\1* (picture: `\2` in the source distribution)", text)
    return re.sub(LOCAL, path_of, text)


def path_of(link: re.Match[str]) -> str:
    """What stands in place of a link to a file."""
    text, path = link.groups()
    return f"`{path}`" if path.startswith(text) else f"{text} (`{path}`)"


setup(
    long_description=for_an_index((Path(__file__).parent / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
