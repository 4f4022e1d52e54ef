"""Trained samplers on disk: they come back exactly, or are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ssdkd_agents.policies.algorithms import build_model, load_hyperparameters
from ssdkd_agents.policies.resume import REPLAY_ARRAYS
from ssdkd_agents.policies.storage import (
    TrainedSampler,
    load_constant,
    load_sampler,
    read_sampler,
    restore_model,
    save_sampler,
)
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state, write_json
from ssdkd_env.networks.checkpoints import save_weights
from tests.envs.episodes import make

DIGITS = "SSDKD/Digits-v2"
SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"n_steps": 4, "batch_size": 4, "n_epochs": 2},
    "sac": {"learning_starts": 2, "batch_size": 4, "buffer_size": 50},
}
ALGORITHMS = tuple(SMALL)


def config_of(algorithm: str, **overrides: Any) -> dict[str, Any]:
    hyperparameters = load_hyperparameters(algorithm, DIGITS, SMALL[algorithm] | {"n_envs": 1} | overrides)
    return {"algorithm": algorithm, "hyperparameters": hyperparameters, "env_id": DIGITS}


def fresh(config: dict[str, Any], seed: int = 0, normalize: bool = True) -> BaseAlgorithm:
    """An untrained agent on one small environment."""
    venv: VecEnv = DummyVecEnv([make])
    venv.seed(seed)
    return build_model(
        config["algorithm"], VecNormalize(venv) if normalize else venv, config["hyperparameters"], seed=seed
    )


def trained(algorithm: str, normalize: bool = True, **overrides: Any) -> tuple[BaseAlgorithm, dict[str, Any]]:
    config = config_of(algorithm, **overrides)
    model = fresh(config, normalize=normalize)
    model.learn(8)
    return model, config


@pytest.fixture(scope="module")
def agents() -> dict[str, tuple[BaseAlgorithm, dict[str, Any]]]:
    """One agent of each algorithm after 8 steps. Tests leave them as they are."""
    return {algorithm: trained(algorithm) for algorithm in ALGORITHMS}


@pytest.fixture(scope="module")
def observations() -> np.ndarray[Any, np.dtype[np.float32]]:
    space = make().observation_space
    space.seed(5)
    return np.stack([space.sample() for _ in range(20)])


def tensors_of(value: Any, name: str = "") -> dict[str, Any]:
    """All numbers of nested containers, under the path that leads to each."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {name: value}
    return {k: v for key, item in items for k, v in tensors_of(item, f"{name}/{key!r}").items()}


def assert_equal(first: Any, second: Any) -> None:
    one, other = tensors_of(first), tensors_of(second)
    assert one.keys() == other.keys()
    for name in one:
        if isinstance(one[name], torch.Tensor):
            assert one[name].dtype == other[name].dtype, name
            assert torch.equal(one[name], other[name]), name
        else:
            assert one[name] == other[name], name


def statistics(model: BaseAlgorithm) -> list[Any]:
    environment = model.get_vec_normalize_env()
    assert environment is not None
    return [
        np.asarray(getattr(part, name)).tolist()
        for part in (environment.obs_rms, environment.ret_rms)
        for name in ("mean", "var", "count")
    ]


