"""CMA-ES over the weights of a policy, in the manner of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sb3_contrib.common.vec_env.async_eval import AsyncEval
from stable_baselines3.common.callbacks import BaseCallback

from ssdkd_agents.evolution import make_strategy
from ssdkd_agents.policies.ars import VectorARS
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.extras import load_extra

#: What ARS searches with, which would change nothing here.
OF_ARS = {"n_delta", "n_top", "delta_std", "learning_rate"}


class CMAES(VectorARS):
    """CMA-ES (Hansen 2016, package `cma`) with the policies of ARS, and its way of playing a generation side by side.

    The agent is the mean of the search distribution, which averages over many noisy returns, not the best sampled
    policy.

    Args:
        policy: `"LinearPolicy"` or `"MlpPolicy"` of sb3-contrib's ARS.
        env: environments side by side; with as many as candidates a generation takes the time of its longest episode.
        population: candidates of a generation.
        sigma: standard deviation of the first generation, in every weight.
        diagonal: adapt variances only, not covariances (sep-CMA-ES, Ros & Hansen 2008), which takes far fewer
            generations where weights are many.
        **options: those of `sb3_contrib.ARS`, but for its deltas and its learning rate.

    Raises:
        InvalidInputError: when the package `cma` is not installed, or an option does not fit.
    """

    def __init__(
        self, policy: Any, env: Any, population: int = 16, sigma: float = 0.05, diagonal: bool = True, **options: Any
    ) -> None:
        load_extra("cma", "algo='cma_es'")  # at once, not in the first generation
        for name in sorted(OF_ARS & options.keys()):
            raise InvalidInputError(
                f"hyperparameters[{name!r}]={options[name]!r}: cma_es has none; it adapts its own, from sigma on"
            )
        if not isinstance(population, int) or population < 4:
            raise InvalidInputError(
                f"hyperparameters['population']={population!r}: expected a whole number of at least 4"
            )
        if not sigma > 0:
            raise InvalidInputError(f"hyperparameters['sigma']={sigma!r}: expected a number above 0")
        self.population, self.sigma, self.diagonal = population, sigma, diagonal
        self.weights: Any  # a tensor, which ARS says to be None
        self._first: torch.Tensor | None = None
        self._told: list[list[float]] = []
        self._strategy: Any = None
        super().__init__(policy, env, **options)
        self.pop_size = population  # which ARS makes of its pairs

    def strategy_state(self) -> dict[str, Any]:
        """The first mean and the returns of all generations: told again, they bring the strategy where it was."""
        return {"first": self._first, "told": self._told}

    def load_strategy_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `strategy_state()`."""
        self._first, self._told = state["first"], []
        self._strategy = None if self._first is None else self._make_strategy(self._first)
        for returns in state["told"]:
            self._tell(self._strategy.ask(), returns)

    def _make_strategy(self, first: torch.Tensor) -> Any:
        random = np.random.default_rng(self.seed)
        options = {"CMA_diagonal": self.diagonal}
        return make_strategy("algo='cma_es'", first.double().numpy(), self.sigma, self.population, random, **options)

    def _tell(self, samples: list[Any], returns: list[float]) -> None:
        self._strategy.tell(samples, [-value for value in returns])
        self._told.append(returns)

    def _do_one_update(self, callback: BaseCallback, async_eval: AsyncEval | None) -> None:
        if self._strategy is None:
            self._first = self.weights.clone().cpu()
            self._strategy = self._make_strategy(self._first)
        callback.on_rollout_start()
        samples = self._strategy.ask()
        candidates = torch.from_numpy(np.stack(samples)).float()
        with torch.no_grad():
            returns = self.evaluate_candidates(candidates, callback, async_eval)
        self._tell(samples, returns.tolist())
        self.weights = torch.from_numpy(np.asarray(self._strategy.result.xfavorite)).float()
        self.policy.load_from_vector(self.weights.numpy())
        self._n_updates += 1
        self.logger.record("train/iterations", self._n_updates, exclude="tensorboard")
        self.logger.record("train/sigma", float(self._strategy.sigma))
        self.logger.record("rollout/return_std", returns.std().item())
