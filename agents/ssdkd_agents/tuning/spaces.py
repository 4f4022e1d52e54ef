"""Where each algorithm's hyper-parameters are looked for. Ours, around those of the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssdkd_agents.policies.algorithms import ALGORITHMS
from ssdkd_env.errors import InvalidInputError, check_choice


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, uniform in their logarithm where `log`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of these."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choice]

_RATE = Range(1e-4, 1e-2, log=True)
#: Short episodes: from one that sees a step ahead to one that sees the end.
_HORIZON = Choice((0.8, 0.9, 0.95, 0.98, 0.99, 1.0))
_ON_POLICY: Space = {
    "learning_rate": _RATE,
    "gamma": _HORIZON,
    "gae_lambda": Choice((0.8, 0.9, 0.95, 1.0)),
    "policy_kwargs.log_std_init": Range(-3.0, 0.0),
}
_PPO: Space = {
    **_ON_POLICY,
    "n_epochs": Choice((5, 10, 20)),
    "clip_range": Choice((0.1, 0.2, 0.3, 0.4)),
    "ent_coef": Choice((0.0, 1e-4, 1e-3, 1e-2)),
}
_OFF_POLICY: Space = {
    "learning_rate": _RATE,
    "gamma": _HORIZON,
    "batch_size": Choice((64, 128, 256)),
    "gradient_steps": Choice((8, 16, 32)),
}
_AVERAGED: Space = {**_OFF_POLICY, "tau": Range(5e-3, 0.1, log=True)}
_ENTROPY: Space = {"ent_coef": Choice(("auto_0.1", "auto_0.01", "auto_0.001"))}

#: Algorithm → hyper-parameter → where; names of `policy_kwargs` stand behind a dot.
SPACES: dict[str, Space] = {
    "a2c": _ON_POLICY,
    "ars": {"learning_rate": Range(3e-3, 0.3, log=True), "delta_std": Range(0.01, 0.3, log=True)},
    "cma_es": {"sigma": Range(0.01, 0.3, log=True), "diagonal": Choice((True, False))},
    "crossq": {**_OFF_POLICY, **_ENTROPY, "policy_delay": Choice((1, 3))},
    "dqn": {
        **_OFF_POLICY,
        "exploration_fraction": Range(0.1, 0.6),
        "target_update_interval": Choice((64, 256, 1024)),
    },
    "grpo": {name: where for name, where in _PPO.items() if name not in ("gamma", "gae_lambda")},
    "ppo": _PPO,
    "recurrent_ppo": _PPO,
    "sac": {**_AVERAGED, **_ENTROPY},
    "td3": {**_AVERAGED, "noise_std": Range(0.05, 0.6)},
    "tqc": {**_AVERAGED, **_ENTROPY, "top_quantiles_to_drop_per_net": Choice((0, 2, 5))},
    "trpo": {**_ON_POLICY, "target_kl": Range(3e-3, 0.1, log=True), "n_critic_updates": Choice((5, 10, 20))},
}
assert set(SPACES) == set(ALGORITHMS)


def space_of(algorithm: str, fixed: Mapping[str, Any]) -> Space:
    """What is looked for: the algorithm's space without what the user fixes.

    Raises:
        InvalidInputError: when the algorithm is unknown, or nothing is left.
    """
    check_choice("algo", algorithm, ALGORITHMS)
    given = _flat(fixed)
    left = {name: where for name, where in SPACES[algorithm].items() if name not in given}
    if not left:
        raise InvalidInputError(f"hyperparameters: {sorted(given)} are fixed, nothing of {algorithm} is left to tune")
    return left


def nested(params: Mapping[str, Any], file: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as a training takes them: what is fixed and what was chosen, inside what the file nests."""
    result = dict(fixed)
    for name, value in params.items():
        outer, _, inner = name.partition(".")
        result[outer] = {**file.get(outer, {}), **result.get(outer, {}), inner: value} if inner else value
    return result


def chosen(space: Space, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """What `nested` was given: the values of a space's names."""
    flat = _flat(hyperparameters)
    return {name: flat[name] for name in space}


def _flat(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        inside = value if isinstance(value, Mapping) else None
        flat |= {name: value} if inside is None else {f"{name}.{inner}": part for inner, part in inside.items()}
    return flat
