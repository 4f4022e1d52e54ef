"""Action schemes: what an agent may say, and the `SamplingPlan` it means. All schemes are ours, not the paper's.

| scheme       | space                       | what it says                                                            |
|--------------|-----------------------------|-------------------------------------------------------------------------|
| `exponents`  | Box(5)                      | exponents of the three factors of P, β, ρ                               |
| `full`       | Box(8)                      | the same, φ's exponents in inversion, and the adversarial weight        |
| `plans` | Discrete                    | one of the named plans of `NAMED_PLANS`                                  |
| `bins`       | Box(15)                     | a logit for each bin of class rarity × difficulty, on top of δ          |
| `class_bins` | Box(3 + 4 · classes)        | a logit for each class and bin of difficulty, on top of δ               |
| `samples`    | Box(36)                     | the weights of a small network that scores every image                  |
| `work`       | Box(7)                      | as `exponents`, and how many inversion steps and student minibatches    |
| `division`   | Box(2)                      | those two numbers alone                                                 |

All but `class_bins` are independent of the number of classes, and all of the number of images. Each but `division`,
which leaves the sampling to the method, can say the paper's sampler and uniform sampling exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gymnasium import spaces

from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.envs.exponent_actions import Exponents, FloatArray, Full
from ssdkd_env.envs.named_plans import NamedPlans
from ssdkd_env.envs.scorer_actions import Bins, ClassBins, Samples
from ssdkd_env.envs.work_actions import Division, Work
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.registry import Registry
from ssdkd_env.tasks import Budget


class ActionScheme(Protocol):
    """Translates between actions and sampling plans.

    Attributes:
        space: the environment's action space.
        names: name of each part of the action, or of each choice of a discrete one.
        observed_names: name of each number of the last action that the observation repeats.
    """

    space: spaces.Space[Any]
    names: tuple[str, ...]
    observed_names: tuple[str, ...]

    def to_plan(self, action: Any) -> SamplingPlan:
        """The plan that an action means.

        Raises:
            InvalidInputError: when the action has another shape or is not finite.
        """
        ...

    def from_plan(self, plan: SamplingPlan) -> Any:
        """The action that means a plan; values outside the scheme's range are clipped, others left out."""
        ...

    def observed(self, action: Any) -> FloatArray:
        """What the observation repeats of an action, (len(observed_names),) float32 in [−1, 1]."""
        ...


#: Schemes that divide a budget of work, which there must be.
OF_WORK = ("work", "division")
#: Schemes that leave the sampling to the method, so that none of their actions is the paper's sampler or another's.
WITHOUT_SAMPLING = ("division",)


def check_work(action: str, budget: Budget) -> None:
    """Refuse a scheme that divides work where there is none to be divided.

    Raises:
        InvalidInputError: when it is so.
    """
    if action in OF_WORK and not budget.work:
        raise InvalidInputError(
            f"action={action!r} divides a budget of work, and this one counts rounds; give work_scale, 1.0 for what "
            "SSD-KD takes with the task's own budget"
        )


#: Makes a scheme from budget, method and number of classes.
ACTION_SCHEMES: Registry[Callable[[Budget, Method, int], ActionScheme]] = Registry(
    "action",
    None,
    {
        "exponents": lambda budget, method, classes: Exponents(budget),
        "full": lambda budget, method, classes: Full(budget, method),
        "plans": lambda budget, method, classes: NamedPlans(),
        "bins": lambda budget, method, classes: Bins(budget),
        "class_bins": lambda budget, method, classes: ClassBins(budget, classes),
        "samples": lambda budget, method, classes: Samples(budget),
        "work": lambda budget, method, classes: Work(budget, method),
        "division": lambda budget, method, classes: Division(budget, method),
    },
)
