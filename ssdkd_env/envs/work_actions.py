"""Action schemes that also say how a step divides its work between synthesis and distillation. Ours, not the paper's.

They belong to a budget of work (`work_scale`), which a step that does more uses up sooner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.sizes import own_amounts
from ssdkd_env.envs.exponent_actions import Exponents, FloatArray, RangedScheme
from ssdkd_env.tasks import Budget

#: A step spends at most so many times the method's own steps, and at least their so-many-th part.
MOST_TIMES = 8.0
#: Both parts on a logarithmic scale, so that 0 is what the method's authors do.
WORK_RANGES = dict.fromkeys(("inversion_steps", "student_steps"), (-math.log(MOST_TIMES), math.log(MOST_TIMES)))


class OwnSteps:
    """Translates numbers of steps into factors of what the method's authors do, and back.

    Args:
        budget: its student minibatches, and its inversion steps where the method has none of its own.
        method: its inversion steps.
    """

    def __init__(self, budget: Budget, method: Method) -> None:
        self._own = own_amounts(method, budget)._asdict()

    def steps(self, values: Mapping[str, float]) -> dict[str, int]:
        """Whole numbers of steps, at least 1, from logarithms of factors."""
        return {name: max(round(own * math.exp(values[name])), 1) for name, own in self._own.items()}

    def logarithms(self, plan: SamplingPlan) -> dict[str, float]:
        """Logarithms of a plan's factors; 0 where it leaves the steps to the method."""
        return {name: math.log((getattr(plan, name) or own) / own) for name, own in self._own.items()}


class Division(RangedScheme):
    """A flat Box(−1, 1) of two numbers; the sampling is the method's own.

    | Num | Part                                                  | −1    | 0       | +1        |
    |-----|-------------------------------------------------------|-------|---------|-----------|
    | 0   | inversion_steps of the step's candidates              | own/8 | own     | 8 · own   |
    | 1   | student_steps: student minibatches                    | own/8 | own     | 8 · own   |

    Args:
        budget: see `OwnSteps`.
        method: see `OwnSteps`; its own sampling is every step's.
    """

    def __init__(self, budget: Budget, method: Method) -> None:
        super().__init__(WORK_RANGES)
        self._steps, self._plan = OwnSteps(budget, method), method.own_plan

    def to_plan(self, action: object) -> SamplingPlan:
        """The plan that an action means; parts outside [−1, 1] are clipped.

        Raises:
            InvalidInputError: when the action has another shape or is not finite.
        """
        return replace(self._plan, **self._steps.steps(self.values(action)))  # type: ignore[arg-type]

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that divides the work as `plan` does; the plan's sampling is left out."""
        return self.action(self._steps.logarithms(plan))


class Work(Exponents):
    """The five parts of `Exponents`, and the two of `Division`.

    Args:
        budget: see `Exponents` and `OwnSteps`.
        method: see `OwnSteps`.
    """

    def __init__(self, budget: Budget, method: Method) -> None:
        super().__init__(budget, WORK_RANGES)
        self._steps = OwnSteps(budget, method)

    def to_plan(self, action: object) -> SamplingPlan:
        """The plan that an action means; parts outside [−1, 1] are clipped.

        Raises:
            InvalidInputError: when the action has another shape or is not finite.
        """
        values = self.values(action)
        sampling = {name: value for name, value in values.items() if name not in WORK_RANGES}
        return SamplingPlan(**sampling, **self._steps.steps(values))  # type: ignore[arg-type]

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that means `plan`; values outside the ranges are clipped."""
        sampling = {name: getattr(plan, name) for name in self.names if name not in WORK_RANGES}
        return self.action(sampling | self._steps.logarithms(plan))
