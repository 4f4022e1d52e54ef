"""How the site reads docstrings, which are Markdown with Google's sections."""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from ssdkd_env.envs.settings import EnvSettings

DOCSTRING = """What it is.

| a | b |
|---|---|
| 1 | `x` |

Args:
    one: of them,
        in two lines.
    two, three: the others.

Raises:
    InvalidInputError: when it does not fit.
"""


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    """The extension of the site, which is no package."""
    spec = importlib.util.spec_from_file_location("docstrings", Path(__file__).parents[1] / "docs" / "docstrings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sections_become_definition_lists_with_defaults(docstrings: ModuleType) -> None:
    lines = docstrings.as_markdown(DOCSTRING, {"one": "1"})
    assert "\n".join(lines[lines.index("`one = 1`") :]) == (
        "`one = 1`\n: of them,\n  in two lines.\n\n`two`, `three`\n: the others.\n\n\n"
        "**Raises**\n\n`InvalidInputError`\n: when it does not fit.\n"
    )
    assert lines[:4] == DOCSTRING.splitlines()[:4]


def test_autodoc_gets_restructured_text(docstrings: ModuleType) -> None:
    lines = [
        "A `Name`, `f(x)`, ``x``, |d| and",
        "",
        "```python",
        "a | b",
        "```",
        "",
        "| a | b |",
        "|---|---|",
        "| 1 | 2 |",
    ]
    docstrings.for_autodoc(None, "function", "somewhere.f", None, None, lines)
    assert lines == [
        *("A `Name`, ``f(x)``, ``x``, \\|d\\| and", "", ".. code-block:: python", "", "   a | b", ""),
        *("", ".. list-table::", "   :header-rows: 1", "", "   * - a", "     - b", "   * - 1", "     - 2"),
    ]


def test_every_setting_of_an_environment_is_described_in_the_order_of_its_arguments(docstrings: ModuleType) -> None:
    pieces = dict(docstrings.sections((inspect.getdoc(EnvSettings) or "").splitlines()))
    described = [names for names, text in docstrings.entries(pieces["Attributes"])]
    assert described == [field.name for field in fields(EnvSettings)]
