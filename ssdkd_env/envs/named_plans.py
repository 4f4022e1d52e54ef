"""Sampling plans with a name: the paper's sampler and the field's baselines. The choices of scheme `plans`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from gymnasium import spaces

from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.envs.exponent_actions import FloatArray, shown
from ssdkd_env.errors import InvalidInputError

UNIFORM = SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0)

NAMED_PLANS: dict[str, SamplingPlan] = {
    # SSD-KD, reconstructed: P ∝ |δ| + ε with importance weights.
    "paper": SamplingPlan(),
    "paper_unweighted": SamplingPlan(importance_exponent=0.0),
    "uniform": UNIFORM,
    "hard_first": SamplingPlan(discrepancy_exponent=2.0),
    "easy_first": SamplingPlan(discrepancy_exponent=-2.0, importance_exponent=0.0),
    "class_balanced": SamplingPlan(discrepancy_exponent=0.0, diversity_exponent=2.0, importance_exponent=0.0),
    "unsure_first": SamplingPlan(discrepancy_exponent=0.0, difficulty_exponent=1.0, importance_exponent=0.0),
    # First in, first out: every candidate enters, the oldest leave, and draws are uniform.
    "fifo": SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0, replacement="oldest"),
    # The paper's P as weights of the loss in place of draws (Schaul et al. 2016, sec. 3.4, read backwards).
    "reweighted": SamplingPlan(reweighted=True),
    "keep": SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0, replaced_share=0.0),
}

_NUMBERS = (
    "discrepancy_exponent",
    "diversity_exponent",
    "difficulty_exponent",
    "importance_exponent",
    "replaced_share",
)


def nearest_plan(plan: SamplingPlan) -> str:
    """Name of the named plan that is `plan`, or else of the one with the nearest numbers."""
    for name, named in NAMED_PLANS.items():
        if all(getattr(plan, field.name) == getattr(named, field.name) for field in fields(SamplingPlan)):
            return name

    def distance(name: str) -> tuple[bool, float]:
        named = NAMED_PLANS[name]
        alike = (plan.replacement, plan.reweighted) == (named.replacement, named.reweighted)
        return not alike, sum((getattr(plan, part) - getattr(named, part)) ** 2 for part in _NUMBERS)

    return min(NAMED_PLANS, key=distance)


class NamedPlans:
    """Discrete: one of the named plans of `NAMED_PLANS` each round. The observation repeats it as one-hot."""

    def __init__(self) -> None:
        self.names = tuple(NAMED_PLANS)
        self.observed_names = self.names
        self.space: spaces.Space[Any] = spaces.Discrete(len(self.names))

    def to_plan(self, action: Any) -> SamplingPlan:
        """The plan with a number.

        Raises:
            InvalidInputError: when there is none.
        """
        return NAMED_PLANS[self.names[self._index(action)]]

    def from_plan(self, plan: SamplingPlan) -> np.int64:
        """The number of the named plan that is `plan`, or else comes nearest to it."""
        return np.int64(self.names.index(nearest_plan(plan)))

    def observed(self, action: Any) -> FloatArray:
        """One-hot."""
        chosen = np.zeros(len(self.names), dtype=np.float32)
        chosen[self._index(action)] = 1.0
        return chosen

    def _index(self, action: Any) -> int:
        try:
            number = np.asarray(action)
            index = int(number.item()) if number.size == 1 and number.dtype.kind in "iu" else -1
        except (TypeError, ValueError):
            index = -1
        if not 0 <= index < len(self.names):
            choices = ", ".join(f"{number} {name}" for number, name in enumerate(self.names))
            raise InvalidInputError(f"action={shown(action)}: expected one whole number: {choices}")
        return index
