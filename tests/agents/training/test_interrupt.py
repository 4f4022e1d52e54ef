"""Ctrl-C ends a training soon, and `--resume` goes on from a whole checkpoint."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import TrainedSampler, read_sampler
from ssdkd_agents.training import loop
from ssdkd_agents.training import train as training
from ssdkd_agents.training.config import TrainingConfig
from ssdkd_agents.training.train import make_training_env
from ssdkd_agents.training.validation import Validation
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3.common.vec_env import VecEnv

from ssdkd_env.envs import sub_environments
from ssdkd_env.envs.members import RemoteMembers
from ssdkd_env.processes import ProcessWorker
from tests.agents.trainings import PPO, ROUNDS, SAC, checkpoints, go_on, interrupt_after, run
from tests.envs.episodes import make


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterations end soon, however busy the machine is."""
    monkeypatch.setattr(loop, "GRACE", 60.0)


@pytest.mark.parametrize("config", [PPO, SAC], ids=["ppo", "sac"])
@pytest.mark.parametrize("steps", [0, 4])
def test_interrupted_run_loses_nothing_where_the_iteration_ends_soon(
    steps: int, config: TrainingConfig, tmp_path: Path
) -> None:
    with interrupt_after(steps):
        _, outcome = run(tmp_path / "run", config)
    assert outcome == "interrupted"
    done = max(checkpoints(tmp_path / "run"))
    assert done == (6 if config is PPO else steps + 1)
    lines = read_lines(tmp_path / "run" / "episodes.jsonl") if done >= ROUNDS else []
    assert len(lines) == done // ROUNDS
    assert read_sampler(find_sampler_file(tmp_path / "run"))["counters"]["num_timesteps"] == done
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["outcome"] == "interrupted"
    assert go_on(tmp_path / "run", replace(config, timesteps=done + 6)) == "finished"
    assert max(checkpoints(tmp_path / "run")) == done + 6


@pytest.mark.parametrize("steps", [1, 8])
def test_long_rollout_is_given_up_for_the_checkpoint_before_it(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GRACE", 0.0)
    with interrupt_after(steps):
        _, outcome = run(tmp_path / "run")
    assert outcome == "interrupted"
    assert max(checkpoints(tmp_path / "run")) == steps // 6 * 6
    assert go_on(tmp_path / "run", PPO) == "finished"


def test_interrupted_validation_is_made_up_for(tmp_path: Path) -> None:
    config = replace(PPO, evaluate_every_steps=6, evaluation_episodes=2)
    with interrupt_after(8):  # six of training, then two environments at once
        _, outcome = run(tmp_path / "run", config)
    assert outcome == "interrupted"
    assert checkpoints(tmp_path / "run") == [0, 6], "nothing of the training is lost"
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
    assert go_on(tmp_path / "run", config) == "finished"
    lines = read_lines(tmp_path / "run" / "evaluations.jsonl")
    assert [line["timesteps"] for line in lines] == [6, 12]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two environments get a process each, wherever the tests run."""
    monkeypatch.setattr(sub_environments, "usable_cores", lambda: 2)


class InterruptedPipe:
    """A worker's pipe; Ctrl-C is pressed while the parent waits for its seventh answer."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.answers = pipe, 0

    def recv(self) -> Any:
        self.answers += 1
        if self.answers == 7:
            signal.raise_signal(signal.SIGINT)
        return self.pipe.recv()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)


@pytest.fixture
def interrupted_pipe(monkeypatch: pytest.MonkeyPatch, two_cores: None) -> Iterator[None]:
    def make_env(*arguments: Any, **keywords: Any) -> VecEnv:
        env = make_training_env(*arguments, **keywords)
        made = env.unwrapped
        assert isinstance(made, DistillationVecEnv)
        second = made._environments._parts[1]
        assert isinstance(second, RemoteMembers)
        assert isinstance(second._worker, ProcessWorker)
        monkeypatch.setattr(second._worker, "_connection", InterruptedPipe(second._worker._connection))
        return env

    monkeypatch.setattr(training, "make_training_env", make_env)
    with interrupt_after(1000):
        yield


@pytest.mark.timeout(60)
def test_interrupt_between_the_answers_of_two_workers_neither_hangs_nor_loses(
    tmp_path: Path, interrupted_pipe: None
) -> None:
    """The first worker has answered then, and will not answer again."""
    _, outcome = run(tmp_path / "run", replace(PPO, timesteps=24, hyperparameters=PPO.hyperparameters | {"n_envs": 2}))
    assert outcome == "interrupted"
    assert max(checkpoints(tmp_path / "run")) == 12
    TrainedSampler(find_sampler_file(tmp_path / "run"), make())


def test_interrupt_while_a_checkpoint_is_written_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = os.replace, []

    def rename(source: Path, target: Path) -> None:
        if Path(target).parent.name == "checkpoints":
            calls.append(target)
            if len(calls) == 4:  # the second checkpoint's first file; each has two and a manifest
                signal.raise_signal(signal.SIGINT)
        original(source, target)

    monkeypatch.setattr(os, "replace", rename)
    with interrupt_after(1000):
        _, outcome = run(tmp_path / "run")
    assert outcome == "interrupted"
    assert checkpoints(tmp_path / "run") == [0, 6]
    assert go_on(tmp_path / "run", PPO) == "finished"


def test_second_interrupt_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Validation, "close", lambda self: closed.append(1))

    def press_again(self: loop.PatienceEnds) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    monkeypatch.setattr(loop.PatienceEnds, "_on_step", press_again)
    with interrupt_after(1000), pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    assert checkpoints(tmp_path / "run") == [0]
    assert closed, "the environments' processes are ended"
