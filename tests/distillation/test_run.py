"""Whole runs on tiny budgets: reproducibility, resuming, and what a report promises."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssdkd_env.distillation import DistillationRun, RoundReport, SamplingPlan, make_method, sampling
from ssdkd_env.distillation.priority import PRIORITY_EPSILON
from ssdkd_env.distillation.report import DIFFICULTY_BINS, QUANTILES
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.tasks import Task, TaskSpec, load_task
from ssdkd_env.tasks.task import build_teacher
from tests.distillation.halfway import weighed
from tests.own_networks import DENSE_TASK

ROOT = Path(__file__).parents[2]
BUDGET = {
    "rounds": 3,
    "warmup_rounds": 1,
    "candidates": 16,
    "inversion_steps": 2,
    "student_steps": 2,
    "batch_size": 8,
    "buffer_capacity": 24,
}
PAPER = SamplingPlan(1.0, 0.0, 0.0, importance_exponent=0.4, replaced_share=0.5)
UNIFORM = SamplingPlan(0.0, 0.0, 0.0, importance_exponent=0.0, replaced_share=0.5)
ODD = SamplingPlan(-0.7, 1.5, 2.0, importance_exponent=1.0, replaced_share=0.25)
PLANS = [PAPER, UNIFORM, ODD]


def make_task(**budget: int) -> Task:
    return load_task("digits", budget=BUDGET | budget)


def make_run(seed: int = 0, task: Task | None = None, **method_options: Any) -> DistillationRun:
    return DistillationRun(task or make_task(), make_method("ssdkd", method_options), seed)


def own_task(**networks: str) -> Task:
    """Digits with a network of the user's own."""
    return load_task("digits", budget=BUDGET, **networks)  # type: ignore[arg-type]


def plain(report: RoundReport) -> dict[str, Any]:
    """Everything but the clock."""
    return {name: value for name, value in asdict(report).items() if not name.startswith("seconds")}