# --- saved and loaded again ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_loaded_sampler_acts_as_the_agent_did(
    algorithm: str, agents: Any, tmp_path: Path, observations: np.ndarray[Any, np.dtype[np.float32]]
) -> None:
    model, config = agents[algorithm]
    save_sampler(tmp_path / "s.safetensors", model, config)
    sampler = load_sampler(str(tmp_path / "s.safetensors"), make())
    normalize = model.get_vec_normalize_env()
    expected, _ = model.predict(normalize.normalize_obs(observations.copy()), deterministic=True)
    actions, _ = sampler.predict(observations, deterministic=True)
    np.testing.assert_array_equal(actions, expected)
    assert actions.shape == (20, 5)
    single, _ = sampler.predict(observations[3], deterministic=True)
    np.testing.assert_allclose(single, expected[3], atol=1e-6)
    raw, _ = model.predict(observations, deterministic=True)
    assert not np.array_equal(raw, expected), "the statistics must matter, or this test shows nothing"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_agent_without_normalisation_comes_back(
    algorithm: str, tmp_path: Path, observations: np.ndarray[Any, np.dtype[np.float32]]
) -> None:
    model, config = trained(algorithm, normalize=False)
    save_sampler(tmp_path / "s.safetensors", model, config)
    assert read_sampler(tmp_path / "s.safetensors")["normalization"] is None
    actions, _ = TrainedSampler(tmp_path / "s.safetensors", make()).predict(observations, deterministic=True)
    np.testing.assert_array_equal(actions, model.predict(observations, deterministic=True)[0])


def test_asking_a_sampler_changes_neither_it_nor_the_observation(
    agents: Any, tmp_path: Path, observations: np.ndarray[Any, np.dtype[np.float32]]
) -> None:
    save_sampler(tmp_path / "s.safetensors", *agents["ppo"])
    sampler = TrainedSampler(tmp_path / "s.safetensors", make())
    given = observations.copy()
    first, _ = sampler.predict(given, deterministic=True)
    for _ in range(5):
        sampler.predict(given * 0.5, deterministic=True)
    np.testing.assert_array_equal(given, observations)
    np.testing.assert_array_equal(sampler.predict(given, deterministic=True)[0], first)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_restored_agent_has_every_weight_moment_and_counter(algorithm: str, agents: Any, tmp_path: Path) -> None:
    """Policy, optimisers with their moments, SAC's entropy coefficient, statistics, counters."""
    model, config = agents[algorithm]
    save_sampler(tmp_path / "s.safetensors", model, config, with_replay=True)
    other = fresh(config, seed=9)
    restore_model(other, read_sampler(tmp_path / "s.safetensors"))
    names, variables = model._get_torch_save_params()
    for name in names:
        part: Any
        other_part: Any
        part, other_part = model, other
        for step in name.split("."):
            part, other_part = getattr(part, step), getattr(other_part, step)
        assert_equal(part.state_dict(), other_part.state_dict())
    moments = [name for name in tensors_of(read_sampler(tmp_path / "s.safetensors")["parameters"]) if "exp_avg" in name]
    assert moments, "the optimisers' moments are in the file"
    for name in variables:
        assert torch.equal(getattr(model, name), getattr(other, name))
    assert variables == ([] if algorithm == "ppo" else ["log_ent_coef"])
    assert statistics(other) == statistics(model)
    assert (other.num_timesteps, other._n_updates) == (model.num_timesteps, model._n_updates)
    assert other.num_timesteps == 8
    assert other._n_updates > 0


def test_entropy_coefficient_was_learnt(agents: Any, tmp_path: Path) -> None:
    """Otherwise the test above would compare initial values."""
    model, config = agents["sac"]
    assert not torch.equal(model.log_ent_coef, fresh(config).log_ent_coef)  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_restored_agent_learns_the_same_from_the_same_data(algorithm: str, agents: Any, tmp_path: Path) -> None:
    model, config = agents[algorithm]
    save_sampler(tmp_path / "s.safetensors", model, config, with_replay=True)
    learnt = []
    for seed in (11, 12):
        copy: Any = fresh(config, seed=seed)
        restore_model(copy, read_sampler(tmp_path / "s.safetensors"))
        copy.get_env().seed(3)
        copy.set_random_seed(4)
        copy.get_env().seed(3)
        copy.learn(8, reset_num_timesteps=False)
        learnt.append(copy)
    assert learnt[0].num_timesteps == 16
    assert_equal(learnt[0].policy.state_dict(), learnt[1].policy.state_dict())


