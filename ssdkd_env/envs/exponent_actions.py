"""Action schemes whose parts are numbers of the sampling plan. Ours, not the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ssdkd_env.distillation.emphasis import Emphasis
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Budget

FloatArray = NDArray[np.float32]
#: Lowest and highest value of each part of an action.
Ranges = Mapping[str, tuple[float, float]]


class RangedScheme:
    """A flat Box(−1, 1); each part is mapped linearly to its range.

    Args:
        ranges: of each part.
    """

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self.names = tuple(ranges)
        self.observed_names = self.names
        self.space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (len(self.names),), np.float32)

    def values(self, action: Any) -> dict[str, float]:
        """The parts of an action, each in its range; what is outside [−1, 1] is clipped.

        Raises:
            InvalidInputError: when the action has another shape or is not finite.
        """
        given = _numbers(action)
        if given.shape != self.space.shape or not np.isfinite(given).all():
            raise InvalidInputError(
                f"action={shown(action)}: expected {len(self.names)} finite numbers in [-1, 1]: {', '.join(self.names)}"
            )
        share = (np.clip(given, -1.0, 1.0) + 1.0) / 2.0
        parts = zip(self._ranges.items(), share, strict=True)
        return {name: float(low + part * (high - low)) for (name, (low, high)), part in parts}

    def action(self, values: Mapping[str, float]) -> FloatArray:
        """The action with these values; those outside their range are clipped, missing ones are 0."""
        parts = [2.0 * (values.get(name, 0.0) - low) / (high - low) - 1.0 for name, (low, high) in self._ranges.items()]
        return np.clip(np.array(parts, dtype=np.float32), -1.0, 1.0)

    def observed(self, action: Any) -> FloatArray:
        """The action's first parts, as many as are observed."""
        return np.clip(_numbers(action).astype(np.float32), -1.0, 1.0)[: len(self.observed_names)].copy()


def _numbers(action: Any) -> NDArray[np.float64]:
    """An action's numbers, from wherever an agent has them; NaN where they are none, such as text and truth values."""
    try:
        given = np.asarray(action.detach().cpu() if isinstance(action, Tensor) else action)
    except (TypeError, ValueError):
        return np.array(np.nan)
    return given.astype(np.float64) if given.dtype.kind in "iuf" else np.array(np.nan)


def sampling_ranges(budget: Budget) -> dict[str, tuple[float, float]]:
    """Ranges that every scheme shares: exponent of δ, β, and ρ, whose whole range has an effect."""
    most_replaced = min(1.0, budget.candidates / budget.buffer_capacity)
    return {
        "discrepancy_exponent": (-2.0, 2.0),
        "importance_exponent": (0.0, 1.0),
        "replaced_share": (0.0, most_replaced),
    }


class Exponents(RangedScheme):
    """A flat Box(−1, 1) of five numbers, each mapped linearly to its range.

    | Num | Part                   | −1  | +1                                                       |
    |-----|------------------------|-----|----------------------------------------------------------|
    | 0   | discrepancy_exponent   | −2  | 2                                                        |
    | 1   | diversity_exponent     | −2  | 2                                                        |
    | 2   | difficulty_exponent    | −2  | 2                                                        |
    | 3   | importance_exponent, β | 0   | 1                                                        |
    | 4   | replaced_share, ρ      | 0   | candidates / buffer_capacity, at most 1 (all candidates) |

    Args:
        budget: sets the range of ρ, so that the whole range has an effect.
        more: ranges of further parts.
    """

    def __init__(self, budget: Budget, more: Ranges | None = None) -> None:
        shared = sampling_ranges(budget)
        first = {"discrepancy_exponent": shared.pop("discrepancy_exponent")}
        factors = {"diversity_exponent": (-2.0, 2.0), "difficulty_exponent": (-2.0, 2.0)}
        super().__init__({**first, **factors, **shared, **(more or {})})

    def to_plan(self, action: Any) -> SamplingPlan:
        """The plan that an action means; parts outside [−1, 1] are clipped.

        Raises:
            InvalidInputError: when the action has another shape or is not finite.
        """
        return SamplingPlan(**self.values(action))  # type: ignore[arg-type]

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that means `plan`; values outside the ranges are clipped."""
        return self.action({name: getattr(plan, name) for name in self.names})


class Full(Exponents):
    """The five parts of `Exponents`, and three that act on what is synthesised.

    | Num | Part                                                          | −1 | +1 |
    |-----|---------------------------------------------------------------|----|----|
    | 5   | phi_diversity_exponent: of φ's diversity term in inversion    | 0  | 2  |
    | 6   | phi_difficulty_exponent: of φ's difficulty term (γ)           | 0  | 2  |
    | 7   | adversarial_scale: factor of the method's adversarial weight  | 0  | 4  |

    Args:
        budget: see `Exponents`.
        method: whose own φ a plan means that says nothing of it.
    """

    def __init__(self, budget: Budget, method: Method) -> None:
        phi = {"phi_diversity_exponent": (0.0, 2.0), "phi_difficulty_exponent": (0.0, 2.0)}
        super().__init__(budget, {**phi, "adversarial_scale": (0.0, 4.0)})
        self._method = method

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that means `plan`; values outside the ranges are clipped."""
        emphasis = Emphasis.of(self._method, plan)
        own = {
            "phi_diversity_exponent": emphasis.diversity_exponent,
            "phi_difficulty_exponent": emphasis.difficulty_exponent,
        }
        return self.action({name: own.get(name, getattr(plan, name)) for name in self.names})


def shown(action: Any) -> str:
    """An action in an error message, in one short line."""
    return " ".join(repr(action).split())[:100]
