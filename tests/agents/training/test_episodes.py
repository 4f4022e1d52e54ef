"""Trainings that count episodes, because agents decide how many steps these have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.storage import read_sampler
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.training.config import TrainingConfig, check_settings
from ssdkd_agents.training.train import train
from ssdkd_agents.tuning.spaces import SPACES
from ssdkd_agents.tuning.study import StudyConfig, _space
from stable_baselines3.common.base_class import BaseAlgorithm

from ssdkd_env.errors import InvalidInputError
from tests.agents.trainings import PPO, SAC, go_on, interrupt_after, run
from tests.envs.episodes import ROUNDS

SIX = replace(PPO, timesteps=0, episodes=6, checkpoint_every_steps=1)


def episodes_of(path: Path) -> list[dict[str, Any]]:
    return read_lines(path / "episodes.jsonl")


def test_training_ends_with_the_rollout_in_which_the_last_one_ends(tmp_path: Path) -> None:
    """Rollouts of six steps are of two episodes; four of four episodes and a third of each."""
    folder, outcome = run(tmp_path / "whole", SIX)
    assert outcome == "finished"
    assert len(episodes_of(folder.path)) == 6
    longer = replace(SIX, hyperparameters=SIX.hyperparameters | {"n_steps": 12}, episodes=5)
    folder, outcome = run(tmp_path / "longer", longer)
    assert len(episodes_of(folder.path)) == 8


def test_interrupted_one_goes_on_to_as_many(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", SIX)
    part, _ = run(tmp_path / "part", replace(SIX, episodes=2))
    assert len(episodes_of(part.path)) == 2
    assert go_on(part.path, SIX) == "finished"
    assert [line["return"] for line in episodes_of(part.path)] == [line["return"] for line in episodes_of(whole.path)]
    with pytest.raises(InvalidInputError, match="has already done 6"):
        train(SIX, part, resume=True, progress_bar=False)


def test_ctrl_c_in_the_last_rollout_is_no_interruption(tmp_path: Path) -> None:
    with interrupt_after(SIX.episodes * ROUNDS - 1):
        folder, outcome = run(tmp_path / "run", SIX)
    assert outcome == "finished" and len(episodes_of(folder.path)) == 6


def test_run_keeps_the_discount_that_it_began_with(tmp_path: Path) -> None:
    """Whatever a later version would choose."""
    folder, _ = run(tmp_path / "run", replace(SIX, episodes=2, hyperparameters=SIX.hyperparameters | {"gamma": 0.7}))
    RunFolder.resume(folder.path).change(hyperparameters=SIX.hyperparameters)
    assert go_on(folder.path, replace(SIX, episodes=4)) == "finished"
    (last,) = (path for path in (folder.path / "checkpoints").glob("12.safetensors"))
    assert read_sampler(last)["config"]["hyperparameters"]["gamma"] == 0.7


def test_ending_before_the_first_update_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = replace(SAC, timesteps=0, episodes=1, hyperparameters=SAC.hyperparameters | {"learning_starts": 50})
    run(tmp_path / "run", late)
    assert "nothing was learnt: the training ended before the first update" in capsys.readouterr().out
    with pytest.raises(InvalidInputError, match="batch_size"):
        check_settings(replace(late, hyperparameters=late.hyperparameters | {"buffer_size": 2}))


def test_learning_rates_fall_with_the_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []
    original = BaseAlgorithm._update_learning_rate

    def update(self: BaseAlgorithm, optimizers: Any) -> None:
        left.append(self._current_progress_remaining)
        original(self, optimizers)

    monkeypatch.setattr(BaseAlgorithm, "_update_learning_rate", update)
    run(tmp_path / "run", SIX)
    assert left == pytest.approx([2 / 3, 1 / 3, 0.0])


def test_steps_and_episodes_are_not_both_given() -> None:
    with pytest.raises(InvalidInputError, match="timesteps=12 and episodes=6 both say"):
        replace(SIX, timesteps=12)
    with pytest.raises(InvalidInputError, match="timesteps and episodes must be ≥ 0"):
        replace(PPO, episodes=-1)


def gamma_of(env_kwargs: dict[str, Any], **hyperparameters: Any) -> float:
    config = TrainingConfig("SSDKD/Digits-v2", "ppo", env_kwargs=env_kwargs, hyperparameters=hyperparameters)
    return float(check_settings(config)["gamma"])


def test_who_decides_on_the_number_of_steps_has_no_discount_for_each() -> None:
    divides = {"action": "division", "work_scale": 1.0}
    assert gamma_of(divides) == 1.0
    assert gamma_of(divides, gamma=0.9) == 0.9
    assert gamma_of({"work_scale": 1.0}) == gamma_of({}) < 1.0
    free, bound = (
        StudyConfig(TrainingConfig("SSDKD/Digits-v2", "ppo", env_kwargs=kwargs, evaluate_every_steps=10))
        for kwargs in ({}, divides)
    )
    assert set(_space(free)) - set(_space(bound)) == {"gamma"}
    assert set(_space(free)) == set(SPACES["ppo"])


def test_episodes_have_as_many_rounds_as_ever() -> None:
    """What these tests count with."""
    assert ROUNDS == 3
