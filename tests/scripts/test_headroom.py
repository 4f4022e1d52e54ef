"""`headroom`: searches and a comparison in one folder, which the same command goes on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from headroom import verdict
from ssdkd_agents.lines import read_lines

from tests.scripts.commands import assert_refused, contents, in_this_process

PROBE = ("--env.probe.generators", 1, "--env.probe.batches", 2, "--env.probe.kept", 1, "--env.probe.steps", 2)
SMALL = ("--episodes", 16, "--plays", 2, "--population", 4, "--seeds", 2, "--processes", 1, *PROBE)


def test_searches_are_compared_and_go_on_where_they_were(tmp_path: Path) -> None:
    out = tmp_path / "headroom"
    arguments = ("--out", out, "--env.action", "division", "--env.work-scale", "0.3", *SMALL)
    result = in_this_process("headroom", *arguments)
    assert result.code == 0, result.stderr
    for family in ("start", "constant", "schedule", "linear"):
        assert len(read_lines(out / family / "episodes.jsonl")) == 8
    start = json.loads((out / "start" / "constant.json").read_text())["action"]
    for family in ("constant", "schedule", "linear"):
        config = json.loads((out / family / "config.json").read_text())
        assert (config["start"], config["sigma"]) == (start, 0.2)
    lines = read_lines(out / "results.jsonl")
    labels = {"constant", "schedule", "linear", "paper", "uniform", "middle of the box"}
    assert {(line["label"], line["seed"]) for line in lines} == {
        (label, seed) for label in labels for seed in (1_000_000, 1_000_001)
    }
    assert "− constant" in result.stdout
    assert "Headroom: not known, on fewer than 5 seeds; schedule " in result.stdout
    assert (out / "table.md").read_text() in result.stdout
    before = contents(out)
    again = in_this_process("headroom", *arguments)
    assert again.code == 0, again.stderr
    assert contents(out) == before
    more = in_this_process("headroom", *arguments, "--seeds", 3)
    assert more.code == 0, more.stderr
    assert len(read_lines(out / "results.jsonl")) == 18
    assert_refused(in_this_process("headroom", *arguments, "--plays", 1), "is of another search")


def test_the_oracle_plays_each_instance_with_its_own_plan(tmp_path: Path) -> None:
    out = tmp_path / "headroom"
    arguments = ("--families", "constant", "--oracle", "--env.instances", "tests.own_networks:WORK_SIZES")
    result = in_this_process("headroom", "--out", out, *arguments, "--env.action", "division", *SMALL)
    assert result.code == 0, result.stderr
    lines = read_lines(out / "results.jsonl")
    assert len(read_lines(out / "oracle-1" / "episodes.jsonl")) == 4  # half of the eight
    instances = {line["seed"]: line["final"]["instance"] for line in lines if line["label"] == "constant"}
    assert instances == {1_000_000: 0, 1_000_001: 1}
    oracle = {line["seed"]: line for line in lines if line["label"] == "oracle"}
    assert set(oracle) == set(instances)
    for seed, line in oracle.items():
        found = json.loads((out / f"oracle-{instances[seed]}" / "constant.json").read_text())
        assert line["sampler"] == "oracle"
        assert line["final"]["instance"] == instances[seed]
        assert line["actions"][0] == pytest.approx(found["action"])


def lines_of(**accuracies: list[float]) -> list[dict[str, object]]:
    return [
        {"label": label, "seed": seed, "held_out_accuracy": value}
        for label, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_headroom_is_a_gain_that_is_large_enough_and_sure() -> None:
    """Of two gains in the mean, one whose interval reaches below 0, and one that is too small."""
    constant = [0.90, 0.80, 0.85, 0.95, 0.70]
    lines = lines_of(
        constant=constant,
        schedule=[value + 0.02 for value in constant],
        linear=[0.98, 0.78, 0.92, 0.93, 0.71],
        oracle=[value + 0.005 for value in constant],
        paper=[1.0] * 5,
    )
    said = verdict(lines)
    assert said.startswith("Headroom over the best constant plan (at least 0.01): schedule; schedule 0.0200 [0.02")
    assert "oracle 0.0050 [0.0050, 0.0050]" in said and "paper" not in said
    assert "none; oracle" in verdict(lines_of(constant=constant, oracle=constant))
    assert "not known" in verdict(lines_of(constant=constant))
    few = verdict(lines_of(constant=constant[:3], schedule=[value + 0.02 for value in constant[:3]]))
    assert few == "Headroom: not known, on fewer than 5 seeds; schedule 0.0200 (0.0200, 0.0200, 0.0200)."


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--families", "schedule"), "expected constant among them"),
        (("--families", "constant", "nope"), "family='nope' is unknown"),
        (("--oracle",), "give --env.instances"),
        (
            (
                "--oracle",
                "--env.instances",
                "digits-work-train",
                "--env.action",
                "division",
                "--env.observation",
                "facts",
            ),
            "episodes=10: expected at least population=12 times plays=1",
        ),
        (("--seeds", 1), "--seeds 1: expected at least 2"),
        (("--episodes", 8), "episodes=4: expected at least population=12 times plays=2"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[object, ...], match: str, tmp_path: Path) -> None:
    assert_refused(in_this_process("headroom", "--out", tmp_path / "out", *arguments), match)
