"""What a run costs in multiply-adds, a measure of work that needs no clock. Ours, not the paper's.

The products of convolutions, linear layers and attention are counted, once for each network; a gradient for weights
and inputs costs two forward passes, one for the inputs alone costs one. What measures the student for observation and
reward is no work of the method and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ssdkd_env.distillation.allowance import LEAST, Allowance, Amounts
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.problem import Budget, Problem
from ssdkd_env.distillation.sizes import Sizes
from ssdkd_env.errors import InvalidInputError

#: Forward passes that a step of a network costs whose weights are trained, and of one that is only passed through.
TRAINED, FROZEN = 3, 2


class PassCosts(NamedTuple):
    """Multiply-adds of one image's forward pass through each network."""

    teacher: int
    student: int
    generator: int


def multiply_adds(network: nn.Module, inputs: Tensor) -> int:
    """Multiply-adds of a forward pass, for each of the inputs (N, …)."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention's own kernels are counted as nothing
    try:
        with (
            FlopCounterMode(display=False) as counter,
            sdpa_kernel(SDPBackend.MATH),
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
        ):
            network(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.get_total_flops()) // (2 * len(inputs))


@dataclass(frozen=True)
class Costs:
    """Multiply-adds of the parts of a run.

    Attributes:
        warm_up: of filling the memory.
        batch: of a batch of candidates beside its steps: they are made once more, and both networks see them.
        inversion_step: of one step on a batch, with the student as adversary where the method has one.
        student_step: of one student minibatch, which the teacher sees, too.
        refresh: of measuring the memory after a round, as if it were full: a fee that no decision changes.
        sizes: of the run, which say how a round falls into batches.
    """

    warm_up: int
    batch: int
    inversion_step: int
    student_step: int
    refresh: int
    sizes: Sizes

    @classmethod
    def of(cls, method: Method, budget: Budget, sizes: Sizes, task: Problem) -> Costs:
        """Costs of a run of `method` on `task`, which may have another budget."""
        passes, dense = PassCosts(*task.pass_costs), task.dense
        answers = passes.teacher + passes.student
        generator = 0 if method.variables == "pixels" else passes.generator
        batch = sizes.candidates * (generator + answers)
        views = 2 if method.contrastive_weight else 1
        frozen = TRAINED * generator + FROZEN * views * passes.teacher
        adversary = FROZEN * passes.student if method.adversarial_weight else 0
        if method.memory == "real":
            warm_up, batch, step = sizes.capacity * answers, 0, 0
        else:
            step = sizes.inversion_batch * (frozen + adversary)
            first = sizes.inversion_batch * (frozen if method.warm_up else frozen + adversary)
            warm_up = (budget.warmup_rounds if method.warm_up else 1) * (sizes.own.inversion_steps * first + batch)
        refresh = sizes.refreshed * (passes.student + (passes.teacher if dense else 0))
        return cls(
            warm_up=warm_up + refresh,
            batch=batch,
            inversion_step=step,
            student_step=budget.batch_size * (passes.teacher + TRAINED * passes.student),
            refresh=refresh,
            sizes=sizes,
        )

    def round(self, amounts: Amounts) -> int:
        """Multiply-adds of a round that spends so much."""
        batches = len(self.sizes.turns(amounts.student_steps))
        synthesis = self.batch + amounts.inversion_steps * self.inversion_step
        return batches * synthesis + amounts.student_steps * self.student_step + self.refresh

    def whole(self, budget: Budget) -> int:
        """Multiply-adds of a run of the budget's rounds, each of which spends what is the method's own."""
        return self.warm_up + budget.rounds * self.round(self.sizes.own)


def allowance_of(method: Method, task: Problem) -> Allowance:
    """What a run may do after its warm-up: the budget's rounds, or what the warm-up leaves of its work.

    Raises:
        InvalidInputError: when it leaves nothing to the cheapest round, or the method needs real training images and
            the task has none.
    """
    budget = task.spec.budget
    sizes = Sizes.of(method, budget, task)
    if not budget.work:
        return Allowance(budget.rounds, lambda amounts: 1)
    costs = Costs.of(method, budget, sizes, task)
    if budget.work < (least := costs.warm_up + costs.round(LEAST)):
        raise InvalidInputError(
            f"budget['work']={budget.work} (work_scale): filling the memory and the cheapest round take {least} "
            "multiply-adds; give more" + (", or fewer warmup_rounds" if method.warm_up else "")
        )
    return Allowance(budget.work - costs.warm_up, costs.round, beforehand=costs.warm_up)
