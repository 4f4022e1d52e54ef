"""How large the parts of a run are, from the method and the task's budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssdkd_env.distillation.allowance import Amounts
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.problem import Budget, Problem
from ssdkd_env.errors import InvalidInputError

#: Images of a memory that is not small from which its statistics are told after a round: its methods sample uniformly,
#: so that the student's divergence decides nothing.
SAMPLE = 1000
#: Numbers that networks keep at least for each number of an image that they learn from.
ACTIVATIONS = 50


@dataclass(frozen=True)
class Sizes:
    """Sizes that a run needs.

    Attributes:
        capacity: images that the memory can hold.
        candidates: images synthesised a batch; 0 with real images.
        inversion_batch: images that inversion optimises at once.
        own: what a round spends unless the plan says otherwise.
        student_steps_per_batch: student minibatches for one batch of synthesis; 0 is all of a round's.
        refreshed: most images that are measured anew after a round.
    """

    capacity: int
    candidates: int
    inversion_batch: int
    own: Amounts
    student_steps_per_batch: int
    refreshed: int

    @classmethod
    def of(cls, method: Method, budget: Budget, task: Problem) -> Sizes:
        """Sizes of a run of `method` on `task`.

        Raises:
            InvalidInputError: when the method needs real training images and the task has none.
        """
        per_batch = min(method.student_steps_per_batch, budget.student_steps)  # as many as the candidates are for
        candidates = inversion_batch = budget.candidates
        if method.memory == "stream":
            capacity = candidates = (per_batch or budget.student_steps) * budget.batch_size
            inversion_batch = budget.batch_size
        elif method.memory == "real":
            available = len(task.training_images())
            wanted = round(method.real_share * (task.spec.training_set_size or available))
            capacity = min(max(wanted, 1), available)
            candidates = 0
        elif method.memory == "pool":
            turns = _turns(budget.student_steps, per_batch)
            batches = (budget.warmup_rounds if method.warm_up else 1) + budget.rounds * len(turns)
            # Work may be divided into any number of batches.
            capacity = method.pool_capacity if budget.work else min(batches * candidates, method.pool_capacity)
        else:
            capacity = budget.buffer_capacity
        small = method.memory in ("buffer", "stream")
        refreshed = capacity if small else min(budget.buffer_capacity, SAMPLE)
        return cls(capacity, candidates, inversion_batch, own_amounts(method, budget), per_batch, refreshed)

    def turns(self, student_steps: int) -> tuple[int, ...]:
        """Student minibatches after each batch of synthesis; their sum is `student_steps`."""
        return _turns(student_steps, self.student_steps_per_batch)


def check_memory(sizes: Sizes, method: Method, budget: Budget, task: Problem, available: int | None) -> None:
    """Refuse batches and buffers that no memory holds, before a machine that tries is brought to a halt.

    A lower estimate, which refuses nothing that could run: a pixel of the buffer is a byte, and one of a minibatch
    has `ACTIVATIONS` numbers of four bytes in the networks (the first stage of ResNet-20 alone: seven maps of
    16 channels for three, and as many in BatchNorm, are 75).

    Args:
        sizes: of a run.
        method: that it plays.
        budget: its budget.
        task: what it plays.
        available: bytes of the device's memory; None where nobody knows.

    Raises:
        InvalidInputError: when something needs more.
    """
    numbers = math.prod(task.spec.image_shape)
    capacity = {
        "pool": ("method_options['pool_capacity']", method.pool_capacity),
        "stream": ("budget['batch_size']", budget.batch_size),
        "real": ("method_options['real_share']", method.real_share),
    }.get(method.memory, ("budget['buffer_capacity']", budget.buffer_capacity))
    needed = [
        (*capacity, sizes.capacity * numbers),
        ("budget['batch_size']", budget.batch_size, budget.batch_size * numbers * ACTIVATIONS * 4),
    ]
    if method.memory != "stream":  # whose candidates are minibatches
        candidates = sizes.inversion_batch * numbers * ACTIVATIONS * 4
        needed.insert(1, ("budget['candidates']", budget.candidates, candidates))
    for name, value, amount in needed:
        if available is not None and amount > available:
            raise InvalidInputError(
                f"{name}={value:,}: images of {task.spec.image_shape} need at least {amount / 2**30:,.1f} GiB "
                f"here, and there are {available / 2**30:,.1f}; give fewer"
            )


def own_amounts(method: Method, budget: Budget) -> Amounts:
    """What a round of the method spends by itself."""
    return Amounts(method.steps or budget.inversion_steps, budget.student_steps)


def _turns(student_steps: int, per_batch: int) -> tuple[int, ...]:
    """Whole groups of `per_batch`, and what is left over; 0 is one group of all."""
    group = min(per_batch, student_steps) or student_steps
    groups, rest = divmod(student_steps, group)
    return (group,) * groups + ((rest,) if rest else ())
