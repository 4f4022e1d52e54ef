"""Action schemes: what an agent may say, and the `SamplingPlan` it means. All schemes are ours, not the paper's."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Budget

FloatArray = NDArray[np.float32]


class ActionScheme(Protocol):
    """Translates between actions and sampling plans.

    Attributes:
        space: the environment's action space.
        names: name of each part of the action.
    """

    space: spaces.Box
    names: tuple[str, ...]

    def to_plan(self, action: FloatArray) -> SamplingPlan:
        """The plan that an action means."""
        ...

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that means a plan; values outside the scheme's range are clipped."""
        ...


class Exponents:
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
    """

    def __init__(self, budget: Budget) -> None:
        most_replaced = min(1.0, budget.candidates / budget.buffer_capacity)
        self._ranges = {
            "discrepancy_exponent": (-2.0, 2.0),
            "diversity_exponent": (-2.0, 2.0),
            "difficulty_exponent": (-2.0, 2.0),
            "importance_exponent": (0.0, 1.0),
            "replaced_share": (0.0, most_replaced),
        }
        self.names = tuple(self._ranges)
        self.space = spaces.Box(-1.0, 1.0, (len(self.names),), np.float32)

    def to_plan(self, action: FloatArray) -> SamplingPlan:
        """The plan that an action means; parts outside [−1, 1] are clipped.

        Raises:
            InvalidInputError: when the action has another shape or is not finite.
        """
        try:
            values = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.array(np.nan)
        if values.shape != self.space.shape or not np.isfinite(values).all():
            raise InvalidInputError(
                f"action={' '.join(repr(action).split())[:100]}: expected {len(self.names)} finite numbers in [-1, 1]: "
                f"{', '.join(self.names)}"
            )
        share = (np.clip(values, -1.0, 1.0) + 1.0) / 2.0
        parts = {
            name: float(low + part * (high - low))
            for (name, (low, high)), part in zip(self._ranges.items(), share, strict=True)
        }
        return SamplingPlan(**parts)  # type: ignore[arg-type]

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that means `plan`; values outside the ranges are clipped."""
        parts = [2.0 * (getattr(plan, name) - low) / (high - low) - 1.0 for name, (low, high) in self._ranges.items()]
        return np.clip(np.array(parts, dtype=np.float32), -1.0, 1.0)


ACTION_SCHEMES = {"exponents": Exponents}
