"""`tune_sampler` and `make_references`: short ones, played for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ssdkd_agents.lines import read_lines

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.references import read_references
from ssdkd_env.reading import read_json
from tests.envs.episodes import BUDGET, SMALL_PROBE
from tests.scripts.commands import Result, assert_refused, in_this_process


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


ENV = [
    *(word for name, value in BUDGET.items() for word in (f"--env.budget.{name.replace('_', '-')}", value)),
    *(word for name, value in SMALL_PROBE.items() for word in (f"--env.probe.{name}", value)),
]
SHORT = ("--timesteps", 12, "--evaluate-every-steps", 6, "--evaluation-episodes", 1, "--trials", 3, "--startup", 1)
SMALL = ("--hyperparameters", "n_envs=1", "n_steps=6", "batch_size=6", "n_epochs=2", "normalize=false")


def tune(out: Path, *arguments: object) -> Result:
    return in_this_process("tune_sampler", "--out", out, *arguments)


def test_study_tunes_a_training(tmp_path: Path) -> None:
    result = tune(tmp_path / "study", *SHORT, *SMALL, *ENV)
    assert result.code == 0, result.stderr
    trials = read_lines(tmp_path / "study" / "trials.jsonl")
    assert len(trials) == 3
    assert len({json.dumps(trial["params"]) for trial in trials}) == 3
    best = read_json(tmp_path / "study" / "best.json")
    assert f"best trial {best['number']}, mean return {best['value']:.4f}" in result.stdout
    assert f"its agent: {tmp_path / 'study' / 'trials' / str(best['number'])}" in result.stdout
    line = result.stdout.split("to train longer: ")[1].splitlines()[0]
    assert line.startswith("ssdkd train --env-id SSDKD/Digits-v2 --algo ppo --env.")
    options = line.split(" --hyperparameters ")[1]
    assert f"learning_rate={best['params']['learning_rate']}" in options
    evaluations = read_lines(tmp_path / "study" / "trials" / str(best["number"]) / "evaluations.jsonl")
    assert evaluations[-1]["mean_return"] == best["value"]
    assert set(best["hyperparameters"]) >= {"n_envs", "n_epochs", "learning_rate", "policy_kwargs"}
    longer = tune(tmp_path / "study", "--resume")
    assert longer.code == 0, longer.stderr
    assert read_lines(tmp_path / "study" / "trials.jsonl") == trials
    more = tune(tmp_path / "study", "--resume", "--trials", 4)
    assert more.code == 0, more.stderr
    assert read_lines(tmp_path / "study" / "trials.jsonl")[:3] == trials
    assert len(read_lines(tmp_path / "study" / "trials.jsonl")) == 4
    assert read_json(tmp_path / "study" / "config.json")["trials"] == 4


def test_study_that_could_not_begin_writes_nothing(tmp_path: Path) -> None:
    assert_refused(tune(tmp_path / "a", *SHORT, *SMALL, *ENV, "--algo", "pqo"), "algo='pqo' is unknown")
    assert_refused(tune(tmp_path / "a", *SHORT, *SMALL, *ENV, "--pruner", "asha"), "pruner='asha' is unknown")
    assert not (tmp_path / "a").exists()


def references(out: Path, *arguments: object) -> Result:
    return in_this_process("make_references", "--out", out, *ENV, *arguments)


def test_references_are_those_that_an_environment_plays(tmp_path: Path) -> None:
    out = tmp_path / "references.json"
    result = references(out)
    assert result.code == 0, result.stderr
    env = SSDKDEnv(budget=BUDGET, probe=SMALL_PROBE, reward="standardized_probe_agreement")
    made = env.references.of(env.task)
    assert made is not None
    assert read_references(out) == {env.references.fingerprint(env.task): made}
    assert f"instance 0: {made.scores[-1]:.4f}, deviation {made.deviation:.4f}" in result.stdout


def test_references_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    out = tmp_path / "references.json"
    assert references(out).code == 0
    before = read_references(out)
    assert references(out, "--env.reward", "relative_probe_discrepancy").code == 0
    assert len(read_references(out)) == 2
    assert before.items() <= read_references(out).items()


def test_references_that_are_none_are_refused(tmp_path: Path) -> None:
    assert_refused(references(tmp_path / "a.txt"), "expected a name that ends in .json")
    assert_refused(references(tmp_path / "a.json", "--env.reward", "probe_agreement"), "compares with nothing")
    (tmp_path / "b.json").write_text("[1]")
    assert_refused(references(tmp_path / "b.json"), "holds no references of rewards")
    assert (tmp_path / "b.json").read_text() == "[1]"
    assert not (tmp_path / "a.json").exists()
