"""Tables of text that may be a stranger's."""

from __future__ import annotations

import pytest
from ssdkd_agents.analysis.markdown import Markup, escaped, markdown_table, table_row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SSD-KD, φ off", "SSD-KD, φ off"),
        ("constant:[0.5, -1]", "constant:[0.5, -1]"),
        ("a|b", r"a\|b"),
        ("<script>x</script>", r"\<script>x\</script>"),
        ("[click](https://x)", r"[click]\(https://x)"),
        ("two\nlines", "two lines"),
        ("red\x1b[31m", r"red\x1b[31m"),
        ("back\u202ewards", r"back\u202ewards"),
    ],
)
def test_text_is_shown_and_does_nothing(text: str, expected: str) -> None:
    assert escaped(text) == expected
    assert table_row([text, 1]) == f"| {expected} | 1 |"
    assert markdown_table(["x"], [[text]]) == f"| x |\n| --- |\n| {expected} |"
    assert markdown_table([text], []).startswith(f"| {expected} |")


def test_markup_of_ours_stays_as_it_is() -> None:
    assert markdown_table(["x"], [[Markup("[a](b)")]]).endswith("| [a](b) |")
