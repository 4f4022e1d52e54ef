"""Baselines from the command line: played by both commands, and replayed from trace and by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.places import sampler_digest

from tests.scripts.commands import ENV_BUDGET, Result, assert_refused, in_this_process

CONSTANT = "constant:[0.5, 0, -0.5, 1, -1]"
SAMPLERS = ("paper", "fifo", "reweighted", "random_at_rate:paper", f"random_at_rate:{CONSTANT}", CONSTANT)
PROBE = ("--env.probe.generators", 1, "--env.probe.batches", 2, "--env.probe.kept", 1, "--env.probe.steps", 2)


def evaluate(out: Path, *samplers: object) -> Result:
    return in_this_process(
        "evaluate_sampler", "--out", out, "--samplers", *samplers, "--episodes", 1, "--processes", 1,
        *ENV_BUDGET, *PROBE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "evaluation"
    result = evaluate(out, *SAMPLERS)
    assert result.code == 0, result.stderr
    assert all(f"| {name} |" in result.stdout for name in SAMPLERS)
    return out / "results.jsonl"


@pytest.fixture(scope="module")
def benchmarked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "benchmark"
    result = in_this_process(
        "benchmark", "--out", out, "--methods", "ssdkd", "--samplers", *SAMPLERS, "--seeds", 1, "--processes", 1,
        *ENV_BUDGET, *PROBE,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    return out / "results.jsonl"


@pytest.mark.parametrize("made_by", ["evaluated", "benchmarked"])
def test_lines_of_every_control_replay_bit_identically(made_by: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(made_by)
    assert [line["sampler"] for line in read_lines(path)] == list(SAMPLERS)
    result = in_this_process("replay", "--results", path)
    assert result.code == 0, result.stderr
    rows = result.stdout.splitlines()[2:]
    assert [row.split(" | ")[3] for row in rows] == ["trace", "sampler"] * len(SAMPLERS)
    assert all(row.endswith(" | bit-identical |") for row in rows)


def test_both_commands_play_the_same_episodes(evaluated: Path, benchmarked: Path) -> None:
    for one, other in zip(read_lines(evaluated), read_lines(benchmarked), strict=True):
        for key in ("sampler", "seed", "actions", "final", "return", "held_out_accuracy"):
            assert one[key] == other[key]


def test_trace_says_what_no_action_can(evaluated: Path) -> None:
    lines = {line["sampler"]: line for line in read_lines(evaluated)}
    assert {action["replacement"] for action in lines["fifo"]["actions"]} == {"oldest"}
    assert {action["reweighted"] for action in lines["reweighted"]["actions"]} == {True}
    assert lines[CONSTANT]["actions"] == [[0.5, 0.0, -0.5, 1.0, -1.0]] * 3
    by_chance = lines[f"random_at_rate:{CONSTANT}"]["actions"]
    assert {action["replacement"] for action in by_chance} == {"random"}
    assert {action["replaced_share"] for action in by_chance} == {0.0}, "its rate is the other one's"


def test_changed_plan_in_a_trace_is_noticed(evaluated: Path, tmp_path: Path) -> None:
    line = read_lines(evaluated)[SAMPLERS.index("fifo")]
    line["actions"][0]["replacement"] = "random"
    (tmp_path / "changed.jsonl").write_text(json.dumps(line) + "\n")
    result = in_this_process("replay", "--results", tmp_path / "changed.jsonl")
    assert result.code == 1 and "DIFFERS" in result.stdout


@pytest.mark.parametrize(
    ("sampler", "match"),
    [
        ("fifi", "sampler='fifi' is neither a file"),
        ("random_at_rate:fifi", "sampler='fifi' is neither a file"),
        ("random_at_rate:", "sampler='' is neither a file"),
        ("constant:[1, 2]", "sampler='constant:[1, 2]': expected constant:[...] with 5 numbers in [-1, 1]"),
        ("random_at_rate:constant:[2]", "sampler='constant:[2]': expected constant:[...]"),
        ("constant:paper", "sampler='constant:paper': expected constant:[...]"),
    ],
)
def test_wrong_samplers_are_refused_before_anything_is_played(sampler: str, match: str, tmp_path: Path) -> None:
    assert_refused(evaluate(tmp_path / "out", "paper", sampler), match)
    assert not (tmp_path / "out").exists()


def test_control_of_a_trained_sampler_names_the_file_that_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may be overwritten under its name: it is no control that can be asked again by its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("weights")
    assert sampler_digest("random_at_rate:mine") == sampler_digest("mine") is not None
    assert sampler_digest("random_at_rate:paper") is sampler_digest(f"random_at_rate:{CONSTANT}") is None
