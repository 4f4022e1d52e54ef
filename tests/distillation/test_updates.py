"""The fast step of the student against the plain one, in float64."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation import DistillationRun, make_method
from ssdkd_env.distillation.losses import distillation_loss
from ssdkd_env.distillation.updates import FastUpdate, PlainUpdate, StudentUpdate, loss_gradient
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.grouping import NetworkGroup
from ssdkd_env.tasks import load_task
from tests.own_networks import DenseNet

CLASSES, BATCH = 4, 6


pytestmark = pytest.mark.usefixtures("float64")


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


UPDATES: dict[str, type[PlainUpdate] | type[FastUpdate]] = {"plain": PlainUpdate, "fast": FastUpdate}


def make_update(
    name: str, student: nn.Module, distance: str = "kl", momentum: float = 0.9, decay: float = 1e-2
) -> StudentUpdate:
    update = UPDATES[name](student, momentum, decay, 3.0, distance)
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
    students = {name: make_student(dense) for name in UPDATES}
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


def make_students(count: int, dense: bool) -> list[nn.Module]:
    """Students of unequal weights, in the layout that runs keep them in."""
    students = [make_student(dense) for _ in range(count)]
    with torch.no_grad():
        for factor, student in enumerate(students, start=1):
            for parameter in student.parameters():
                parameter.mul_(1 + 0.1 * factor)
    return [student.to(memory_format=torch.channels_last) for student in students]  # type: ignore[call-overload]


def make_fast(student: nn.Module, distance: str, momentum: float, decay: float, students: int = 1) -> FastUpdate:
    return FastUpdate(student, momentum, decay, 3.0, distance, students)


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 1e-2), (0.0, 1e-2), (0.9, 0.0)])
@pytest.mark.parametrize("distance", ["kl", "l1"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("rates", [(0.05, 0.05, 0.05), (0.05, 0.02, 0.11)])
def test_a_groups_step_equals_those_of_its_members(
    momentum: float, decay: float, distance: str, dense: bool, rates: tuple[float, ...]
) -> None:
    """With one learning rate or each its own, and with members that have gone before and one that has not."""
    count, settings = len(rates), (distance, momentum, decay)
    students, twins = make_students(count, dense), make_students(count, dense)
    updates, singles = ([make_fast(student, *settings) for student in each] for each in (students, twins))
    for index in (0, 2):
        for update in (updates[index], singles[index]):
            update.lr = 0.03
            update(*minibatch(index, dense))
    group = NetworkGroup(students[0], count)
    for turn in range(2):
        for update, single, rate in zip(updates, singles, rates, strict=True):
            update.lr = single.lr = rate / (turn + 1)
        group.gather(students)
        together = make_fast(group, *settings, students=count)
        together.join(updates)
        for step in range(3):
            batches = [minibatch(100 * turn + 10 * step + index, dense) for index in range(count)]
            answers = together(*map(torch.cat, zip(*batches, strict=True)))
            expected = torch.cat([single(*batch) for single, batch in zip(singles, batches, strict=True)])
            torch.testing.assert_close(answers, expected, rtol=1e-10, atol=1e-12)
        together.part(updates)
        group.scatter(students)
    for student, twin in zip(students, twins, strict=True):
        for (name, value), wanted in zip(student.state_dict().items(), twin.state_dict().values(), strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12, msg=name)
            assert value.stride() == wanted.stride()
    for update, single in zip(updates, singles, strict=True):
        for momentum_found, wanted in zip(update._momenta, single._momenta, strict=True):
            torch.testing.assert_close(momentum_found, wanted, rtol=1e-10, atol=1e-12)


def test_momenta_are_each_members_own_again_after_a_grouped_step() -> None:
    """In the parameters' layout, and without a share in the memory of another's."""
    students = make_students(2, dense=False)
    updates = [make_fast(student, "kl", 0.9, 0.0) for student in students]
    group = NetworkGroup(students[0], 2)
    together = make_fast(group, "kl", 0.9, 0.0, students=2)
    together.join(updates)
    assert all(momentum is None for momentum in together._momenta)
    images, logits, weights = minibatch(0, dense=False)
    together(images, logits, weights)
    together.part(updates)
    kept = copy.deepcopy(updates[1].state_dict())
    for momentum, parameter in zip(updates[0].state_dict()["momenta"], students[0].parameters(), strict=True):
        assert momentum.shape == parameter.shape
        assert momentum.stride() == parameter.stride()
        momentum.zero_()
    for momentum, wanted in zip(updates[1].state_dict()["momenta"], kept["momenta"], strict=True):
        assert torch.equal(momentum, wanted)


def test_a_groups_weights_that_take_no_part_stay_and_get_no_momentum() -> None:
    students = make_students(2, dense=False)
    for student in students:
        student.spare, student.frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    before = [copy.deepcopy(student.state_dict()) for student in students]
    updates = [make_fast(student, "kl", 0.9, 1e-2) for student in students]
    for update, rate in zip(updates, (0.1, 0.2), strict=True):
        update.lr = rate
    group = NetworkGroup(students[0], 2)
    group.gather(students)
    together = make_fast(group, "kl", 0.9, 1e-2, students=2)
    together.join(updates)
    together(*minibatch(0, dense=False))
    together.part(updates)
    group.scatter(students)
    for student, update, state in zip(students, updates, before, strict=True):
        changed = {name for name, value in student.state_dict().items() if not torch.equal(value, state[name])}
        assert changed
        assert not any(name.startswith(("spare", "frozen")) for name in changed)
        names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
        without = {name for name, momentum in zip(names, update._momenta, strict=True) if momentum is None}
        assert without == {"spare.weight", "spare.bias"}


@pytest.mark.parametrize("name", UPDATES)
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
