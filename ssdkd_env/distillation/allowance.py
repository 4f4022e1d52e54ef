"""How long a run goes on, and where it stands: so many rounds, or so much work, however rounds divide it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple


class Amounts(NamedTuple):
    """What a round spends.

    Attributes:
        inversion_steps: optimiser steps a batch of candidates.
        student_steps: student minibatches.
    """

    inversion_steps: int
    student_steps: int


#: What a round spends at least.
LEAST = Amounts(1, 1)
#: What the warm-up spends of what is left after it.
NOTHING = Amounts(0, 0)


class Allowance:
    """A sum that rounds are paid from. The run is over when what is left does not pay the cheapest round.

    Args:
        total: of whole units: rounds, or multiply-adds.
        cost: of a round, in units; a round with more steps costs at least as much.
        beforehand: multiply-adds of the warm-up; None where the units are rounds.

    Attributes:
        spent: on the rounds so far.
    """

    def __init__(self, total: int, cost: Callable[[Amounts], int], beforehand: int | None = None) -> None:
        self.total = total
        self.spent = 0
        self._before = 0
        self._cost, self._beforehand = cost, beforehand

    @property
    def done(self) -> bool:
        """Whether another round cannot be paid."""
        return not self._pays(LEAST)

    @property
    def progress(self) -> float:
        """Share that is spent, in [0, 1]; 1 as soon as another round cannot be paid."""
        return 1.0 if self.done else self.spent / self.total

    @property
    def work(self) -> int:
        """Multiply-adds so far, warm-up included; 0 where rounds are counted."""
        return 0 if self._beforehand is None else self._beforehand + self.spent

    def affordable(self, wanted: Amounts) -> Amounts:
        """What is wanted; or all that can still be paid of it, both parts shrunk alike but for what then fits as well.

        A run that is not done affords `LEAST`. One that does not afford what is wanted is done afterwards, where a
        round is one batch of candidates.
        """

        def shrunk(student_steps: int) -> Amounts:
            part = wanted.inversion_steps * student_steps // wanted.student_steps
            return Amounts(max(part, 1), student_steps)

        if self._pays(wanted):
            return wanted
        steps = shrunk(self._most(wanted.student_steps, shrunk)).inversion_steps
        if not self._pays(Amounts(steps, 1)):
            steps = self._most(wanted.inversion_steps, lambda number: Amounts(number, 1))
        student_steps = self._most(wanted.student_steps, lambda number: Amounts(steps, number))
        steps = self._most(wanted.inversion_steps, lambda number: Amounts(number, student_steps))
        return Amounts(steps, student_steps)

    def position(self, amounts: Amounts) -> float:
        """Where a round stands between the first (0) and one that ends with nothing left (1).

        With rounds of equal cost it is i / (rounds − 1), which the learning rate's schedule wants.
        """
        return min(self.spent / max(self.total - self._cost(amounts), 1), 1.0)

    def spend(self, amounts: Amounts) -> None:
        """Pay a round."""
        self._before, self.spent = self.spent, self.spent + self._cost(amounts)

    def has_passed(self, share: float) -> bool:
        """Whether the round that was paid last brought what is spent from below a share of the total to it."""
        mark = math.ceil(share * self.total - 1e-9)  # 0.07 · 100 is a hair above 7
        return self._before < mark <= self.spent

    def _pays(self, amounts: Amounts) -> bool:
        return self._cost(amounts) <= self.total - self.spent

    def _most(self, wanted: int, made: Callable[[int], Amounts]) -> int:
        """The largest number up to `wanted` whose amounts can be paid; 0 where not even those of 1 can."""
        return bisect_left(range(1, wanted + 1), True, key=lambda number: not self._pays(made(number)))

    def state_dict(self) -> dict[str, Any]:
        """What is spent, now and before the last round."""
        return {"spent": self.spent, "before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.spent, self._before = state["spent"], state["before"]
