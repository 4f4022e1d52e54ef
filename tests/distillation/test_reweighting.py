"""Weights in place of draws: what the student studies is the same in expectation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.distillation.work import TrainingWork
from tests.distillation.halfway import recorded_weights, training_work
from tests.distillation.rows import distribution
from tests.distillation.test_run import make_run, make_task, plain

BETA = 0.4
DRAWN = SamplingPlan(importance_exponent=BETA)
WEIGHED = replace(DRAWN, reweighted=True)


def at_second_round(plan: SamplingPlan, **budget: int) -> tuple[DistillationRun, TrainingWork, Tensor]:
    """A run whose priorities differ, what its trainer is given, and P."""
    run = make_run(3, make_task(**({"warmup_rounds": 2} | budget)))
    run.step(SamplingPlan())
    with recorded_weights() as found:
        work = training_work(run, plan)
    return run, work, distribution(found[-1])


def weights_by_hand(p: Tensor) -> Tensor:
    weights = (len(p) * p) ** -BETA
    return weights / (p * weights).sum()


def test_weights_are_those_of_the_draws_times_their_probability() -> None:
    _, work, p = at_second_round(WEIGHED)
    torch.testing.assert_close(work.weights.double(), len(p) * p * weights_by_hand(p), rtol=1e-5, atol=1e-7)
    assert work.weights.dtype == torch.float32
    assert p.max() > 2 * p.min()


def test_memory_and_priorities_are_those_of_the_draws() -> None:
    """w, which the next δ is a multiple of, and the reported sample size do not depend on who does the work of P."""
    drawn, drawn_work, p = at_second_round(DRAWN)
    weighed, weighed_work, same_p = at_second_round(WEIGHED)
    assert torch.equal(p, same_p)
    assert torch.equal(drawn_work.images, weighed_work.images)
    assert torch.equal(drawn_work.weights, drawn.buffer.residents.importance_weight)
    assert torch.equal(drawn_work.weights, weighed.buffer.residents.importance_weight)
    reports = [make_run(3).step(plan) for plan in (DRAWN, WEIGHED)]
    assert reports[0].effective_sample_size == reports[1].effective_sample_size
    assert reports[0].replaced == reports[1].replaced
    assert reports[0].student_loss != reports[1].student_loss


def test_draws_are_uniform() -> None:
    """Each a random number of the run's stream, times the size of the buffer."""
    run = make_run(3, make_task(warmup_rounds=2))
    run.step(SamplingPlan())
    stream = torch.Generator()
    stream.set_state(run._random["sampling"].get_state())
    work = training_work(run, WEIGHED)
    torch.rand(24 + 16, dtype=torch.float64, generator=stream)  # Gumbel noise of the update
    numbers = torch.rand(work.draws.numel(), dtype=torch.float64, generator=stream)
    assert torch.equal(work.draws.flatten(), (24 * numbers).long())


@pytest.mark.parametrize(("plan", "uniform"), [(DRAWN, False), (WEIGHED, True)])
def test_images_are_drawn_as_often_as_they_should_be(plan: SamplingPlan, uniform: bool) -> None:
    run = make_run(3, make_task(warmup_rounds=2, student_steps=2000))
    logits = 2.0 * torch.rand(24 + 16, generator=torch.Generator().manual_seed(0))
    run.warm_up()
    with recorded_weights() as found:
        work = training_work(run, replace(plan, logits=logits))
    expected = distribution(found[-1])
    assert expected.max() > 2 * expected.min()
    if uniform:
        expected = torch.full_like(expected, 1 / 24)
    count = work.draws.numel()
    counts = torch.bincount(work.draws.flatten(), minlength=24)
    assert ((counts - count * expected).abs() < 4.5 * (count * expected * (1 - expected)).sqrt()).all()


def gradient(run: DistillationRun, work: TrainingWork, shares: Tensor) -> Tensor:
    """Σ_i share_i · weight_i · ∇l_i of the trainer's loss, image by image, with the student as it is."""
    student = run.student
    inputs = run._normalize(work.images)
    with torch.no_grad():
        teacher_logits = run.teacher(inputs)
    total = torch.zeros(sum(p.numel() for p in student.parameters()), dtype=torch.float64)
    for row in range(len(inputs)):
        loss = run.trainer.loss(teacher_logits[row : row + 1], student(inputs[row : row + 1]), work.weights[row])
        parts = torch.autograd.grad(loss, list(student.parameters()))
        total += float(shares[row]) * torch.cat([part.flatten() for part in parts]).double()
    return total


def test_expected_gradient_is_that_of_the_draws() -> None:
    """Σ P·w·∇l = (1/N) Σ N·P·w·∇l, by going through all images."""
    drawn, drawn_work, p = at_second_round(DRAWN)
    weighed, weighed_work, _ = at_second_round(WEIGHED)
    by_draws = gradient(drawn, drawn_work, p)
    by_weights = gradient(weighed, weighed_work, torch.full_like(p, 1 / len(p)))
    torch.testing.assert_close(by_weights, by_draws, rtol=1e-4, atol=1e-6 * float(by_draws.abs().max()))
    uniform = gradient(drawn, replace(drawn_work, weights=torch.ones(len(p))), torch.full_like(p, 1 / len(p)))
    assert (uniform - by_draws).norm() > 0.05 * by_draws.norm(), "the priorities do matter"


def test_with_equal_priorities_nothing_changes() -> None:
    even = SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0)
    plans = even, replace(even, reweighted=True)
    assert plain(make_run(5).step(plans[0])) == plain(make_run(5).step(plans[1]))
