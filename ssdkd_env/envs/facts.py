"""What the task of an episode is like: facts that no step changes, for agents that meet unlike instances. Ours."""

from __future__ import annotations

import math
from functools import cached_property

from ssdkd_env.distillation import Method
from ssdkd_env.distillation.costs import Costs
from ssdkd_env.distillation.sizes import Sizes
from ssdkd_env.tasks import Task


class Facts:
    """Sizes of a task in units of what its own round is made of, so that they compare between tasks. Data-free.

    Args:
        task: that is played.
        method: that plays it.

    """

    def __init__(self, task: Task, method: Method) -> None:
        self._task, self._method = task, method

    @cached_property
    def rounds(self) -> float:
        """That the budget names or pays, of those that spend what is the method's own."""
        budget = self._task.spec.budget
        return 2**self.own_rounds if budget.work else budget.rounds

    @property
    def buffer_batches(self) -> float:
        """log₂ of the memory's capacity in batches of candidates; of minibatches where nothing is synthesised."""
        sizes = self._sizes
        return math.log2(sizes.capacity / (sizes.candidates or self._task.spec.budget.batch_size))

    @property
    def own_rounds(self) -> float:
        """log₂ of the rounds that the budget pays, of those that spend what is the method's own."""
        budget = self._task.spec.budget
        if not budget.work:
            return math.log2(budget.rounds)
        return math.log2((budget.work - self._costs.warm_up) / self._costs.round(self._sizes.own))

    @property
    def warm_up(self) -> float:
        """log₂ of the rounds of the method's own that the warm-up's work would have paid."""
        return math.log2(self._costs.warm_up / self._costs.round(self._sizes.own))

    @property
    def student_share(self) -> float:
        """Share of such a round's work that goes into the student's minibatches."""
        own = self._sizes.own
        return own.student_steps * self._costs.student_step / self._costs.round(own)

    @cached_property
    def _sizes(self) -> Sizes:
        return Sizes.of(self._method, self._task.spec.budget, self._task)

    @cached_property
    def _costs(self) -> Costs:
        return Costs.of(self._method, self._task.spec.budget, self._sizes, self._task)
