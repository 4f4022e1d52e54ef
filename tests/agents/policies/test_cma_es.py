"""CMA-ES over a policy's weights: it learns, it goes on exactly, and it refuses what it has not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ssdkd_agents.policies.algorithms import build_model
from stable_baselines3.common.evaluation import evaluate_policy

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import STEPS, agent, config_of, environments


def score(model: Any) -> float:
    return float(np.mean(evaluate_policy(model, environments("cma_es"), 2, warn=False)[0]))


def small(**overrides: Any) -> Any:
    return agent(config_of("cma_es", **{"population": 8, "n_envs": 4} | overrides), normalize=False)


def generations(model: Any, count: int) -> Any:
    """Learn for so many generations more."""
    steps = count * model.population * STEPS
    return model.learn(steps, reset_num_timesteps=model._last_obs is None)


@pytest.mark.parametrize("diagonal", [True, False])
def test_search_finds_better_policies(diagonal: bool) -> None:
    model = small(sigma=0.2, diagonal=diagonal)
    before = score(model)
    generations(model, 12)
    assert score(model) > before + 0.5
    assert model._n_updates == 12


def test_agent_is_the_mean_of_the_distribution() -> None:
    model = generations(small(), 3)
    mean = np.asarray(model._strategy.result.xfavorite, dtype=np.float32)
    assert model.weights.tolist() == mean.tolist()
    assert torch.nn.utils.parameters_to_vector(model.policy.parameters()).tolist() == mean.tolist()


def test_first_generation_lies_around_the_first_weights_with_that_deviation() -> None:
    model = small(population=400, sigma=0.3)
    model.weights = torch.full_like(model.weights, 2.0)
    drawn: list[torch.Tensor] = []
    evaluate = model.evaluate_candidates

    def keep(candidates: torch.Tensor, *rest: Any) -> torch.Tensor:
        drawn.append(candidates)
        returns: torch.Tensor = evaluate(candidates, *rest)
        return returns

    model.evaluate_candidates = keep
    generations(model, 1)
    assert drawn[0].mean().item() == pytest.approx(2.0, abs=0.03)
    assert drawn[0].std().item() == pytest.approx(0.3, rel=0.05)


def test_returns_told_again_bring_it_back_to_the_bit() -> None:
    whole, first = generations(small(), 4), generations(small(), 2)
    state = first.strategy_state()
    again = small()
    again.load_strategy_state(state)
    again.weights = first.weights
    generations(again, 2)
    assert torch.equal(again.weights, whole.weights)
    assert again.strategy_state()["told"] == whole.strategy_state()["told"]


def test_strategy_that_has_not_begun_is_none() -> None:
    model = small()
    model.load_strategy_state(model.strategy_state())
    assert model.strategy_state() == {"first": None, "told": []}
    generations(model, 1)


def test_numpys_global_stream_is_left_alone() -> None:
    model = small()
    model.learn(1)
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    generations(model, 1)
    assert np.random.random() == expected


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ({"population": 3}, r"hyperparameters\['population'\]=3: expected a whole number of at least 4"),
        ({"population": 8.0}, r"population'\]=8\.0"),
        ({"sigma": 0.0}, r"sigma'\]=0\.0: expected a number above 0"),
        ({"sigma": float("nan")}, r"sigma'\]=nan"),
        ({"learning_rate": 0.1}, r"learning_rate'\]=0\.1: cma_es has none; it adapts its own"),
        ({"n_delta": 4}, r"n_delta'\]=4: cma_es has none"),
    ],
)
def test_options_that_do_not_fit_are_refused(overrides: dict[str, Any], match: str) -> None:
    config = config_of("cma_es", **overrides)
    with pytest.raises(InvalidInputError, match=match):
        build_model("cma_es", environments("cma_es"), config["hyperparameters"], 0)