@pytest.mark.parametrize("buffer_size", [50, 5], ids=["filling", "wrapped around"])
def test_replay_buffer_comes_back(buffer_size: int, tmp_path: Path) -> None:
    model: Any
    model, config = trained("sac", buffer_size=buffer_size)
    assert model.replay_buffer.full == (buffer_size == 5)
    save_sampler(tmp_path / "s.safetensors", model, config, with_replay=True)
    other: Any = fresh(config, seed=9)
    restore_model(other, read_sampler(tmp_path / "s.safetensors"))
    assert other.replay_buffer.pos == model.replay_buffer.pos == 8 % buffer_size
    assert other.replay_buffer.full == model.replay_buffer.full
    assert other.replay_buffer.size() == min(8, buffer_size)
    for name in REPLAY_ARRAYS:
        filled = getattr(model.replay_buffer, name)[: model.replay_buffer.size()]
        restored = getattr(other.replay_buffer, name)[: model.replay_buffer.size()]
        np.testing.assert_array_equal(restored, filled)
        assert restored.dtype == filled.dtype
    assert model.replay_buffer.observations[:3].any()


def test_replay_arrays_are_all_that_the_buffer_holds(agents: Any) -> None:
    """A new version of Stable-Baselines3 might keep more."""
    buffer = agents["sac"][0].replay_buffer
    assert {name for name, value in vars(buffer).items() if isinstance(value, np.ndarray)} == set(REPLAY_ARRAYS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_replay_buffer_is_left_out_unless_asked_for(algorithm: str, agents: Any, tmp_path: Path) -> None:
    save_sampler(tmp_path / "s.safetensors", *agents[algorithm])
    assert read_sampler(tmp_path / "s.safetensors")["replay"] is None
    model, config = agents[algorithm]
    save_sampler(tmp_path / "r.safetensors", model, config, with_replay=True)
    assert (read_sampler(tmp_path / "r.safetensors")["replay"] is not None) == (algorithm == "sac")


def test_statistics_lie_in_the_file_of_the_weights(agents: Any, tmp_path: Path) -> None:
    """So that one cannot be taken without the other."""
    save_sampler(tmp_path / "s.safetensors", *agents["ppo"])
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]
    assert read_sampler(tmp_path / "s.safetensors")["normalization"]["observation"]["mean"].shape == (25,)


def test_trained_sampler_plays_an_episode(agents: Any, tmp_path: Path) -> None:
    save_sampler(tmp_path / "s.safetensors", *agents["sac"])
    env = make()
    sampler = load_sampler(str(tmp_path / "s.safetensors"), env)
    observation, _ = env.reset(seed=0)
    for _ in range(env.budget.rounds):
        action, _ = sampler.predict(observation, deterministic=True)
        assert env.action_space.contains(action)
        observation, _, finished, _, _ = env.step(action)
    assert finished


# --- files that are refused ---


@pytest.fixture
def saved(agents: Any, tmp_path: Path) -> Path:
    save_sampler(tmp_path / "s.safetensors", *agents["ppo"])
    return tmp_path / "s.safetensors"


def refused(path: Path, match: str = r"s\.safetensors") -> str:
    with pytest.raises(InvalidInputError, match=match) as caught:
        TrainedSampler(path, make())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.1, 0.5, 0.999])
def test_file_that_was_cut_short_is_refused(kept: float, saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    refused(saved, r"s\.safetensors.*cut short")


def test_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_weights(path, torch.nn.Linear(2, 2))
    refused(path)
    for state in ({"format": "ssdkd sampler 0"}, {"x": torch.zeros(3)}, {}):
        save_state(path, state)
        refused(path, "holds no trained sampler; expected a file that ssdkd train wrote")
    path.write_text("no tensors at all")
    refused(path)


@pytest.mark.parametrize("env_id", ["SSDKD/Digits-v1", "ssdkd_env:SSDKD/CIFAR10-v0"])
def test_what_was_learnt_on_another_version_is_refused(env_id: str, agents: Any, tmp_path: Path) -> None:
    model, config = agents["ppo"]
    path = tmp_path / "s.safetensors"
    save_sampler(path, model, config)
    state = load_state(path)
    state["config"]["env_id"] = env_id
    save_state(path, state)
    refused(path, f"s.safetensors was made on {env_id}; observations and plans mean something else in -v2: train or")
    plan = {"action": [0.0] * 5, "action_names": list(make().action_names), "env_kwargs": {}, "env_id": env_id}
    write_json(tmp_path / "constant.json", plan)
    with pytest.raises(InvalidInputError, match=r"constant\.json was made on"):
        load_constant(tmp_path / "constant.json", make())
    write_json(tmp_path / "constant.json", plan | {"env_id": "mine/Digits-v7"})  # an id of the user's own says nothing
    load_constant(tmp_path / "constant.json", make())


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "none")
    refused(tmp_path, str(tmp_path))


