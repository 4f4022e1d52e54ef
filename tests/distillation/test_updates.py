"""The fast step of the student against the plain one, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation import DistillationRun, make_method
from ssdkd_env.distillation.losses import distillation_loss
from ssdkd_env.distillation.updates import STUDENT_UPDATES, StudentUpdate, loss_gradient
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.tasks import load_task
from tests.own_networks import DenseNet

CLASSES, BATCH = 4, 6


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_student(dense: bool = False) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        student = DenseNet(CLASSES) if dense else ConvNet(CLASSES, 1, (4, 6))
    return student.train()


def minibatch(seed: int, dense: bool) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH, 1, 8, 8, generator=random)
    logits = 5 * torch.randn(BATCH, CLASSES, *((8, 8) if dense else ()), generator=random)
    return images, logits, torch.rand(BATCH, generator=random)


def make_update(
    name: str, student: nn.Module, distance: str = "kl", momentum: float = 0.9, decay: float = 1e-2
) -> StudentUpdate:
    update = STUDENT_UPDATES[name](student, momentum, decay, 3.0, distance)
    update.lr = 0.05
    return update


@pytest.mark.parametrize("distance", ["kl", "l1"])
@pytest.mark.parametrize("dense", [False, True])
def test_the_closed_gradient_is_autograds(distance: str, dense: bool) -> None:
    _, teacher_logits, weights = minibatch(0, dense)
    student_logits = minibatch(1, dense)[1].requires_grad_()
    loss = (weights * distillation_loss(teacher_logits, student_logits, 3.0, distance)).mean()
    (expected,) = torch.autograd.grad(loss, student_logits)
    closed = loss_gradient(teacher_logits, student_logits.detach(), weights, 3.0, distance)
    torch.testing.assert_close(closed, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 1e-2), (0.0, 1e-2), (0.9, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("distance", ["kl", "l1"])
@pytest.mark.parametrize("dense", [False, True])
def test_the_fast_step_equals_the_plain_one(momentum: float, decay: float, distance: str, dense: bool) -> None:
    students = {name: make_student(dense) for name in STUDENT_UPDATES}
    updates = {name: make_update(name, student, distance, momentum, decay) for name, student in students.items()}
    for step in range(5):
        answers = {}
        for name, update in updates.items():
            update.lr = 0.05 / (step + 1)
            answers[name] = update(*minibatch(step, dense))
        torch.testing.assert_close(answers["fast"], answers["plain"], rtol=1e-10, atol=1e-12)
        assert not answers["fast"].requires_grad
    for name, value in students["plain"].state_dict().items():
        torch.testing.assert_close(students["fast"].state_dict()[name], value, rtol=1e-10, atol=1e-12)


def test_a_parameter_that_takes_no_part_stays_as_it_is() -> None:
    student = make_student()
    student.spare, student.frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)
    update = make_update("fast", student)
    for step in range(2):
        update(*minibatch(step, dense=False))
    assert torch.equal(student.spare, torch.ones(2))
    assert torch.equal(student.frozen, torch.ones(2))


@pytest.mark.parametrize("name", STUDENT_UPDATES)
def test_a_state_dict_continues_bit_identically(name: str) -> None:
    student = make_student()
    original = make_update(name, student)
    original(*minibatch(0, dense=False))
    twin = copy.deepcopy(student)
    restored = make_update(name, twin)
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    for step in (1, 2):
        assert torch.equal(*(update(*minibatch(step, dense=False)) for update in (original, restored)))
    for a, b in zip(student.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", ["ssdkd", "dfad", "vanilla_kd"])
def test_a_run_of_the_fast_backend_is_the_plain_ones_but_for_rounding(method: str) -> None:
    """Two rounds in float32: before chaos has had time to blow the rounding up."""
    torch.set_default_dtype(torch.float32)
    task = load_task("digits", budget={"rounds": 2, "warmup_rounds": 1, "inversion_steps": 2, "student_steps": 3})
    settings = replace(make_method(method), first_layer_reset=0.0)
    runs = {name: DistillationRun(task, settings, 5, backend=name) for name in ("plain", "fast")}
    for _ in range(2):
        reports = {name: run.step(settings.own_plan) for name, run in runs.items()}
        assert reports["fast"].student_loss == pytest.approx(reports["plain"].student_loss, rel=2e-2)
        assert reports["fast"].class_counts == pytest.approx(reports["plain"].class_counts, abs=2)
    for a, b in zip(*(run.student.parameters() for run in runs.values()), strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.02)
