"""`measure_speed`: ways of stepping many environments, versions, and the share of the peak, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from laboratory import speed
from laboratory.speed import Side, grouped_error, sides

from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.envs import SSDKDEnv
from tests.agents.plotting.test_plots import assert_picture
from tests.scripts.commands import ENV_BUDGET, ROOT, assert_refused, in_this_process


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_small_run_ends_in_a_table_lines_and_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    result = in_this_process("measure_speed", "runs", "--out", out, *ENV_BUDGET, "--counts", 2, "--blocks", 2)
    assert result.code == 0, result.stderr
    gate, *measured = lines_of(out)
    assert gate["gate"] <= gate["tolerance"]
    assert {"machine", "versions"} <= gate.keys()
    found = {(line["environments"], line["way"]) for line in measured}
    assert {(2, "one after another"), (2, "grouped")} <= found
    assert all(len(line["seconds"]) == 2 for line in measured)
    assert "| 2 | grouped |" in result.stdout
    assert_picture(out.with_suffix(".png"))


def test_no_figure_where_a_group_gives_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "grouped_error", lambda env: 0.1)
    out = tmp_path / "runs.jsonl"
    result = in_this_process("measure_speed", "runs", "--out", out, *ENV_BUDGET)
    assert_refused(result, "differs by 0.1 from the same run alone: no figure")
    assert len(lines_of(out)) == 1


def test_gate_sees_a_group_that_mixes_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    env = SSDKDEnv(budget={"rounds": 2, "warmup_rounds": 1, "candidates": 16, "inversion_steps": 2, "student_steps": 2})
    assert grouped_error(env) <= speed.GATE_TOLERANCE
    original = FastUpdate.join
    monkeypatch.setattr(FastUpdate, "join", lambda update, members: original(update, members[::-1]))
    assert grouped_error(env) > speed.GATE_TOLERANCE


def test_ways_of_stepping() -> None:
    assert sides(1, cores=2) == [Side("one after another", "loop", 1)]
    assert [side.name for side in sides(2, cores=2)] == ["one after another", "grouped", "2 processes"]
    names = [side.name for side in sides(8, cores=4)]
    assert names == ["one after another", "grouped", "4 processes", "grouped in 4 processes"]


def test_versions_play_in_their_own_code(tmp_path: Path) -> None:
    out = tmp_path / "versions.jsonl"
    result = in_this_process(
        "measure_speed", "versions", "--before", ROOT, "--out", out, "--episodes", 2, "--turns", 1, *ENV_BUDGET
    )
    assert result.code == 0, result.stderr
    played = [line for line in lines_of(out) if "side" in line]
    by_side = {side: [line for line in played if line["side"] == side] for side in ("before", "now")}
    assert [line["seed"] for line in by_side["now"]] == [1_000_000, 1_000_001]
    # The same code on both sides plays the same episodes.
    assert [line["accuracy"] for line in by_side["before"]] == [line["accuracy"] for line in by_side["now"]]
    assert all(line["peak_mib"] > 100 for line in played)
    assert "before over now: " in result.stdout


def test_versions_step_many_environments_in_their_own_code(tmp_path: Path) -> None:
    out = tmp_path / "versions.jsonl"
    many = ("--turns", 1, "--environments", 2, "--steps", 1)
    result = in_this_process("measure_speed", "versions", "--before", ROOT, "--out", out, *many, *ENV_BUDGET)
    assert result.code == 0, result.stderr
    lines = [line for line in lines_of(out) if "side" in line]
    assert [(line["side"], line["environments"]) for line in lines] == [("before", 2), ("now", 2)]
    longer = ("--environments", 2, "--steps", 2, *ENV_BUDGET)
    refused = in_this_process("measure_speed", "versions", "--before", ROOT, "--out", tmp_path / "x.jsonl", *longer)
    assert_refused(refused, "--steps 2: expected at most 1, so that no episode ends meanwhile")
    assert lines[0]["way"] == lines[1]["way"] and lines[0]["way"]
    unlike = ("--before", ROOT, "--out", tmp_path / "unlike.jsonl", *many, "--unlike", *ENV_BUDGET)
    assert in_this_process("measure_speed", "versions", *unlike).code == 0
    assert "| before | " in result.stdout and "before over now: " in result.stdout


def test_peak_tells_its_share_of_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "peak.jsonl"
    result = in_this_process("measure_speed", "peak", "--out", out, *ENV_BUDGET)
    assert_refused(result, "--env.budget.rounds 3: expected at least 5")
    rounds = ENV_BUDGET.index("--env.budget.rounds") + 1
    more = (*ENV_BUDGET[:rounds], "5", *ENV_BUDGET[rounds + 1 :])
    named = in_this_process(
        "measure_speed", "peak", "--out", out, *more, "--untrained", "--env.teacher", "t.safetensors"
    )
    assert_refused(named, "--env.teacher t.safetensors: leave it out, or --untrained")
    unknown = in_this_process("measure_speed", "peak", "--out", out, *more, "--untrained", "--env-id", "SSDKD/Digit-v2")
    assert_refused(unknown, "env_id='SSDKD/Digit-v2' is unknown")
    result = in_this_process("measure_speed", "peak", "--out", out, *more, "--untrained")
    assert result.code == 0, result.stderr
    (line,) = lines_of(out)
    assert line["share"] == pytest.approx(line["cost"]["flops"] / line["cost"]["seconds"] / line["convolution"])
    assert line["cost"]["peak_memory_mib"] > 100
    assert "| GFLOP/s of a round |" in result.stdout


@pytest.mark.parametrize("command", ["runs", "versions", "peak"])
def test_an_existing_file_is_not_touched(command: str, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text("mine")
    before = ("--before", ROOT) if command == "versions" else ()
    assert_refused(in_this_process("measure_speed", command, "--out", out, *before), "exists; choose another file")
    assert out.read_text() == "mine"


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    result = in_this_process("measure_speed", "versions", "--before", tmp_path, "--out", tmp_path / "x.jsonl")
    assert_refused(result, "holds no ssdkd_env; give a checkout")
