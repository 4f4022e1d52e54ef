"""What an environment's actions mean, and how it says the samplers that have a name."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssdkd_env.distillation import Method, SamplingPlan
from ssdkd_env.envs.actions import WITHOUT_SAMPLING, ActionScheme
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.envs.named_plans import UNIFORM
from ssdkd_env.envs.settings import EnvSettings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Budget
from ssdkd_env.threads import one_at_a_time

#: An action of the scheme, or the plan itself.
Action = FloatArray | np.int64 | SamplingPlan


@one_at_a_time
class ActionMeanings:
    """A part of `SSDKDEnv`; whoever mixes this in has the attributes.

    Attributes:
        settings: its arguments.
        method: the preset that it plays.
        action_scheme: what its actions mean.
        budget: of the task that is played.
        rounds_per_step: rounds that follow one action.
    """

    settings: EnvSettings
    method: Method
    action_scheme: ActionScheme
    budget: Budget
    rounds_per_step: int

    def plan_of(self, action: Action) -> SamplingPlan:
        """The sampling plan that an action means.

        Raises:
            InvalidInputError: when the action is unusable.
        """
        plan = action if isinstance(action, SamplingPlan) else self.action_scheme.to_plan(action)
        if plan.logits is not None and self.rounds_per_step > 1:
            raise InvalidInputError(
                "SamplingPlan.logits are of the images of one round; give a scorer, or make the environment with "
                "rounds_per_step=1"
            )
        if (plan.inversion_steps or plan.student_steps) and not self.budget.work:
            raise InvalidInputError("SamplingPlan: steps of its own need a budget that counts them; give work_scale")
        return plan

    def action_of(self, action: Any) -> Any:
        """The action of the scheme: a plan's nearest one, or the action itself."""
        return self.action_scheme.from_plan(action) if isinstance(action, SamplingPlan) else action

    @property
    def paper_action(self) -> Any:
        """The action that is the paper's sampler; the plan itself where the scheme says nothing of sampling."""
        return self._saying(SamplingPlan())

    @property
    def own_action(self) -> Any:
        """The action that samples as the method's authors do: the paper's for SSD-KD, uniform for the others."""
        return self.action_scheme.from_plan(self.method.own_plan)

    @property
    def uniform_action(self) -> Any:
        """The action that samples without any priority; the plan itself where the scheme says nothing of sampling."""
        return self._saying(UNIFORM)

    def _saying(self, plan: SamplingPlan) -> Any:
        return plan if self.settings.action in WITHOUT_SAMPLING else self.action_scheme.from_plan(plan)
