"""`leaderboard`: written from result files, and checked against them."""

from __future__ import annotations

from pathlib import Path

from ssdkd_agents.analysis.results import read_results
from ssdkd_agents.benchmarking.leaderboard import make_leaderboard
from ssdkd_agents.lines import append_line

from tests.agents.benchmarking.test_sampler_report import line
from tests.scripts.commands import ROOT, Result, assert_refused, contents, in_this_process


def leaderboard(out: Path, *arguments: object) -> Result:
    return in_this_process("leaderboard", "--out", out, *arguments)


def test_board_is_written_and_checked(tmp_path: Path) -> None:
    results, out = tmp_path / "more" / "a.jsonl", tmp_path / "LEADERBOARD.md"
    for seed in range(3):
        append_line(results, line("paper", seed, 0.5, actions=[]))
    arguments = ("--results", results)
    missing = leaderboard(out, *arguments, "--check")
    assert missing.code == 1
    assert not out.exists()
    assert leaderboard(out, *arguments).code == 0
    assert out.read_text() == make_leaderboard({"more/a.jsonl": read_results(results)})
    assert leaderboard(out, *arguments, "--check").code == 0

    append_line(results, line("paper", 3, 0.6, actions=[]))
    before = contents(tmp_path)
    stale = leaderboard(out, *arguments, "--check")
    assert stale.code == 1
    assert "is not what the results give; run this command again without --check" in stale.stderr
    assert contents(tmp_path) == before


def test_committed_results_of_all_versions_can_be_ranked(tmp_path: Path) -> None:
    files = [ROOT / "results" / f"{name}.jsonl.gz" for name in ("digits-headroom", "digits-methods")]
    assert leaderboard(tmp_path / "board.md", "--results", *files).code == 0
    assert (tmp_path / "board.md").read_text().count("\n## ") == 2


def test_what_are_no_results_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "board.md"
    append_line(tmp_path / "training.jsonl", {"timesteps": 8, "return": 0.5})
    (tmp_path / "empty.jsonl").touch()
    for name, match in (("training", "line 1 is no result"), ("empty", "is empty"), ("none", "none.jsonl")):
        assert_refused(leaderboard(out, "--results", tmp_path / f"{name}.jsonl"), match)
    assert_refused(leaderboard(out, "--results"), "--results: none given")
    assert not out.exists()
