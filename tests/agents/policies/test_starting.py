"""Agents that begin with a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ssdkd_agents.policies.algorithms import ALGORITHMS, DISCRETE
from ssdkd_agents.policies.starting import NEAREST_TO_THE_EDGE, begin_at

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import agent, config_of

CONTINUOUS = sorted(set(ALGORITHMS) - set(DISCRETE))
#: Actions behind a tanh.
SQUASHED = ("crossq", "sac", "td3", "tqc")


def actions_of(model: Any) -> np.ndarray[Any, Any]:
    observations = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
    actions: np.ndarray[Any, Any] = model.predict(observations, deterministic=True)[0]
    return actions


@pytest.mark.parametrize("algorithm", CONTINUOUS)
def test_agent_begins_with_the_action_whatever_it_sees(algorithm: str) -> None:
    model = agent(config_of(algorithm))
    begin_at(model, [0.7, -0.3])
    np.testing.assert_allclose(actions_of(model), [[0.7, -0.3]] * 20, atol=1e-6)


@pytest.mark.parametrize("algorithm", CONTINUOUS)
def test_edges_of_the_box_are_reached_or_nearly(algorithm: str) -> None:
    model = agent(config_of(algorithm))
    begin_at(model, [1.0, -1.0])
    nearest = NEAREST_TO_THE_EDGE if algorithm in SQUASHED else 1.0
    np.testing.assert_allclose(actions_of(model), [[nearest, -nearest]] * 20, atol=1e-5)


@pytest.mark.parametrize("algorithm", CONTINUOUS)
def test_agent_learns_from_there(algorithm: str) -> None:
    """A layer without weights must not stay without."""
    model = agent(config_of(algorithm))
    begin_at(model, [0.2, 0.1])
    model.learn(64)
    found = actions_of(model)
    assert np.isfinite(found).all()
    assert not np.allclose(found, [[0.2, 0.1]] * 20)
    assert len(np.unique(found.round(5), axis=0)) > 1, "it depends on what is seen"


def test_target_of_td3_begins_there_too() -> None:
    model = agent(config_of("td3"))
    begin_at(model, [0.7, -0.3])
    own, target = model.actor.state_dict(), model.actor_target.state_dict()
    assert all(torch.equal(own[name], target[name]) for name in own)


@pytest.mark.parametrize(
    ("action", "match"),
    [
        ([0.1], "expected 2 numbers in"),
        ([0.1, 0.2, 0.3], "expected 2 numbers in"),
        ([0.1, 1.5], "expected 2 numbers in"),
        ([0.1, float("nan")], "expected 2 numbers in"),
    ],
)
def test_action_that_does_not_fit_is_refused(action: list[float], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        begin_at(agent(config_of("ppo")), action)


def test_choices_and_policies_without_bias_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"start=\[0\.1\]: the actions are Discrete"):
        begin_at(agent(config_of("dqn")), [0.1])
    with pytest.raises(InvalidInputError, match="start: the policy has no bias"):
        begin_at(agent(config_of("ars", policy_kwargs={"with_bias": False})), [0.1, 0.2])
