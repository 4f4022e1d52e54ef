"""What a training begins with: the first action, and the environments' random numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.training.config import check_settings
from ssdkd_agents.vec_env import DistillationVecEnv

from ssdkd_env.errors import InvalidInputError
from tests.agents.trainings import PPO, curves, go_on, run
from tests.envs.episodes import SMALL_PROBE, WORK_BUDGET, make

PAIR = replace(
    PPO, timesteps=24, hyperparameters=PPO.hyperparameters | {"n_envs": 2, "n_steps": 3}, vectorization="loop"
)


def returns(path: Path) -> list[float]:
    return [line["return"] for line in read_lines(path / "episodes.jsonl")]


def test_training_begins_with_the_action() -> None:
    with pytest.raises(InvalidInputError, match="expected 5 numbers"):
        check_settings(replace(PPO, start=[0.5]))
    check_settings(replace(PPO, start=[0.5, 0.0, 0.0, 0.0, 1.0]))


def test_first_rollout_is_around_the_action(tmp_path: Path) -> None:
    narrow = PPO.hyperparameters | {"policy_kwargs": {"log_std_init": -9.0}}
    begun = replace(PPO, hyperparameters=narrow, start=[-0.8, 0.6, 0.0, 0.0, 1.0], timesteps=6)
    run(tmp_path / "begun", begun)
    shown = curves(tmp_path / "begun")
    for name, expected in zip(make().action_names, begun.start or (), strict=True):
        ((_, value),) = shown[f"action/{name}"]
        assert value == pytest.approx(expected, abs=1e-2)


def test_environments_of_one_stream_play_alike() -> None:
    """Under equal actions the k-th episodes are equal, and later ones differ from the first."""
    env = DistillationVecEnv(
        3, {"instances": "tests.envs.own_networks:SMALL_SET", "budget": WORK_BUDGET, "probe": SMALL_PROBE}, "loop"
    )
    try:
        env.seed_each(4, alike=True)
        first = seen = env.reset()
        begun = [env.reset_infos]
        while len(begun) < 5:
            assert all(np.array_equal(seen[0], other) for other in seen[1:])
            seen, rewards, dones, _ = env.step(np.zeros((3, 5), np.float32))  # type: ignore[assignment]
            assert len({float(reward) for reward in rewards}) == 1
            if dones.all():
                begun.append(list(env.reset_infos))
        assert len({infos[0]["instance"] for infos in begun}) > 1
        assert all(len({info["instance"] for info in infos}) == 1 for infos in begun)
        assert not np.array_equal(first, seen)
        env.seed_each(4, alike=False)
        assert not np.array_equal(*env.reset()[:2])
    finally:
        env.close()


def test_training_may_ask_for_it_and_is_resumed_so(tmp_path: Path) -> None:
    config = replace(PAIR, common_random_numbers=True, checkpoint_every_steps=6)
    _, outcome = run(tmp_path / "whole", config)
    assert outcome == "finished"
    run(tmp_path / "part", replace(config, timesteps=12))
    assert go_on(tmp_path / "part", config) == "finished"
    assert returns(tmp_path / "part") == returns(tmp_path / "whole")
    run(tmp_path / "other", replace(config, common_random_numbers=False))
    assert returns(tmp_path / "other") != returns(tmp_path / "whole")
