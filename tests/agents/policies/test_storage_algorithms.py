"""Samplers of every algorithm come back from a checkpoint and from an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ssdkd_agents.policies.algorithms import ALGORITHMS, build_model
from ssdkd_agents.policies.exported import write_exported
from ssdkd_agents.policies.storage import TrainedSampler, load_sampler, read_sampler, restore_model, save_sampler
from stable_baselines3.common.vec_env import VecNormalize

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import OFF_POLICY, STEPS, StandIn, agent, config_of, environments, stand_in
from tests.envs.episodes import make

#: A part of each agent that a forgetful file would leave at its first values.
LEARNT = {
    "a2c": "policy.action_net.weight",
    "ars": "weights",
    "cma_es": "weights",
    "crossq": "policy.critic.qf0.0.ra_mean",
    "dqn": "q_net_target.q_net.0.weight",
    "grpo": "policy.action_net.weight",
    "ppo": "policy.value_net.weight",
    "recurrent_ppo": "policy.lstm_actor.weight_hh_l0",
    "sac": "log_ent_coef",
    "td3": "actor_target.mu.0.weight",
    "tqc": "critic_target.qf0.0.weight",
    "trpo": "policy.log_std",
}


@pytest.fixture(scope="module")
def agents() -> dict[str, tuple[Any, dict[str, Any]]]:
    """One agent of each algorithm that has learnt. Tests leave them as they are."""
    result = {}
    for algorithm in ALGORITHMS:
        config = config_of(algorithm)
        result[algorithm] = (agent(config).learn(48), config)
    return result


@pytest.fixture(autouse=True)
def _small_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files name the stand-in's entries; its id is not registered."""
    algorithm = request.node.callspec.params.get("algorithm", "ppo") if hasattr(request.node, "callspec") else "ppo"
    monkeypatch.setattr("ssdkd_agents.policies.storage.make_env", lambda env_id, env_kwargs: stand_in(algorithm))


def world(algorithm: str) -> Any:
    """What a sampler of the algorithm drives."""
    return stand_in(algorithm)


def both(folder: Path, model: Any, config: dict[str, Any]) -> tuple[Path, Path]:
    """The agent's checkpoint and exported folder."""
    save_sampler(folder / "s.safetensors", model, config)
    write_exported(folder / "exported", read_sampler(folder / "s.safetensors"))
    return folder / "s.safetensors", folder / "exported"


def part_of(model: Any, path: str) -> torch.Tensor:
    top, _, rest = path.partition(".")
    value = getattr(model, top)
    return value.state_dict()[rest] if rest else value.detach()  # type: ignore[no-any-return]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_sampler_acts_as_the_agent_did(algorithm: str, agents: Any, tmp_path: Path) -> None:
    model, config = agents[algorithm]
    observations = np.random.default_rng(0).uniform(-1, 1, (30, 3)).astype(np.float32)
    normalised = model.get_vec_normalize_env().normalize_obs(observations.copy())
    expected = model.predict(normalised, deterministic=True)[0]
    for path in both(tmp_path, model, config):
        sampler = load_sampler(str(path), world(algorithm))
        assert isinstance(sampler, TrainedSampler)
        actions, _ = sampler.predict(observations, deterministic=True)
        np.testing.assert_array_equal(actions, expected)
        assert actions.dtype == expected.dtype
        single, _ = sampler.predict(observations[3], deterministic=True)
        np.testing.assert_allclose(single, expected[3], atol=1e-6)
    untrained = agent(config, seed=3).predict(normalised, deterministic=True)[0]
    assert not np.array_equal(untrained, expected), "what was learnt must matter, or this test shows nothing"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_restored_agent_has_what_was_learnt_beside_the_actions(algorithm: str, agents: Any, tmp_path: Path) -> None:
    model, config = agents[algorithm]
    save_sampler(tmp_path / "s", model, config)
    other = agent(config, seed=9)
    learnt = part_of(model, LEARNT[algorithm])
    assert not torch.equal(part_of(other, LEARNT[algorithm]), learnt)
    assert not torch.equal(part_of(agent(config), LEARNT[algorithm]), learnt), "48 steps have moved it"
    restore_model(other, read_sampler(tmp_path / "s"))
    assert torch.equal(part_of(other, LEARNT[algorithm]), learnt)


