"""What an algorithm is given is what its signature names."""

from __future__ import annotations

from typing import Any

import pytest
from ssdkd_agents.policies.algorithms import ALGORITHMS, algorithm_class, build_model, load_hyperparameters
from ssdkd_agents.policies.hyperparameters import check_hyperparameters

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import environments


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_our_own_hyperparameters_fit(algorithm: str) -> None:
    given = load_hyperparameters(algorithm, "SSDKD/Digits-v2")
    given = {name: value for name, value in given.items() if not str(value).startswith("lin_")}
    check_hyperparameters(algorithm_class(algorithm), given, 16)


@pytest.mark.parametrize(
    ("algorithm", "given", "said"),
    [
        ("ppo", {"n_epochs": 0}, "['n_epochs']=0: expected a whole number of at least 1"),
        ("ppo", {"n_epochs": 1.5}, "['n_epochs']=1.5: expected a whole number"),
        ("ppo", {"n_epochs": True}, "['n_epochs']=True: expected a whole number"),
        ("ppo", {"target_kl": "abc"}, "['target_kl']='abc': expected a number or null"),
        ("ppo", {"max_grad_norm": "abc"}, "['max_grad_norm']='abc': expected a number"),
        ("ppo", {"vf_coef": None}, "['vf_coef']=None: expected a number"),
        ("ppo", {"stats_window_size": "a"}, "['stats_window_size']='a': expected a whole number"),
        ("ppo", {"gae_lambda": float("nan")}, "['gae_lambda']=nan: expected a number"),
        ("ppo", {"ent_coef": float("inf")}, "'ent_coef' has inf"),
        ("ppo", {"normalize_advantage": 1}, "['normalize_advantage']=1: expected true or false"),
        ("crossq", {"train_freq": 0}, "['train_freq']=0: expected a whole number of at least 1"),
        ("crossq", {"batch_size": 0}, "['batch_size']=0: expected a whole number of at least 1"),
        ("crossq", {"policy_delay": 0}, "['policy_delay']=0: expected a whole number of at least 1"),
        ("sac", {"gradient_steps": -2}, "['gradient_steps']=-2: expected a whole number of at least 1, or -1"),
        ("sac", {"train_freq": (1, "episode")}, "2 environments do not end episodes together"),
        ("sac", {"train_freq": (1, "epoch")}, "['train_freq']=(1, 'epoch'): expected"),
        ("sac", {"ent_coef": None}, "['ent_coef']=None: expected a number or text"),
        ("sac", {"buffer_size": 10**12}, "'buffer_size' has 1000000000000"),
    ],
)
def test_what_would_fail_in_the_first_update_is_refused(algorithm: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_hyperparameters(algorithm_class(algorithm), given, 2)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("algorithm", "given"),
    [
        ("sac", {"train_freq": (1, "episode"), "gradient_steps": -1}),
        ("sac", {"ent_coef": "auto_0.1", "learning_rate": lambda _: 1e-3}),
        ("ppo", {"target_kl": None, "clip_range_vf": None, "gamma": 1}),
        ("ppo", {"unknown": object()}),
    ],
)
def test_what_fits_is_let_through(algorithm: str, given: dict[str, Any]) -> None:
    check_hyperparameters(algorithm_class(algorithm), given, 1)


def test_schedules_end_at_zero() -> None:
    """The last rollout has more steps than are left, so that what remains of the training is below 0 in it."""
    model = build_model("ppo", environments("ppo"), {"policy": "MlpPolicy", "learning_rate": "lin_0.003"}, seed=0)
    assert [round(model.lr_schedule(left), 6) for left in (1.0, 0.5, 0.0, -0.9)] == [0.003, 0.0015, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", "lin_abc"), ("learning_rate", "lin_"), ("learning_rate", "lin_-0.003"),
        ("clip_range", "lin_nan"), ("clip_range_vf", "lin_inf"), ("clip_range", -0.2),
    ],
)  # fmt: skip
def test_schedules_that_begin_at_no_number_or_below_zero_are_refused(name: str, value: Any) -> None:
    """Stable-Baselines3 clips with a negative or NaN range without a word."""
    with pytest.raises(InvalidInputError, match=rf"hyperparameters\['{name}'\]={value!r}: expected a number of at le"):
        build_model("ppo", environments("ppo"), {"policy": "MlpPolicy", name: value}, seed=0)


def test_layer_without_units_is_refused() -> None:
    """It would learn one answer to everything, without a word."""
    given = {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [8, 0]}}
    with pytest.raises(
        InvalidInputError, match=r"hyperparameters\['policy_kwargs'\]=.*layer of the policy has no unit"
    ):
        build_model("ppo", environments("ppo"), given, seed=0)