Edit = Callable[[dict[str, Any]], object]
EDITS: dict[str, Edit] = {
    "config missing": lambda state: state.pop("config"),
    "algorithm missing": lambda state: state["config"].pop("algorithm"),
    "algorithm unknown": lambda state: state["config"].update(algorithm="dqn"),
    "hyper-parameters missing": lambda state: state["config"].pop("hyperparameters"),
    "hyper-parameters unknown": lambda state: state["config"]["hyperparameters"].update(bogus=1),
    "names missing": lambda state: state.pop("names"),
    "parameters missing": lambda state: state.pop("parameters"),
    "policy missing": lambda state: state["parameters"].pop("policy"),
    "a weight missing": lambda state: state["parameters"]["policy"].pop("log_std"),
    "a weight of another shape": lambda state: state["parameters"]["policy"].update(log_std=torch.zeros(2)),
    "variables unknown": lambda state: state["variables"].update(bogus=torch.zeros(1)),
    "counters missing": lambda state: state.pop("counters"),
    "normalisation without statistics": lambda state: state["normalization"].pop("observation"),
    "statistics of another shape": lambda state: state["normalization"]["observation"].update(mean=torch.zeros(3)),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_damaged_file_is_refused(edit: Edit, saved: Path) -> None:
    state = read_sampler(saved)
    edit(state)
    save_state(saved, state)
    refused(saved, ".")


def test_counters_of_an_earlier_version_do_not_matter(agents: Any, saved: Path) -> None:
    state = read_sampler(saved)
    state["counters"]["total_timesteps"] = 99
    other = fresh(agents["ppo"][1])
    restore_model(other, state)
    assert other.num_timesteps == agents["ppo"][0].num_timesteps == 8
    assert other._total_timesteps == 0


@pytest.mark.parametrize("what", ["observation", "action"])
def test_environment_with_other_entries_is_refused(what: str, saved: Path) -> None:
    env = make()
    setattr(env, f"{what}_names", (*getattr(env, f"{what}_names")[:-1], "something else"))
    with pytest.raises(InvalidInputError, match=f"trained with other {what} entries than this environment has"):
        TrainedSampler(saved, env)


def test_state_of_another_network_is_refused(agents: Any, saved: Path) -> None:
    before = agents["ppo"][0].policy.state_dict()
    with pytest.raises(InvalidInputError, match="does not fit"):
        restore_model(fresh(config_of("ppo", policy_kwargs={"net_arch": [7]})), read_sampler(saved))
    with pytest.raises(InvalidInputError, match="does not fit"):
        restore_model(fresh(config_of("sac")), read_sampler(saved))
    assert_equal(agents["ppo"][0].policy.state_dict(), before)


# --- written whole or not at all ---


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_failed_save_leaves_the_old_file(
    error: BaseException, agents: Any, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def rename(source: Path, target: Path) -> None:
        assert Path(target).read_bytes() == before
        raise error

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(InvalidInputError if isinstance(error, OSError) else KeyboardInterrupt):
        save_sampler(saved, *agents["sac"])
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_place_that_cannot_be_written_is_refused(agents: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="cannot write"):
        save_sampler(tmp_path / "file" / "s.safetensors", *agents["ppo"])