@pytest.mark.parametrize("algorithm", OFF_POLICY)
def test_replay_buffer_keeps_the_kind_of_its_actions(algorithm: str, agents: Any, tmp_path: Path) -> None:
    model, config = agents[algorithm]
    save_sampler(tmp_path / "s", model, config, with_replay=True)
    other = agent(config, seed=9)
    restore_model(other, read_sampler(tmp_path / "s"))
    filled = model.replay_buffer.actions[: model.replay_buffer.size()]
    np.testing.assert_array_equal(other.replay_buffer.actions[: len(filled)], filled)
    assert read_sampler(tmp_path / "s")["replay"]["actions"].numpy().dtype == filled.dtype
    assert len(filled) == 24
    assert filled.any()


def test_exploration_of_dqn_goes_on_where_it_was(tmp_path: Path) -> None:
    config = config_of("dqn", exploration_fraction=1.0)
    model = agent(config)
    model.learn(16)
    save_sampler(tmp_path / "s", model, config)
    other = agent(config)
    restore_model(other, read_sampler(tmp_path / "s"))
    assert other.exploration_rate == model.exploration_rate
    assert 0 < other.exploration_rate < 1
    assert other._n_calls == model._n_calls == 8


def test_recurrent_sampler_remembers_until_an_episode_starts(agents: Any, tmp_path: Path) -> None:
    model, config = agents["recurrent_ppo"]
    normalize = model.get_vec_normalize_env()
    episode = np.random.default_rng(1).uniform(-1, 1, (STEPS, 3)).astype(np.float32)
    for path in both(tmp_path, model, config):
        sampler = load_sampler(str(path), world("recurrent_ppo"))
        state, own_state = None, None
        for index, observation in enumerate([*episode, *episode]):
            start = np.array([index % STEPS == 0])
            action, state = sampler.predict(observation, state, start, deterministic=True)
            expected, own_state = model.predict(normalize.normalize_obs(observation), own_state, start, True)
            np.testing.assert_array_equal(action, expected)
        assert state is not None
        fresh, _ = sampler.predict(episode[-1], None, np.array([True]), deterministic=True)
        assert not np.array_equal(fresh, action), "the memory matters"


@pytest.mark.parametrize("options", [{"norm_obs": False}, {"norm_reward": False, "clip_obs": 0.5}])
def test_settings_of_the_normalisation_come_back(options: dict[str, Any], tmp_path: Path) -> None:
    config = config_of("ppo")
    venv = VecNormalize(environments("ppo"), **options)
    model = build_model("ppo", venv, config["hyperparameters"], seed=0).learn(16)
    observations = np.random.default_rng(0).uniform(-1, 1, (9, 3)).astype(np.float32)
    expected, _ = model.predict(venv.normalize_obs(observations), deterministic=True)
    for path in both(tmp_path, model, config):
        actions, _ = load_sampler(str(path), world("ppo")).predict(observations, deterministic=True)
        np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("what", ["observation", "action"])
def test_environment_with_other_entries_is_refused(what: str, agents: Any, tmp_path: Path) -> None:
    other = world("ppo")
    setattr(other, f"{what}_names", getattr(make(), f"{what}_names"))
    for path in both(tmp_path, *agents["ppo"]):
        with pytest.raises(InvalidInputError, match=f"was trained with other {what} entries"):
            load_sampler(str(path), other)


def test_file_that_does_not_name_the_rounds_of_a_step_has_steps_of_one(
    agents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that were written before there was a choice."""
    monkeypatch.setattr(StandIn, "face", {"action": "stand-in"})
    files = both(tmp_path, *agents["ppo"])
    for rounds in (1, 2):
        monkeypatch.setattr(StandIn, "face", {"action": "stand-in", "rounds_per_step": rounds})
        for path in files:
            if rounds == 1:
                load_sampler(str(path), world("ppo"))
                continue
            with pytest.raises(InvalidInputError, match="make it with rounds_per_step=1"):
                load_sampler(str(path), world("ppo"))


def test_environment_with_another_face_is_refused(agents: Any, tmp_path: Path) -> None:
    for path in both(tmp_path, *agents["ppo"]):
        with pytest.raises(InvalidInputError, match=r"made with action='stand-in', this .*; make it with action="):
            load_sampler(str(path), make())
