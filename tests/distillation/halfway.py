"""A round that stops at a piece of its work, or whose weights are looked at."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from ssdkd_env.distillation import DistillationRun, RoundReport, SamplingPlan, sampling
from ssdkd_env.distillation.work import SynthesisWork, TrainingWork, Work, helped_by


class _Reached(Exception):
    """The work that was looked for."""


def training_work(run: DistillationRun, plan: SamplingPlan) -> TrainingWork:
    """What the trainer is asked for in the plan's round; the round goes no further."""
    work: TrainingWork = _first(run, plan, TrainingWork)
    return work


def synthesis_work(run: DistillationRun, plan: SamplingPlan) -> SynthesisWork:
    """What inversion is asked for in the plan's round, of a run that has warmed up; the round goes no further."""
    work: SynthesisWork = _first(run, plan, SynthesisWork)
    return work


def weighed(run: DistillationRun, plan: SamplingPlan) -> tuple[RoundReport, Tensor]:
    """Play the plan's round; returns its report, and log P of the new residents (size,) that the draws were from."""
    with recorded_weights() as found:
        return run.step(plan), found[-1]


@contextmanager
def recorded_weights() -> Iterator[list[Tensor]]:
    """Log P of the residents (size,) in every round of the block, as the student's draws were made from it."""
    found: list[Tensor] = []
    draw = sampling.draw

    def record(plan: SamplingPlan, log_weights: Tensor, *rest: Any) -> sampling.Draws:
        found.append(log_weights)
        return draw(plan, log_weights, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "draw", record)
        yield found


def _first(run: DistillationRun, plan: SamplingPlan, kind: type[Any]) -> Any:
    """The first work of a kind; the round, which is left there, is not undone as users' rounds are."""

    def stop(work: Work[Any]) -> Any:
        if isinstance(work, kind):
            raise _Reached(work)
        return work.alone()

    with pytest.raises(_Reached) as reached, helped_by(stop):
        inspect.unwrap(type(run).step)(run, plan)
    return reached.value.args[0]
