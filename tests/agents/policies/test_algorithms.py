"""Algorithms by name, with hyper-parameters from plain YAML files."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import ssdkd_agents
import stable_baselines3
import torch
import yaml
from ssdkd_agents.policies.algorithms import (
    ALGORITHMS,
    CONTINUOUS,
    DISCRETE,
    OF_WEIGHTS,
    TRAINING_KEYS,
    algorithm_class,
    build_model,
    load_hyperparameters,
)
from ssdkd_agents.policies.normalization import normalization_options
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import OFF_POLICY, StandIn, environments
from tests.envs.episodes import make

FOLDER = Path(ssdkd_agents.__file__).parent / "hyperparameters"
DIGITS = "SSDKD/Digits-v2"
#: Keys that RL Zoo takes out of the hyper-parameters before the algorithm sees them, and that we understand too.
ZOO_KEYS = {"n_envs", "n_timesteps", "normalize", "noise_type", "noise_std"}
#: Steps of an episode, environment steps of a training that takes an hour or so.
ROUNDS, MOST_STEPS = 16, 12800


def build(algorithm: str, seed: int = 0, **overrides: Any) -> Any:
    hyperparameters = load_hyperparameters(algorithm, DIGITS, overrides)
    return build_model(algorithm, environments(algorithm), hyperparameters, seed)


def test_every_algorithm_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.yml")} == set(ALGORITHMS)


#: Of ours: what they hand their options on to.
MADE_OF: dict[str, list[Any]] = {name: [sb3_contrib.ARS] for name in OF_WEIGHTS} | {"grpo": [stable_baselines3.PPO]}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_are_plain_data(algorithm: str) -> None:
    """Nothing that only Python understands: no tags, no expressions to evaluate."""
    text = (FOLDER / f"{algorithm}.yml").read_text()
    assert "!" not in text
    table = yaml.safe_load(text)
    assert json.loads(json.dumps(table)) == table
    for values in table.values():
        assert isinstance(values["n_envs"], int)
        assert isinstance(values["n_timesteps"], int)
        assert isinstance(values["normalize"], bool | dict)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_have_no_key_that_rl_zoo_would_hand_to_the_algorithm_in_vain(algorithm: str) -> None:
    """RL Zoo passes everything but its own keys to the constructor, and evaluates text as Python."""
    classes: list[Any] = [algorithm_class(algorithm), *MADE_OF.get(algorithm, ())]
    names = {name for each in classes for name in inspect.signature(each).parameters}
    values = load_hyperparameters(algorithm, DIGITS)
    assert set(values) - ZOO_KEYS <= names
    assert {name for name, value in values.items() if isinstance(value, str)} <= {"policy", "ent_coef", "noise_type"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_suit_short_trainings_in_a_few_environments(algorithm: str) -> None:
    values = load_hyperparameters(algorithm, DIGITS)
    assert values["n_envs"] in (8, 16), "of which a group makes good use"
    assert values["n_timesteps"] <= MOST_STEPS
    if algorithm in OFF_POLICY:
        assert values["buffer_size"] >= values["n_timesteps"]
        assert values["gradient_steps"] <= 2 * values["n_envs"] * values["train_freq"]
        assert values["learning_starts"] == ROUNDS * values["n_envs"]
    elif algorithm in OF_WEIGHTS:
        assert values.get("population", 2 * values.get("n_delta", 0)) == values["n_envs"]
    elif algorithm == "grpo":
        assert values["n_envs"] * values["groups"] * ROUNDS % values["batch_size"] == 0
    else:
        assert ROUNDS % values["n_steps"] == 0, "a rollout begins where an episode does"
        assert values["n_timesteps"] % (values["n_envs"] * values["n_steps"]) == 0
        if "batch_size" in values:
            assert values["n_envs"] * values["n_steps"] % values["batch_size"] == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_build_a_model_with_their_values(algorithm: str) -> None:
    values = load_hyperparameters(algorithm, DIGITS)
    model: Any = build(algorithm)
    assert model.device == torch.device("cpu")
    assert model.num_timesteps == 0
    if algorithm != "cma_es":
        assert model.lr_schedule(1.0) == model.lr_schedule(0.1) == values["learning_rate"]
    assert model._stats_window_size == values["stats_window_size"]
    assert model.policy_kwargs.items() >= values["policy_kwargs"].items()
    for name in {
        "gamma",
        "batch_size",
        "n_steps",
        "gradient_steps",
        "n_delta",
        "population",
        "sigma",
        "buffer_size",
    } & set(values):
        assert getattr(model, name) == values[name], name
    assert type(model) is algorithm_class(algorithm)


def test_names_mean_the_algorithms_of_that_name() -> None:
    own = {
        "recurrent_ppo": "RecurrentPPO",
        "crossq": "CrossQ",
        "cma_es": "ARS",
        "grpo": "PPO",
    }  # which they are made of
    for name in ALGORITHMS:
        title = own.get(name, name.upper())
        assert issubclass(algorithm_class(name), getattr(stable_baselines3, title, None) or getattr(sb3_contrib, title))


def test_discount_is_stated_and_reaches_the_end_of_an_episode() -> None:
    """At 0.95 a gain sixteen rounds later still counts for 0.44."""
    for algorithm in set(ALGORITHMS) - OF_WEIGHTS.keys() - {"grpo"}:  # which has no discount
        assert 0.9 <= load_hyperparameters(algorithm, DIGITS)["gamma"] <= 1.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_overrides_replace_single_values(algorithm: str) -> None:
    plain = load_hyperparameters(algorithm, DIGITS)
    changed = load_hyperparameters(algorithm, DIGITS, {"learning_rate": 0.5, "normalize": False, "verbose": 0})
    assert changed == plain | {"learning_rate": 0.5, "normalize": False, "verbose": 0}
    assert load_hyperparameters(algorithm, DIGITS, {}) == load_hyperparameters(algorithm, DIGITS, None) == plain
    if algorithm != "cma_es":
        assert build(algorithm, learning_rate=0.5).lr_schedule(1.0) == 0.5


def test_prefix_of_the_id_does_not_matter() -> None:
    assert load_hyperparameters("ppo", f"ssdkd_env:{DIGITS}") == load_hyperparameters("ppo", DIGITS)


def test_environment_without_an_entry_takes_that_of_digits() -> None:
    assert load_hyperparameters("sac", "SSDKD/Mine-v2") == load_hyperparameters("sac", DIGITS)
    assert load_hyperparameters("sac", "mine:SSDKD/Mine-v2") == load_hyperparameters("sac", DIGITS)


def test_environment_with_an_entry_takes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hyperparameters").mkdir()
    (tmp_path / "hyperparameters" / "ppo.yml").write_text("SSDKD/Digits-v2: {gamma: 1}\nSSDKD/Mine-v2: {gamma: 0.5}\n")
    monkeypatch.setattr("ssdkd_agents.policies.algorithms.HYPERPARAMETERS", tmp_path / "hyperparameters")
    assert load_hyperparameters("ppo", "SSDKD/Mine-v2") == {"gamma": 0.5}
    assert load_hyperparameters("ppo", "x:SSDKD/Mine-v2") == {"gamma": 0.5}
    assert load_hyperparameters("ppo", "SSDKD/Other-v2") == {"gamma": 1}


def test_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"algo='dqm' is unknown; choose one of: a2c, ars, .*trpo"):
        load_hyperparameters("dqm", DIGITS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "overrides",
    [
        {"bogus": 1},
        {"device": "cuda"},
        {"policy": "NoSuchPolicy"},
        {"policy_kwargs": {"bogus": 1}},
        {"learning_rate": "fast"},
        {"learning_rate": [1, 2]},
    ],
    ids=str,
)
def test_hyperparameter_that_does_not_fit_is_refused(algorithm: str, overrides: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="hyperparameters") as caught:
        build(algorithm, **overrides)
    assert "\n" not in str(caught.value)
    assert next(iter(overrides)) in str(caught.value)


@pytest.mark.parametrize(
    "overrides", [{"n_steps": 0}, {"batch_size": 1}, {"n_steps": 1}, {"batch_size": "many"}], ids=str
)
def test_rollout_that_ppo_cannot_work_with_is_refused(overrides: dict[str, Any]) -> None:
    """Stable-Baselines3 asserts here; a user should read which value to mend."""
    with pytest.raises(InvalidInputError, match="hyperparameters"):
        build_model("ppo", environments("ppo", 1), load_hyperparameters("ppo", DIGITS, overrides), 0)


@pytest.mark.parametrize(
    ("algorithm", "overrides"),
    [
        ("ars", {"n_eval_episodes": 0}),
        ("ars", {"n_top": 0}),
        ("cma_es", {"n_eval_episodes": 0}),
        ("cma_es", {"n_eval_episodes": 1.5}),
        ("cma_es", {"diagonal": 1}),
        ("cma_es", {"diagonal": "no"}),
        ("cma_es", {"sigma": "wide"}),
        ("ars", {"zero_policy": 3}),
    ],
    ids=str,
)
def test_what_a_search_would_meet_in_its_first_generation_is_refused(algorithm: str, overrides: dict[str, Any]) -> None:
    """Nothing to play, for ever; or an error in the middle of numpy."""
    (name,) = overrides
    with pytest.raises(InvalidInputError, match=rf"hyperparameters\['{name}'\]=.*: expected "):
        build(algorithm, **overrides)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_of_the_training_do_not_reach_the_model(algorithm: str) -> None:
    build(algorithm, **dict.fromkeys(TRAINING_KEYS, 1))


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - OF_WEIGHTS.keys()))
def test_initial_weights_follow_from_the_seed(algorithm: str) -> None:
    first, second, other = (build(algorithm, seed).policy.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


# --- the kind of action ---


@pytest.mark.parametrize("algorithm", CONTINUOUS)
def test_continuous_algorithm_refuses_strategies(algorithm: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"algo='{algorithm}' needs a continuous .*Discrete.*action exponents"):
        build_model(
            algorithm, DummyVecEnv([lambda: StandIn(discrete=True)]), load_hyperparameters(algorithm, DIGITS), 0
        )


def test_dqn_refuses_a_box() -> None:
    with pytest.raises(InvalidInputError, match=r"algo='dqn' .*Box.*add --env.action plans"):
        build_model("dqn", DummyVecEnv([make]), load_hyperparameters("dqn", DIGITS), 0)


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - set(CONTINUOUS)))
def test_others_take_strategies(algorithm: str) -> None:
    venv = DummyVecEnv([lambda: StandIn(discrete=True)] * 2)
    model = build_model(algorithm, venv, load_hyperparameters(algorithm, DIGITS), 0)
    assert model.predict(np.zeros((4, 3), dtype=np.float32))[0].shape == (4,)


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - set(DISCRETE)))
def test_all_but_dqn_take_the_environments_own_action(algorithm: str) -> None:
    model = build_model(algorithm, DummyVecEnv([make] * 2), load_hyperparameters(algorithm, DIGITS), 0)
    assert model.predict(make().observation_space.sample())[0].shape == (5,)


# --- RL Zoo's spellings ---


def test_linear_schedule_falls_to_zero() -> None:
    model = build("ppo", learning_rate="lin_0.4", clip_range="lin_0.2")
    assert [model.lr_schedule(progress) for progress in (1.0, 0.5, 0.0)] == pytest.approx([0.4, 0.2, 0.0])
    assert model.clip_range(0.5) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("kind", "expected"), [("normal", NormalActionNoise), ("ornstein-uhlenbeck", OrnsteinUhlenbeckActionNoise)]
)
def test_noise_is_made_from_its_name(kind: str, expected: type) -> None:
    model: Any = build("td3", noise_type=kind, noise_std=0.7)
    assert type(model.action_noise) is expected
    noise: Any = model.action_noise
    assert noise._sigma.tolist() == [0.7, 0.7]
    np.random.seed(0)
    drawn = np.stack([NormalActionNoise(np.zeros(2), np.full(2, 0.7))() for _ in range(2000)])
    assert drawn.std() == pytest.approx(0.7, abs=0.05)


def test_td3_explores() -> None:
    assert build("td3").action_noise is not None
    with pytest.raises(InvalidInputError, match=r"noise_type.*'pink' is unknown; choose one of: normal, ornstein"):
        build("td3", noise_type="pink")


@pytest.mark.parametrize("given", [{"noise_std": 0.1}, {"noise_type": "normal"}], ids=str)
def test_half_of_a_noise_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidInputError, match=rf"hyperparameters\['{next(iter(given))}'\] does nothing without 'noise_"
    ):
        build("sac", **given)


def test_pair_of_a_list_is_a_frequency() -> None:
    assert build("sac", train_freq=[3, "step"]).train_freq.frequency == 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"normalize": False}, None),
        ({}, None),
        ({"normalize": True}, {"gamma": 0.99}),
        ({"normalize": True, "gamma": 1}, {"gamma": 1.0}),
        (
            {"normalize": {"norm_obs": True, "norm_reward": False}},
            {"gamma": 0.99, "norm_obs": True, "norm_reward": False},
        ),
    ],
)
def test_normalization_is_a_switch_or_a_mapping(given: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert normalization_options(given) == expected


def test_source_code_is_not_evaluated() -> None:
    with pytest.raises(InvalidInputError, match=r"normalize.*expected true, false or a mapping"):
        normalization_options({"normalize": "dict(norm_obs=True)"})
    with pytest.raises(InvalidInputError, match="policy_kwargs"):
        build("ppo", policy_kwargs="dict(net_arch=[8])")


def test_building_leaves_the_hyperparameters_as_they_are() -> None:
    """A2C adds an optimiser to policy_kwargs, which no JSON can hold."""
    hyperparameters = load_hyperparameters("a2c", DIGITS)
    before = json.dumps(hyperparameters)
    build_model("a2c", environments("a2c"), hyperparameters, 0)
    assert json.dumps(hyperparameters) == before
