"""`replay`: result lines of both commands come out again, and a changed one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ssdkd_agents.benchmarking.experiments import run_episode
from ssdkd_agents.lines import append_line

from ssdkd_env import registry
from tests.agents.benchmarking.test_experiments import CONFIG
from tests.scripts.commands import ENV_BUDGET, Result, assert_refused, in_this_process


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "evaluation"
    made = in_this_process(
        "evaluate_sampler", "--out", out, "--samplers", "paper", "random", "--episodes", 2, "--processes", 1,
        *ENV_BUDGET,
    )  # fmt: skip
    assert made.code == 0, made.stderr
    return out / "results.jsonl"


def replay(path: Path, *arguments: object) -> Result:
    return in_this_process("replay", "--results", path, *arguments)


def test_lines_replay_from_trace_and_sampler(results: Path) -> None:
    result = replay(results)
    assert result.code == 0, result.stderr
    rows = result.stdout.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {number}" for number in (1, 1, 2, 2, 3, 3, 4, 4)]
    assert [row.split(" | ")[3] for row in rows] == ["trace", "sampler"] * 4
    assert all(row.endswith(" | bit-identical |") for row in rows)


def test_changed_line_is_named_and_exits_with_1(results: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    lines[1]["final"]["bn_loss"] += 1e-6
    for line in lines:
        append_line(tmp_path / "changed.jsonl", line)
    result = replay(tmp_path / "changed.jsonl", "--lines", 1, 2)
    assert result.code == 1
    assert result.stderr.strip() == "2 replays differ"
    rows = result.stdout.splitlines()[2:]
    assert ["DIFFERS, final.bn_loss: " in row for row in rows] == [False, False, True, True]
    assert replay(tmp_path / "changed.jsonl", "--lines", 1, 4).code == 0


def test_difference_between_versions_is_said(results: Path, tmp_path: Path) -> None:
    line = json.loads(results.read_text().splitlines()[0])
    line["return"] += 0.01
    line["versions"] |= {"torch": "0.1", "source": "abc"}
    append_line(tmp_path / "old.jsonl", line)
    strict = replay(tmp_path / "old.jsonl")
    assert strict.code == 1
    assert "DIFFERS, return: " in strict.stdout and "(made with torch 0.1, here " in strict.stdout
    assert "source abc, here " in strict.stdout and "give --tolerance" in strict.stdout
    loose = replay(tmp_path / "old.jsonl", "--tolerance", 0.05)
    assert loose.code == 0
    assert "equal within 0.05 (torch 0.1, here " in loose.stdout


def test_sample_is_the_same_each_time(results: Path) -> None:
    first, second = replay(results, "--sample", 2), replay(results, "--sample", 2)
    assert first == second
    assert len(first.stdout.splitlines()) == 2 + 2 * 2


def test_lines_of_a_benchmark_replay(tmp_path: Path) -> None:
    append_line(tmp_path / "x.jsonl", {"label": "ssdkd, paper", "group": "paper"} | run_episode(CONFIG))
    result = replay(tmp_path / "x.jsonl")
    assert result.code == 0
    assert "| 1 | paper |" in result.stdout


@pytest.mark.parametrize("sampler", ["tests.envs.own_networks:TINY", "random_at_rate:tests.envs.own_networks:TINY"])
def test_a_sampler_named_by_a_line_imports_nothing(
    results: Path, tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_trusted", set())  # other tests of this process have named the module themselves
    line = json.loads(results.read_text().splitlines()[0])
    append_line(tmp_path / "strange.jsonl", line | {"sampler": sampler})
    assert_refused(replay(tmp_path / "strange.jsonl"), "names out of files import nothing")


def test_what_cannot_be_replayed_is_refused(results: Path, tmp_path: Path) -> None:
    append_line(tmp_path / "training.jsonl", {"timesteps": 8, "return": 0.5, "accuracy": 0.5})
    assert_refused(replay(tmp_path / "training.jsonl"), "line 1 is no result of an episode: it lacks env_id")
    (tmp_path / "empty.jsonl").touch()
    assert_refused(replay(tmp_path / "empty.jsonl"), "is empty")
    assert_refused(replay(tmp_path / "none.jsonl"), "none.jsonl")
    for arguments, match in (
        (("--lines", 5), "--lines 5: expected numbers from 1 to 4"),
        (("--lines", 0), "--lines 0"),
        (("--sample", 9), "--sample 9: expected 1 to 4"),
        (("--sample", 0), "--sample 0"),
        (("--sample", 1, "--lines", 1), "exclude each other"),
        (("--tolerance", -1), "--tolerance -1"),
    ):
        assert_refused(replay(results, *arguments), match)
