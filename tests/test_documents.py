"""Documents point at what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target
    assert not re.findall(r"@[A-Z_]{3,}@", text)


def test_files_of_results_are_listed() -> None:
    """A stem in the list stands for what lies beside it: `digits-runs` for its lines, table and picture."""
    listed = re.findall(r"`([a-z0-9_-]+)`", (ROOT / "results" / "README.md").read_text())
    for path in (ROOT / "results").iterdir():
        if path.name != "README.md":
            assert any(path.name.startswith(name) for name in listed), path.name
