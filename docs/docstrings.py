"""Docstrings on the site. They are Markdown with Google's sections, and are read where they stand: no page copies them.

- The directive `docstring` puts the whole docstring of an object on a Markdown page, tables and headings included.
- Links of pages to what lies beside docs/ lead to its page on the site.
- What autodoc shows is turned into reStructuredText, which it expects.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r"(Args|Attributes|Raises|Returns):")
ENTRY = re.compile(r"(?P<names>[\w, ]+): (?P<text>.*)")
#: What is written otherwise in reStructuredText: a fenced block, code in a line, a vertical bar.
MARKED = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)\n```$|``.+?``|`[^`]+`|\|", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"`[A-Za-z_][\w.]*`")
TABLE_LINE = re.compile(r"^\|.*\|$", re.MULTILINE)
INTERVAL = re.compile(r"\[([-−.\d]+), ([-−.\d]+)\]")
#: Classes whose docstring is a page.
PAGES = {"ssdkd_env.envs.SSDKDEnv": "/environment", "ssdkd_env.envs.distillation.SSDKDEnv": "/environment"}


def find(path: str) -> Any:
    """The object at `package.module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def defaults(thing: Any) -> dict[str, str]:
    """Field → default value, as Python writes it; nothing for what is no dataclass."""
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    return {field.name: repr(field.default) for field in fields if field.default is not dataclasses.MISSING}


def sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A docstring in pieces: ("", plain lines) and (title, the section's lines without their indentation)."""
    title, piece = "", list[str]()
    for line in lines:
        begins = SECTION.fullmatch(line)
        if begins or (title and line and not line.startswith(" ")):
            yield title, piece
            title, piece = (begins[1], []) if begins else ("", [line])
        else:
            piece.append(line[4:] if title else line)
    yield title, piece


def entries(piece: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A section's entries: (names, lines of text)."""
    names, text = "", list[str]()
    for line in piece:
        begins = ENTRY.fullmatch(line)
        if begins:
            if text:
                yield names, text
            names, text = begins["names"], [begins["text"]]
        elif line.strip():
            text.append(line.strip())
    if text:
        yield names, text


def as_markdown(docstring: str, values: dict[str, str]) -> list[str]:
    """Markdown whose sections are definition lists, with the value that each entry has by default."""
    lines: list[str] = []
    for title, piece in sections(docstring.splitlines()):
        if not title:
            lines += piece
            continue
        lines += ["", f"**{title}**", ""] if title in ("Raises", "Returns") else [""]
        for names, text in entries(piece):
            named = ", ".join(f"`{name}{' = ' * (name in values)}{values.get(name, '')}`" for name in names.split(", "))
            lines += [named, f": {text[0]}", *(f"  {line}" for line in text[1:]), ""]
    return lines


class Docstring(SphinxDirective):
    """Puts an object's docstring on a Markdown page; `skip-summary` leaves its first paragraph to the page."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"skip-summary": lambda _: True}

    def run(self) -> list[nodes.Node]:
        """The nodes of the docstring."""
        thing = find(self.arguments[0])
        source = inspect.getsourcefile(thing)
        assert source is not None
        self.env.note_dependency(source)
        docstring = inspect.getdoc(thing) or ""
        if "skip-summary" in self.options:
            docstring = docstring.partition("\n\n")[2]
        parent = nodes.section()
        parent.document = self.state.document
        lines = StringList(as_markdown(docstring, defaults(thing)), source)
        self.state.nested_parse(lines, self.content_offset, parent, match_titles=True)
        return list(parent.children)


def tables_as_lists(lines: list[str]) -> Iterator[str]:
    """Markdown's tables as reStructuredText's; other lines as they are."""
    rows: list[list[str]] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
            continue
        if rows:
            yield from ("", ".. list-table::", "   :header-rows: 1", "")
            for row in (rows[0], *rows[2:]):
                yield from (f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(row))
            rows = []
        yield line


def one_name_each(title: str, piece: list[str]) -> Iterator[str]:
    """A section in which no entry has several names, which autodoc does not know."""
    yield f"{title}:"
    for names, text in entries(piece):
        yield from (f"    {name}: {' '.join(text)}" for name in names.split(", "))
    yield ""


def as_code_block(language: str, code: str) -> str:
    """A fenced block in reStructuredText."""
    return "\n".join([f".. code-block:: {language}", "", *(f"   {line}" for line in code.splitlines())])


def as_rst(found: re.Match[str]) -> str:
    """What `MARKED` finds. A plain name stays in single backticks, which link it where it is known."""
    text = found[0]
    if found["language"]:
        return as_code_block(found["language"], found["code"])
    if text == "|":
        return r"\|"
    return text if text.startswith("``") or NAME.fullmatch(text) else f"``{text[1:-1]}``"


def for_autodoc(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText, in place."""
    if name in PAGES:
        lines[:] = [*lines[: lines.index("")], "", f"Its manual is the page :doc:`{PAGES[name]}`.", ""]
        return
    if what == "property":
        # Of a property napoleon takes what stands before a colon in the first line for a type.
        lines[:0] = [".. property", ""]
    lines[:] = [line for title, piece in sections(lines) for line in (one_name_each(title, piece) if title else piece)]
    lines[:] = MARKED.sub(as_rst, "\n".join(tables_as_lists(lines))).splitlines()


def for_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Lead links to the README of the results to the page that includes it; keep intervals in tables in one line."""
    text = re.sub(r"\]\((\.\./)+results/README\.md", "](/results.md", source[0])
    source[0] = TABLE_LINE.sub(lambda line: INTERVAL.sub("[\\1,\N{NO-BREAK SPACE}\\2]", line[0]), text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("docstring", Docstring)
    app.connect("source-read", for_pages)
    app.connect("autodoc-process-docstring", for_autodoc, priority=100)  # before napoleon
    return {"parallel_read_safe": True}