def flatten(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in flatten(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flatten(item)]
    return [value]


def same_state(left: Any, right: Any) -> bool:
    pairs = list(zip(flatten(left), flatten(right), strict=True))
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def steps(run: DistillationRun, plans: list[SamplingPlan]) -> list[dict[str, Any]]:
    return [plain(run.step(plan)) for plan in plans]


# --- reproducibility ---


def test_two_runs_of_one_seed_are_bit_identical() -> None:
    first, second = make_run(5), make_run(5)
    assert steps(first, PLANS) == steps(second, PLANS)
    assert same_state(first.state_dict(), second.state_dict())


def test_interleaved_runs_do_not_disturb_one_another() -> None:
    alone, first, other = make_run(5), make_run(5), make_run(6)
    for plan in PLANS:
        expected = plain(alone.step(plan))
        other.step(plan)
        assert plain(first.step(plan)) == expected


def test_different_seeds_give_different_networks_and_images() -> None:
    first, second = make_run(1), make_run(2)
    pairs = zip(first.student.parameters(), second.student.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert plain(first.step(PAPER)) != plain(second.step(PAPER))
    assert not torch.equal(first.buffer.residents.images, second.buffer.residents.images)


@pytest.mark.parametrize(
    "networks",
    [
        {},
        {"student_arch": "tests.own_networks:DropoutNet"},
        {"generator_arch": "tests.own_networks:dropout_generator"},
    ],
)
def test_no_global_generator_is_touched(networks: dict[str, str]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    run = make_run(task=own_task(**networks))
    constructed = torch.get_rng_state()
    run.warm_up()
    run.step(PAPER)
    assert torch.equal(before[0], constructed), "the constructor drew from PyTorch's global generator"
    assert torch.equal(before[0], torch.get_rng_state())
    after = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after, strict=True))
    assert before[2] == random.getstate()


def test_no_global_generator_is_touched_by_a_refused_step() -> None:
    run = make_run()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(InvalidInputError):
        run.step(replace(PAPER, logits=torch.zeros(1)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "networks",
    [{"student_arch": "tests.own_networks:DropoutNet"}, {"generator_arch": "tests.own_networks:dropout_generator"}],
)
def test_networks_with_dropout_are_reproducible(networks: dict[str, str]) -> None:
    reports = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        reports.append(steps(make_run(task=own_task(**networks)), PLANS))
    assert reports[0] == reports[1]


def test_dropout_does_not_repeat_itself_from_round_to_round() -> None:
    run = make_run(task=own_task(student_arch="tests.own_networks:DropoutNet"))
    run.warm_up()
    states = [run.state_dict()["random"]["layers"]]
    for plan in PLANS:
        run.step(plan)
        states.append(run.state_dict()["random"]["layers"])
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(states))


# --- resuming ---


@pytest.mark.parametrize(
    "networks",
    [
        {},
        {"student_arch": "tests.own_networks:DropoutNet"},
        {"generator_arch": "tests.own_networks:spectral_generator"},
    ],
)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_run_resumed_from_disk_continues_bit_identically(
    tmp_path: Path, networks: dict[str, str], momentum: float
) -> None:
    task = own_task(**networks)
    original = make_run(1, task, statistics_momentum=momentum)
    original.step(PAPER)
    save_state(tmp_path / "run.safetensors", original.state_dict())
    expected = steps(original, PLANS[1:])
    resumed = make_run(2, task, statistics_momentum=momentum)
    resumed.load_state_dict(load_state(tmp_path / "run.safetensors"))
    assert steps(resumed, PLANS[1:]) == expected
    assert same_state(resumed.state_dict(), original.state_dict())


def test_a_run_resumes_after_its_warm_up_and_before_it() -> None:
    for warm in (False, True):
        original, resumed = make_run(1), make_run(2)
        if warm:
            original.warm_up()
        resumed.load_state_dict(original.state_dict())
        assert steps(original, PLANS) == steps(resumed, PLANS)


def test_a_state_dict_is_a_copy_both_ways() -> None:
    run, other = make_run(1), make_run(2)
    run.step(PAPER)
    state = run.state_dict()
    untouched = run.state_dict()
    run.step(PAPER)
    assert same_state(state, untouched)
    other.load_state_dict(state)
    other.step(PAPER)
    assert same_state(state, untouched)


RESUME = """
import json, sys, torch
torch.set_num_threads(1)
from ssdkd_env.files import load_state, save_state
from tests.distillation.test_run import PLANS, make_run, steps
run = make_run(2)
run.load_state_dict(load_state(sys.argv[1]))
reports = steps(run, PLANS[1:])
save_state(sys.argv[2], {"reports": reports, "state": run.state_dict()})
"""


def test_a_run_continues_bit_identically_in_another_process(tmp_path: Path) -> None:
    original = make_run(1)
    original.step(PLANS[0])
    save_state(tmp_path / "run.safetensors", original.state_dict())
    expected = steps(original, PLANS[1:])
    command = [sys.executable, "-c", RESUME, str(tmp_path / "run.safetensors"), str(tmp_path / "end.safetensors")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
    end = load_state(tmp_path / "end.safetensors")
    assert end["reports"] == expected
    assert same_state(end["state"], original.state_dict())


# --- the budget ---


def test_a_step_beyond_the_budget_is_refused() -> None:
    run = make_run(task=make_task(rounds=1))
    assert not run.done
    run.step(PAPER)
    assert run.done
    with pytest.raises(RuntimeError, match="budget"):
        run.step(PAPER)


def test_warming_up_twice_is_refused() -> None:
    run = make_run()
    run.warm_up()
    with pytest.raises(RuntimeError, match="warm_up"):
        run.warm_up()


def test_the_first_step_warms_up_by_itself() -> None:
    by_itself, by_hand = make_run(4), make_run(4)
    report = by_hand.warm_up()
    assert (report.round, report.synthesized, report.replaced, report.student_loss) == (0, 16, 0, 0.0)
    assert plain(by_itself.step(PAPER)) == plain(by_hand.step(PAPER))


def test_the_warm_up_keeps_the_newest_images() -> None:
    run = make_run(task=make_task(warmup_rounds=3, candidates=10, buffer_capacity=24))
    run.warm_up()
    assert sorted(run.buffer.residents.born.tolist()) == [-3] * 4 + [-2] * 10 + [-1] * 10


def test_the_number_of_synthesized_images_does_not_depend_on_the_plan() -> None:
    for share in (0.0, 0.3, 1.0):
        run = make_run(task=make_task(warmup_rounds=2))
        reports = [run.step(replace(PAPER, replaced_share=share)) for _ in range(3)]
        assert [r.synthesized for r in reports] == [48, 64, 80]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_at_most_the_plans_share_of_the_buffer_is_replaced(share: float) -> None:
    run = make_run(task=make_task(warmup_rounds=2))
    run.warm_up()
    assert run.buffer.free == 0
    for _ in range(3):
        before = run.buffer.residents.images.clone()
        report = run.step(replace(UNIFORM, replaced_share=share))
        changed = (run.buffer.residents.images != before).flatten(1).any(dim=1).sum()
        assert report.replaced == int(changed)
        assert report.replaced <= share * run.buffer.capacity
        if share > 0:
            assert report.replaced > 0


# --- reports ---


def check_report(report: RoundReport, run: DistillationRun) -> None:
    size, classes = len(run.buffer), run.task.spec.num_classes
    assert not report.diverged
    for name, value in asdict(report).items():
        for number in value if isinstance(value, tuple) else (value,):
            assert type(number) in (int, float, bool), name
            assert math.isfinite(number), name
    assert len(report.class_counts) == classes
    assert sum(report.class_counts) == pytest.approx(size, rel=1e-4)
    assert len(report.difficulty_histogram) == DIFFICULTY_BINS
    assert sum(report.difficulty_histogram) == size
    for quantiles in (report.difficulty_quantiles, report.discrepancy_quantiles):
        assert len(quantiles) == len(QUANTILES)
        assert list(quantiles) == sorted(quantiles)
        assert quantiles[0] >= 0
    assert report.difficulty_quantiles[-1] <= 1
    for share in (
        report.buffer_fill,
        report.buffer_agreement,
        report.candidate_agreement,
        report.candidate_confidence,
        report.effective_sample_size,
    ):
        assert 0 <= share <= 1 + 1e-9
    assert -1e-6 <= report.class_imbalance <= 1
    assert report.buffer_fill == size / run.buffer.capacity
    assert report.round == run.round
    assert report.synthesized == run.synthesized
    assert report.candidate_discrepancy >= 0
    assert report.adversarial_loss <= 0 <= report.bn_loss
    assert report.mean_age >= 0


@pytest.mark.parametrize("plan", PLANS)
def test_reports_keep_their_promises(plan: SamplingPlan) -> None:
    run = make_run(3)
    report = run.warm_up()
    check_report(report, run)
    for expected_round in (1, 2, 3):
        report = run.step(plan)
        check_report(report, run)
        assert report.round == expected_round
        assert report.student_loss > 0
        assert report.learning_rate > 0


def test_reported_statistics_are_those_of_the_buffer() -> None:
    run = make_run(3)
    for plan in PLANS:
        report = run.step(plan)
    images, born = run.buffer.residents.images, run.buffer.residents.born
    with torch.no_grad():
        inputs = (images.float() / 255 - torch.tensor(run.task.spec.mean)) / torch.tensor(run.task.spec.std)
        p = run.teacher(inputs).double().softmax(1)
        q = run.student(inputs).double().softmax(1)
    classes = p.argmax(1)
    counts = np.bincount(classes.numpy(), minlength=10)
    assert report.class_counts == tuple(counts)
    share = counts[counts > 0] / counts.sum()
    assert report.class_imbalance == pytest.approx(1 + (share * np.log(share)).sum() / math.log(10), abs=1e-5)
    assert report.buffer_agreement == pytest.approx((classes == q.argmax(1)).double().mean().item())
    hard = (1 - p.amax(1)).numpy()
    assert report.difficulty_quantiles == pytest.approx(np.quantile(hard, QUANTILES), abs=1e-4)
    assert report.difficulty_histogram == tuple(np.histogram(hard, DIFFICULTY_BINS, (0, 1))[0])
    divergence = (p * (p / q).log()).sum(1).numpy()
    assert report.discrepancy_quantiles == pytest.approx(np.quantile(divergence, QUANTILES), rel=1e-3, abs=1e-5)
    assert run.buffer.residents.discrepancy.numpy() == pytest.approx(divergence, rel=1e-3, abs=1e-5)
    assert report.mean_age == pytest.approx((3 - born.double()).mean().item())


def test_weights_of_the_round_follow_the_plan() -> None:
    """P and w of the paper's plan, recomputed from the priorities that entered the round."""
    run = make_run(3, make_task(buffer_capacity=64))  # room for all, so that no resident leaves
    run.step(UNIFORM)
    residents = run.buffer.residents
    delta = (residents.importance_weight * residents.discrepancy).double().clone()
    report, log_weights = weighed(run, replace(PAPER, importance_exponent=0.7))
    residents, weights = run.buffer.residents, log_weights.double().exp()
    known = len(delta)
    torch.testing.assert_close(weights[:known], delta + PRIORITY_EPSILON, rtol=1e-4, atol=1e-6)
    p = weights / weights.sum()
    w = (len(p) * p) ** -0.7
    torch.testing.assert_close(residents.importance_weight.double(), w / (p * w).sum(), rtol=1e-4, atol=1e-6)
    assert report.effective_sample_size == pytest.approx(1 / (len(p) * (p**2).sum().item()), rel=1e-4)


def test_the_uniform_plan_has_a_full_effective_sample_size() -> None:
    assert make_run().step(UNIFORM).effective_sample_size == pytest.approx(1.0)


def test_a_student_learns_real_digits_without_seeing_one() -> None:
    sizes = {"candidates": 48, "buffer_capacity": 96, "inversion_steps": 5, "student_steps": 40, "batch_size": 32}
    run = make_run(0, make_task(rounds=5, **sizes))
    for _ in range(5):
        run.step(PAPER)
    assert isinstance(run.task, Task)
    accuracy = run.task.accuracy(run.student, "cpu")
    assert accuracy is not None
    assert accuracy > 0.25  # chance: 0.10; seeds 0 to 2 gave 0.38 to 0.43


# --- one logit per image ---


def recorded_logits(run: DistillationRun, plan: SamplingPlan, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Do a step and return the log-weights that the plan gave to residents and candidates."""
    found: list[Tensor] = []
    weigh = sampling.log_weights

    def record(*arguments: Any) -> Tensor:
        found.append(weigh(*arguments))
        return found[-1]

    monkeypatch.setattr(sampling, "log_weights", record)
    run.step(plan)
    monkeypatch.undo()
    return found[0]


@pytest.mark.parametrize("plan", PLANS)
def test_logits_of_the_same_numbers_do_what_the_exponents_do(
    plan: SamplingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_exponents, by_logits = make_run(8), make_run(8)
    by_exponents.step(UNIFORM)
    by_logits.step(UNIFORM)
    logits = recorded_logits(by_exponents, plan, monkeypatch)
    by_logits.step(
        SamplingPlan(importance_exponent=plan.importance_exponent, replaced_share=plan.replaced_share, logits=logits)
    )
    assert same_state(by_exponents.state_dict(), by_logits.state_dict())


def test_zero_logits_are_the_uniform_plan() -> None:
    by_exponents, by_logits = make_run(8), make_run(8)
    by_exponents.step(UNIFORM)
    by_logits.step(replace(PAPER, importance_exponent=0.0, logits=torch.zeros(16 + 16)))
    assert same_state(by_exponents.state_dict(), by_logits.state_dict())


def test_logits_decide_who_stays() -> None:
    run = make_run(task=make_task(warmup_rounds=2))
    run.warm_up()
    logits = torch.zeros(24 + 16)
    logits[:12], logits[24:] = -200.0, -100.0  # twelve residents are worse than every candidate
    report = run.step(SamplingPlan(replaced_share=1.0, logits=logits))
    assert report.replaced == 12
    assert (run.buffer.residents.born[:12] == 0).all()
    assert (run.buffer.residents.born[12:] < 0).all()


@pytest.mark.parametrize("shape", [(31,), (33,), (32, 1), (16,), (0,)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    run = make_run()
    run.warm_up()
    with pytest.raises(InvalidInputError, match=r"SamplingPlan\.logits.*32"):
        run.step(SamplingPlan(logits=torch.zeros(shape)))


def test_a_refused_plan_leaves_the_run_as_it_was() -> None:
    run = make_run()
    run.warm_up()
    before = run.state_dict()
    with pytest.raises(InvalidInputError):
        run.step(SamplingPlan(logits=torch.zeros(3)))
    assert same_state(run.state_dict(), before)


def test_logits_fresh_from_a_policy_network_leave_no_gradient_behind() -> None:
    plain_run, run = make_run(), make_run()
    plain_run.step(SamplingPlan(logits=torch.zeros(32)))
    run.step(SamplingPlan(logits=torch.zeros(32, requires_grad=True)))
    assert same_state(run.state_dict(), plain_run.state_dict())


def test_logits_that_are_not_numbers_are_refused() -> None:
    run = make_run()
    run.warm_up()
    logits = torch.zeros(32)
    logits[3] = math.nan
    with pytest.raises(InvalidInputError, match="logits"):
        run.step(SamplingPlan(logits=logits))


# --- divergence ---


def test_a_diverged_student_is_reported_and_raises_nothing() -> None:
    run = make_run()
    assert not run.step(PAPER).diverged
    with torch.no_grad():
        for parameter in run.student.parameters():
            parameter.fill_(math.nan)
    for plan in (PAPER, ODD):
        report = run.step(plan)
        assert report.diverged
        assert 0 <= report.replaced <= run.buffer.capacity


def test_an_absurd_learning_rate_diverges_without_an_exception() -> None:
    run = make_run(task=load_task("digits", budget=BUDGET | {"student_steps": 8}, student={"lr": 1e30}))
    assert [run.step(PAPER).diverged for _ in range(3)][-1]


# --- other tasks ---


def dense_task(spec: TaskSpec = DENSE_TASK) -> Task:
    return Task(spec, build_teacher(spec, seed=0))


def test_a_segmentation_task_runs_to_its_end() -> None:
    run = make_run(0, dense_task())
    check_report(run.warm_up(), run)
    for plan in (PAPER, ODD):
        check_report(run.step(plan), run)
    assert run.done
    assert run.buffer.residents.class_share.sum(dim=1).tolist() == pytest.approx([1.0] * 12)


def test_a_segmentation_run_is_reproducible_and_resumes() -> None:
    first, second = make_run(0, dense_task()), make_run(0, dense_task())
    first.step(PAPER)
    second.load_state_dict(first.state_dict())
    assert plain(first.step(ODD)) == plain(second.step(ODD))
    assert same_state(first.state_dict(), second.state_dict())


def test_a_teacher_without_batch_norm_runs() -> None:
    spec = replace(make_task().spec, teacher_arch="convnet", teacher_options={"channels": (4,), "batch_norm": False})
    with pytest.warns(UserWarning, match="BatchNorm"):
        run = make_run(0, dense_task(spec))
    check_report(run.step(PAPER), run)


def test_the_teacher_is_shared_and_never_changes() -> None:
    task = make_task()
    before = {name: value.clone() for name, value in task.teacher_on(torch.device("cpu")).state_dict().items()}
    runs = [make_run(seed, task) for seed in (0, 1)]
    for run in runs:
        run.step(PAPER)
    assert runs[0].teacher is runs[1].teacher
    for name, value in runs[0].teacher.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and not p.requires_grad for p in runs[0].teacher.parameters())


def test_the_student_is_asked_as_it_is_now_after_a_round_and_after_loading() -> None:
    run = make_run()
    images = run.task.training_images()[:20]

    def logits_of_the_student() -> Tensor:
        with torch.no_grad():
            logits: Tensor = run.student(run._normalize(images))
        return logits

    first = logits_of_the_student()
    run.step(SamplingPlan())
    state, learnt = run.state_dict(), logits_of_the_student()
    assert not torch.allclose(first, learnt, atol=1e-2)
    torch.testing.assert_close(run.student_logits(images), learnt)
    run.step(SamplingPlan())
    run.load_state_dict(state)
    assert torch.equal(logits_of_the_student(), learnt)
    torch.testing.assert_close(run.student_logits(images), learnt)
