"""Algorithms by name, with hyper-parameters from plain YAML files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

import agents
from agents.algorithms import ALGORITHMS, TRAINING_KEYS, build_model, load_hyperparameters
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import make

FOLDER = Path(agents.__file__).parent / "hyperparameters"
DIGITS = "SSDKD/Digits-v0"


def build(algorithm: str, seed: int = 0, **overrides: Any) -> Any:
    hyperparameters = load_hyperparameters(algorithm, DIGITS, overrides)
    return build_model(algorithm, DummyVecEnv([make]), hyperparameters, seed)


def test_every_algorithm_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.yml")} == set(ALGORITHMS)


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
        assert isinstance(values["normalize"], bool)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_build_a_model_with_their_values(algorithm: str) -> None:
    values = load_hyperparameters(algorithm, DIGITS)
    model: Any = build(algorithm)
    assert model.device == torch.device("cpu")
    assert model.num_timesteps == 0
    assert model.gamma == values["gamma"]
    assert model.batch_size == values["batch_size"]
    assert model.lr_schedule(1.0) == values["learning_rate"]
    assert model._stats_window_size == values["stats_window_size"]
    assert model.policy_kwargs["net_arch"] == values["policy_kwargs"]["net_arch"]
    assert type(model) is ALGORITHMS[algorithm]


def test_names_mean_the_algorithms_of_that_name() -> None:
    assert ALGORITHMS == {"ppo": PPO, "sac": SAC}


def test_discount_is_stated_and_reaches_the_end_of_an_episode() -> None:
    """At 0.95 a gain sixteen rounds later still counts for 0.44."""
    for algorithm in ALGORITHMS:
        assert 0.9 <= load_hyperparameters(algorithm, DIGITS)["gamma"] <= 1.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_overrides_replace_single_values(algorithm: str) -> None:
    plain = load_hyperparameters(algorithm, DIGITS)
    changed = load_hyperparameters(algorithm, DIGITS, {"learning_rate": 0.5, "normalize": False, "verbose": 0})
    assert changed == plain | {"learning_rate": 0.5, "normalize": False, "verbose": 0}
    assert load_hyperparameters(algorithm, DIGITS, {}) == load_hyperparameters(algorithm, DIGITS, None) == plain
    assert build(algorithm, learning_rate=0.5).lr_schedule(1.0) == 0.5


def test_prefix_of_the_id_does_not_matter() -> None:
    assert load_hyperparameters("ppo", f"ssdkd_env:{DIGITS}") == load_hyperparameters("ppo", DIGITS)


def test_environment_without_an_entry_takes_that_of_digits() -> None:
    assert load_hyperparameters("sac", "SSDKD/Mine-v0") == load_hyperparameters("sac", DIGITS)
    assert load_hyperparameters("sac", "mine:SSDKD/Mine-v0") == load_hyperparameters("sac", DIGITS)


def test_environment_with_an_entry_takes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hyperparameters").mkdir()
    (tmp_path / "hyperparameters" / "ppo.yml").write_text("SSDKD/Digits-v0: {gamma: 1}\nSSDKD/Mine-v0: {gamma: 0.5}\n")
    monkeypatch.setattr("agents.algorithms.__file__", str(tmp_path / "algorithms.py"))
    assert load_hyperparameters("ppo", "SSDKD/Mine-v0") == {"gamma": 0.5}
    assert load_hyperparameters("ppo", "x:SSDKD/Mine-v0") == {"gamma": 0.5}
    assert load_hyperparameters("ppo", "SSDKD/Other-v0") == {"gamma": 1}


def test_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="algo='dqn' is unknown; choose one of: ppo, sac"):
        load_hyperparameters("dqn", DIGITS)


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
        build("ppo", **overrides)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_of_the_training_do_not_reach_the_model(algorithm: str) -> None:
    build(algorithm, **dict.fromkeys(TRAINING_KEYS, 1))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_initial_weights_follow_from_the_seed(algorithm: str) -> None:
    first, second, other = (build(algorithm, seed).policy.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
