"""`train_agents`: several trainings in one folder, which the same command goes on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.algorithms import ALGORITHMS
from ssdkd_agents.runs import RunFolder
from train_agents import _read

from tests.scripts.commands import ENV_BUDGET, assert_refused, contents, in_this_process

SMALL = {
    "ppo": {"n_envs": 2, "n_steps": 3, "batch_size": 6, "n_epochs": 1},
    "cma_es": {"n_envs": 4, "population": 4, "n_eval_episodes": 1},
}


def test_trainings_of_a_folder_go_on_where_they_were(tmp_path: Path) -> None:
    out, settings = tmp_path / "agents", tmp_path / "settings.yml"
    settings.write_text(yaml.safe_dump(SMALL))
    arguments = ("--out", out, "--algos", "ppo", "cma_es", "--episodes", 4, "--settings", settings, *ENV_BUDGET)
    one = in_this_process("train_agents", *arguments, "--seeds", 0)
    assert one.code == 0, one.stderr[-3000:]
    two = in_this_process("train_agents", *arguments, "--seeds", 0, 1)
    assert two.code == 0, two.stderr[-3000:]
    assert f"{out / 'ppo-0'}: finished" in two.stdout
    assert {path.name for path in out.iterdir()} == {"ppo-0", "ppo-1", "cma_es-0", "cma_es-1"}
    for path in out.iterdir():
        config = json.loads((path / "config.json").read_text())
        algorithm, seed = path.name.split("-")
        assert (config["algorithm"], config["seed"], config["episodes"]) == (algorithm, int(seed), 4)
        assert config["hyperparameters"] == SMALL[algorithm]
        assert config["common_random_numbers"]
        assert len(read_lines(path / "episodes.jsonl")) == 4
    before = contents(out)
    assert in_this_process("train_agents", *arguments, "--seeds", 0, 1).code == 0
    assert contents(out) == before
    other = in_this_process("train_agents", *arguments, "--seeds", 0, "--start", 0, 0, 0, 0, 0)
    assert_refused(other, "ppo-0 is of another training; give the settings that it began with")


def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yml"
    settings.write_text(yaml.safe_dump(SMALL))
    arguments = ("--algos", "ppo", "--seeds", 0, "--episodes", 8, "--settings", settings, *ENV_BUDGET)
    assert in_this_process("train_agents", "--out", tmp_path / "whole", *arguments).code == 0
    short = in_this_process("train_agents", "--out", tmp_path / "part", *arguments[:4], "--episodes", 4, *arguments[6:])
    assert short.code == 0, short.stderr[-3000:]
    path = tmp_path / "part" / "ppo-0"
    RunFolder.resume(path).change(episodes=8)  # as if it had been stopped half-way
    (path / "outcome.json").unlink()
    assert in_this_process("train_agents", "--out", tmp_path / "part", *arguments).code == 0
    whole, part = (read_lines(tmp_path / name / "ppo-0" / "episodes.jsonl") for name in ("whole", "part"))
    assert [line["return"] for line in part] == [line["return"] for line in whole]
    assert len(whole) == 8


def test_what_cannot_be_trained_is_refused_before_anything_is(tmp_path: Path) -> None:
    result = in_this_process("train_agents", "--out", tmp_path / "out", "--algos", "ppo", "nope", "--episodes", 4)
    assert_refused(result, "algo='nope' is unknown")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected algorithms with hyper-parameters below each"),
        ("ppo:\n", "expected algorithms with hyper-parameters below each"),
        ("- a\n", "expected algorithms with hyper-parameters below each"),
        ("ppo: [\n", "give a YAML file"),
        ("pppo: {n_envs: 2}\n", "'pppo' is unknown"),
    ],
)
def test_settings_that_are_none_are_refused(text: str, said: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yml"
    settings.write_text(text)
    result = in_this_process("train_agents", "--out", tmp_path / "out", "--algos", "ppo", "--settings", settings)
    assert_refused(result, said)


def test_the_settings_that_come_along_can_be_read() -> None:
    assert set(_read(Path(__file__).parents[2] / "scripts" / "laboratory" / "agents.yml")) <= set(ALGORITHMS)
