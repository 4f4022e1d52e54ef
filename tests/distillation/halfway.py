"""A round that stops where the student's minibatches would begin."""

from __future__ import annotations

from typing import Any

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.distillation.work import SynthesisWork, TrainingWork


def training_work(run: DistillationRun, plan: SamplingPlan) -> TrainingWork:
    """What the trainer is asked for in the plan's round; the round goes no further."""
    work: TrainingWork = _first(run, plan, TrainingWork)
    return work


def synthesis_work(run: DistillationRun, plan: SamplingPlan) -> SynthesisWork:
    """What inversion is asked for in the plan's round, of a run that has warmed up; the round goes no further."""
    work: SynthesisWork = _first(run, plan, SynthesisWork)
    return work


def _first(run: DistillationRun, plan: SamplingPlan, kind: type[Any]) -> Any:
    course = run.step_course(plan)
    work = course.send(None)
    while not isinstance(work, kind):
        work = course.send(work.alone())
    return work
