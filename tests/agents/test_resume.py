"""A training that stops between two episodes goes on as if it had not stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import recursive_getattr

from agents.algorithms import ALGORITHMS
from agents.resume import load_random, random_state
from agents.storage import read_sampler, restore_model, save_sampler
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from tests.agents.stand_in import OFF_POLICY, agent, config_of

HALF, WHOLE = 32, 64


class Saving(BaseCallback):
    """Saves once, at the start of a rollout."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        super().__init__()
        self.path, self.config = path, config

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == HALF:
            save_sampler(self.path, self.model, self.config, with_replay=True)

    def _on_step(self) -> bool:
        return True


def everything(model: Any) -> dict[str, Any]:
    """All numbers of an agent that its later updates can depend on."""
    names, variables = model._get_torch_save_params()
    flat: dict[str, Any] = {name: recursive_getattr(model, name).detach().clone() for name in variables}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{name}/{key}", item)
        elif isinstance(value, (list, tuple)):
            add(name, dict(enumerate(value)))
        else:
            flat[name] = value

    for name in names:
        add(name, recursive_getattr(model, name).state_dict())
    normalize = model.get_vec_normalize_env()
    add("statistics", [vars(normalize.obs_rms), vars(normalize.ret_rms)])
    for name in ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate", "weights"):
        add(name, getattr(model, name, None))
    add("schedule", model._current_progress_remaining)
    add("random", [np.random.rand(3), random.random(), torch.rand(3), model.action_space.sample()])
    add("returns", [episode["r"] for episode in model.ep_info_buffer])
    return flat


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[name]), name
        else:
            np.testing.assert_array_equal(value, second[name], err_msg=name)


def resumed(path: Path, config: dict[str, Any], exact: bool = True) -> Any:
    """A fresh agent, with other random numbers behind it, that takes over between two episodes."""
    model = agent(config, seed=9)
    np.random.rand(7), torch.rand(7), random.random()
    model.get_vec_normalize_env().venv.reset()
    restore_model(model, read_sampler(path), exact=exact)
    return model


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_goes_on_exactly(algorithm: str, tmp_path: Path) -> None:
    """Bit for bit: weights, moments, schedules, statistics, counters, replay, and the random numbers after it."""
    config = config_of(algorithm, learning_rate="lin_0.01")
    whole = agent(config)
    whole.learn(WHOLE, callback=Saving(tmp_path / "s.safetensors", config))
    expected = everything(whole)
    replay: Any = getattr(whole, "replay_buffer", None)
    other = resumed(tmp_path / "s.safetensors", config)
    assert other.num_timesteps == HALF
    before = {name: tensor.clone() for name, tensor in other.policy.state_dict().items()}
    other.learn(WHOLE - HALF, reset_num_timesteps=False)
    assert_same(expected, everything(other))
    assert any(not torch.equal(before[name], tensor) for name, tensor in other.policy.state_dict().items())
    if algorithm in OFF_POLICY:
        np.testing.assert_array_equal(replay.observations, other.replay_buffer.observations)


@pytest.mark.parametrize(
    ("algorithm", "options"), [("ppo", {}), ("sac", {}), ("ars", {"zero_policy": False, "policy": "MlpPolicy"})]
)
def test_a_finished_training_goes_on_exactly(algorithm: str, options: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(algorithm, **options)
    whole = agent(config)
    whole.learn(HALF)
    save_sampler(tmp_path / "s.safetensors", whole, config, with_replay=True)
    whole.learn(WHOLE - HALF, reset_num_timesteps=False)
    expected = everything(whole)
    other = resumed(tmp_path / "s.safetensors", config)
    other.learn(WHOLE - HALF, reset_num_timesteps=False)
    assert_same(expected, everything(other))


def test_without_exactness_the_randomness_is_another(tmp_path: Path) -> None:
    """Otherwise the tests above would show nothing."""
    config = config_of("ppo")
    whole = agent(config)
    whole.learn(WHOLE, callback=Saving(tmp_path / "s.safetensors", config))
    other = resumed(tmp_path / "s.safetensors", config, exact=False)
    assert other._last_obs is None
    other.learn(WHOLE - HALF, reset_num_timesteps=False)
    assert not torch.equal(whole.policy.action_net.weight, other.policy.action_net.weight)


def test_random_generators_come_back_through_a_file(tmp_path: Path) -> None:
    def draw() -> list[Any]:
        normal = np.random.normal(size=3).tolist()  # an odd number: numpy keeps the fourth for later
        return [normal, random.gauss(0, 1), torch.rand(2).tolist(), model.action_space.sample().tolist()]

    model = agent(config_of("ppo"))
    draw()
    save_state(tmp_path / "r", random_state(model))
    first = draw()
    assert draw() != first
    load_random(model, load_state(tmp_path / "r"))
    assert draw() == first


def test_file_that_cannot_go_on_exactly_is_refused(tmp_path: Path) -> None:
    config = config_of("ppo")
    save_sampler(tmp_path / "s", agent(config), config)
    with pytest.raises(InvalidInputError, match="cannot go on exactly"):
        restore_model(agent(config), read_sampler(tmp_path / "s"), exact=True)


def test_other_number_of_environments_cannot_go_on_exactly(tmp_path: Path) -> None:
    config = config_of("ppo")
    model = agent(config)
    model.learn(8)
    save_sampler(tmp_path / "s", model, config, with_replay=True)
    with pytest.raises(InvalidInputError, match="had n_envs=2, not 3"):
        restore_model(agent(config_of("ppo", n_envs=3)), read_sampler(tmp_path / "s"), exact=True)
