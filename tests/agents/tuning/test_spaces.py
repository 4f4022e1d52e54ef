"""Where hyper-parameters are looked for: every algorithm takes what is found there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ssdkd_agents.policies.algorithms import ALGORITHMS, build_model, load_hyperparameters
from ssdkd_agents.tuning.spaces import SPACES, Choice, Range, Space, chosen, nested, space_of

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import DIGITS, environments


def corner(where: Range | Choice, high: bool) -> Any:
    return where.values[-int(high)] if isinstance(where, Choice) else where.high if high else where.low


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("high", [False, True])
def test_algorithm_takes_both_ends_of_its_space(algorithm: str, high: bool) -> None:
    params = {name: corner(where, high) for name, where in SPACES[algorithm].items()}
    file = load_hyperparameters(algorithm, DIGITS)
    build_model(algorithm, environments(algorithm, file["n_envs"]), file | nested(params, file, {}), seed=0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_file_lies_in_its_space(algorithm: str) -> None:
    """The search begins around what is known, so that it can only gain."""
    found = chosen(SPACES[algorithm], load_hyperparameters(algorithm, DIGITS))
    for name, where in SPACES[algorithm].items():
        if isinstance(where, Choice):
            assert found[name] in where.values, name
        else:
            assert where.low < found[name] < where.high, name


def test_nested_ones_leave_their_neighbours() -> None:
    file = {"policy_kwargs": {"log_std_init": -1.5, "net_arch": [32]}, "gamma": 0.9}
    made = nested({"policy_kwargs.log_std_init": -2.0, "gamma": 0.8}, file, {"policy_kwargs": {"ortho_init": False}})
    inner = {"log_std_init": -2.0, "net_arch": [32], "ortho_init": False}
    assert made == {"policy_kwargs": inner, "gamma": 0.8}
    assert file["policy_kwargs"] == {"log_std_init": -1.5, "net_arch": [32]}
    space: Space = {"policy_kwargs.log_std_init": Range(-3, 0), "gamma": Choice((0.8, 0.9))}
    assert chosen(space, made) == {"policy_kwargs.log_std_init": -2.0, "gamma": 0.8}


def test_what_is_fixed_is_not_looked_for() -> None:
    left = space_of("ppo", {"gamma": 0.9, "policy_kwargs": {"log_std_init": -1.0}})
    assert set(SPACES["ppo"]) - set(left) == {"gamma", "policy_kwargs.log_std_init"}
    with pytest.raises(InvalidInputError, match=r"\['delta_std', 'learning_rate'\] are fixed, nothing of ars is left"):
        space_of("ars", {"learning_rate": 0.1, "delta_std": 0.1})
    with pytest.raises(InvalidInputError, match="algo='pqo' is unknown"):
        space_of("pqo", {})


def test_ranges_are_ranges() -> None:
    for space in SPACES.values():
        for where in space.values():
            if isinstance(where, Range):
                assert where.low < where.high and (where.low > 0 or not where.log)
            else:
                assert len(where.values) == len(np.unique([str(value) for value in where.values])) > 1
