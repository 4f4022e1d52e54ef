"""How large the parts of a run are, from the method and the task's budget."""

from __future__ import annotations

from dataclasses import dataclass

from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.problem import Budget, Problem

#: Images of a memory that is not small from which its statistics are told after a round: its methods sample uniformly,
#: so that the student's divergence decides nothing.
SAMPLE = 1000


@dataclass(frozen=True)
class Sizes:
    """Sizes that a run needs.

    Attributes:
        capacity: images that the memory can hold.
        candidates: images synthesised a batch; 0 with real images.
        inversion_batch: images that inversion optimises at once.
        turns: student minibatches after each batch of synthesis; their sum is the budget's.
        refreshed: most images that are measured anew after a round.
    """

    capacity: int
    candidates: int
    inversion_batch: int
    turns: tuple[int, ...]
    refreshed: int

    @classmethod
    def of(cls, method: Method, budget: Budget, task: Problem) -> Sizes:
        """Sizes of a run of `method` on `task`.

        Raises:
            InvalidInputError: when the method needs real training images and the task has none.
        """
        group = min(method.student_steps_per_batch, budget.student_steps) or budget.student_steps
        groups, rest = divmod(budget.student_steps, group)
        turns = (group,) * groups + ((rest,) if rest else ())
        candidates = inversion_batch = budget.candidates
        if method.memory == "stream":
            capacity = candidates = group * budget.batch_size
            inversion_batch = budget.batch_size
        elif method.memory == "real":
            available = len(task.training_images())
            wanted = round(method.real_share * (task.spec.training_set_size or available))
            capacity = min(max(wanted, 1), available)
            candidates = 0
        elif method.memory == "pool":
            batches = (budget.warmup_rounds if method.warm_up else 1) + budget.rounds * len(turns)
            capacity = min(batches * candidates, method.pool_capacity)
        else:
            capacity = budget.buffer_capacity
        small = method.memory in ("buffer", "stream")
        refreshed = capacity if small else min(budget.buffer_capacity, SAMPLE)
        return cls(capacity, candidates, inversion_batch, turns, refreshed)
