"""Who enters the buffer, and in whose place, under each rule of replacement."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ssdkd_env.distillation import DistillationRun, SamplingPlan, make_method
from ssdkd_env.distillation.buffer import Entries
from tests.distillation.halfway import training_work
from tests.distillation.test_run import UNIFORM, make_run, make_task, plain, same_state

CAPACITY, CANDIDATES = 24, 16
OLDEST, RANDOM = (replace(UNIFORM, replacement=name, replaced_share=1.0) for name in ("oldest", "random"))


def warm_run(seed: int = 0, **budget: int) -> DistillationRun:
    """A run with a full buffer, half as old as the other half."""
    run = make_run(seed, make_task(**({"warmup_rounds": 2, "rounds": 6} | budget)))
    run.warm_up()
    assert run.buffer.free == 0
    return run


# --- the oldest leave ---


@pytest.mark.parametrize(("share", "most"), [(0.0, 0), (0.2, 4), (0.29, 6), (0.5, 12), (1.0, 16)])
def test_first_in_is_first_out_and_no_more_than_the_plans_share(share: float, most: int) -> None:
    """A queue of rounds in plain lists."""
    run = warm_run()
    queue = sorted(run.buffer.residents.born.tolist())
    for number in range(3):
        report = run.step(replace(OLDEST, replaced_share=share))
        queue = sorted(queue[most:] + [number] * most)
        assert report.replaced == most
        assert sorted(run.buffer.residents.born.tolist()) == queue


def test_the_oldest_leave_whatever_their_weight() -> None:
    run = warm_run()
    dear = torch.cat([-50.0 * run.buffer.residents.born.float(), torch.full((CANDIDATES,), -1e3)])
    old = run.buffer.residents.born == -2
    before = run.buffer.residents.images.clone()
    run.step(SamplingPlan(logits=dear, replacement="oldest", replaced_share=8 / CAPACITY))
    left = (run.buffer.residents.images != before).flatten(1).any(dim=1)
    assert int(left.sum()) == 8
    assert not (left & ~old).any()


def test_a_queue_needs_no_chance() -> None:
    """The draws of minibatches come from the same stream; a queue takes none of it for the update."""
    run = warm_run()
    before = run._random["sampling"].get_state()
    work = training_work(run, OLDEST)
    alone = torch.Generator()
    alone.set_state(before)
    draws = (torch.rand(work.draws.numel(), dtype=torch.float64, generator=alone) * CAPACITY).long()
    assert torch.equal(work.draws.flatten(), draws)


# --- chance decides ---


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_as_many_leave_as_the_priorities_would_have_replaced(seed: int, share: float) -> None:
    """Under the same noise, of candidates that are better than some residents and worse than others."""
    by_priority, by_chance = warm_run(seed), warm_run(seed)
    logits = 2.0 * torch.randn(CAPACITY + CANDIDATES, generator=torch.Generator().manual_seed(seed))
    plan = SamplingPlan(logits=logits, replaced_share=share)
    wanted = by_priority.step(plan).replaced
    report = by_chance.step(replace(plan, replacement="random"))
    assert report.replaced == wanted == int((by_chance.buffer.residents.born == 0).sum())
    if share == 1.0:
        assert 0 < wanted < CANDIDATES
        assert not torch.equal(by_chance.buffer.residents.images, by_priority.buffer.residents.images)


def test_weights_say_how_many_but_chance_says_who() -> None:
    """Over 400 updates every resident leaves and every candidate enters about as often as any other."""
    run = warm_run()
    residents = run.buffer.residents
    candidates = Entries(**{name: value.clone() for name, value in vars(residents.rows(slice(0, CANDIDATES))).items()})
    state, updates = run.buffer.state_dict(), 400
    logits = 3.0 * torch.randn(CAPACITY + CANDIDATES, generator=torch.Generator().manual_seed(1))
    plan = SamplingPlan(logits=logits, replacement="random")
    left, entered, total = torch.zeros(CAPACITY), torch.zeros(CANDIDATES), 0
    for _ in range(updates):
        run.buffer.load_state_dict(state)
        candidates.born = 100 + torch.arange(CANDIDATES)
        total += int(run._update_buffer(candidates, plan, 1)[1])
        gone = run.buffer.residents.born >= 100
        left += gone
        entered[run.buffer.residents.born[gone] - 100] += 1
    assert left.sum() == entered.sum() == total
    for counts in (left, entered):
        p = total / updates / len(counts)
        assert 0.1 < p < 0.9
        assert (counts - updates * p).abs().max() < 4.5 * (updates * p * (1 - p)) ** 0.5


def test_every_free_place_is_filled_before_anyone_leaves() -> None:
    for plan in (OLDEST, RANDOM):
        run = make_run(0)
        run.warm_up()
        assert run.buffer.free == 8
        report = run.step(replace(plan, replaced_share=0.0))
        assert (report.replaced, run.buffer.free) == (0, 0)


# --- runs ---


@pytest.mark.parametrize("plan", [OLDEST, RANDOM])
def test_runs_are_reproducible_and_resume(plan: SamplingPlan) -> None:
    first, second, third = warm_run(3), warm_run(3), warm_run(4)
    assert plain(first.step(plan)) == plain(second.step(plan))
    third.load_state_dict(first.state_dict())
    assert plain(first.step(plan)) == plain(third.step(plan))
    assert same_state(first.state_dict(), third.state_dict())


def test_methods_that_replace_all_do_so_whatever_the_rule() -> None:
    reports = []
    for plan in (UNIFORM, OLDEST, RANDOM):
        run = DistillationRun(make_task(), make_method("fast5", {"steps": 2}), 0)
        reports.append([plain(run.step(plan)) for _ in range(2)])
    assert reports[0] == reports[1] == reports[2]


def test_a_diverged_student_replaces_no_more_than_it_may() -> None:
    for plan in (replace(RANDOM, discrepancy_exponent=1.0), replace(OLDEST, replaced_share=0.25)):
        run = warm_run()
        with torch.no_grad():
            for parameter in run.student.parameters():
                parameter.fill_(torch.nan)
        for _ in range(2):
            report = run.step(plan)
            assert report.diverged
            assert report.replaced <= CANDIDATES
