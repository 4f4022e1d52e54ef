"""`keep_results` and `index_results`: from a run's folder to a checked folder of results."""

from __future__ import annotations

from pathlib import Path

import pytest
from ssdkd_agents.keeping.manifest import read_manifest

from tests.agents.keeping.test_keeping import make_run
from tests.scripts.commands import assert_refused, contents, in_this_process


@pytest.fixture
def results(tmp_path: Path) -> Path:
    make_run(tmp_path / "run")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "evidence.md").write_text("`a-b`")
    return tmp_path / "results"


def test_run_is_kept_and_what_is_not_known_of_it_is_said(results: Path) -> None:
    arguments = ("--run", results.parent / "run", "--name", "a-b", "--into", results, "--files", "table.md")
    result = in_this_process("keep_results", *arguments, "--about", "it all")
    assert result.code == 0, result.stderr
    assert result.stdout == f"{results}: a-b, 3 lines, in a-b.jsonl.gz, a-b.md\nnot known: commits\n"
    assert_refused(in_this_process("keep_results", *arguments), "replace it with --overwrite")
    known = ("--commits", "1", "2", "--command", "typed", "--unfinished", "--overwrite")
    result = in_this_process("keep_results", *arguments, *known)
    assert result.stdout == f"{results}: a-b, 3 lines, in a-b-config.json, a-b.jsonl, a-b.md\n"
    entry = read_manifest(results)["a-b"]
    assert (entry.about, entry.command, entry.commits, entry.unfinished) == ("it all", "typed", ["1", "2"], True)


def test_search_is_kept_by_the_name_of_its_lines(results: Path) -> None:
    run = results.parent / "run"
    (run / "results.jsonl").rename(run / "episodes.jsonl")
    arguments = ("--run", run, "--name", "a-b", "--into", results)
    assert_refused(in_this_process("keep_results", *arguments), "results.jsonl")
    assert in_this_process("keep_results", *arguments, "--lines", "episodes.jsonl").code == 0


def test_index_follows_the_documents_and_says_what_is_wrong(results: Path) -> None:
    assert_refused(in_this_process("index_results", "--into", results), "no manifest.json; keep a run in it")
    in_this_process("keep_results", "--run", results.parent / "run", "--name", "a-b", "--into", results)
    good = in_this_process("index_results", "--into", results, "--check")
    assert (good.code, good.stdout) == (0, f"{results}: 1 experiments, 0 problems\n")

    (results.parent / "README.md").write_text("`a-b`")
    before = contents(results)
    stale = in_this_process("index_results", "--into", results, "--check")
    assert stale.code == 1
    assert "a-b: other documents show it than the manifest says; run ssdkd results index" in stale.stderr
    assert contents(results) == before
    assert in_this_process("index_results", "--into", results).code == 0
    assert read_manifest(results)["a-b"].files == {"a-b.jsonl.gz": ["README.md", "docs/evidence.md"]}
    assert "[README.md](../README.md), [docs/evidence.md](../docs/evidence.md)" in (results / "README.md").read_text()

    (results / "notes.txt").touch()
    wrong = in_this_process("index_results", "--into", results)
    assert wrong.code == 1
    assert wrong.stderr.startswith("notes.txt is in no experiment of manifest.json")
    assert wrong.stdout == f"{results}: 1 experiments, 1 problems\n"
