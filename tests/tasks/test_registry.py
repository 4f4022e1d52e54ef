"""Loading tasks: caching, overrides, networks of the user's own, and errors that teach."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdkd_env.distillation import StudentSettings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.tasks import TASKS, Budget, load_task, register_task
from ssdkd_env.tasks.task import build_teacher
from tests.own_networks import DENSE_TASK, DenseNet, DropoutNet, FlatGenerator

CPU = torch.device("cpu")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks registered in a test are forgotten after it."""
    known = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(known)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a ConvNet with its default widths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(tmp_path / "teacher.safetensors", ConvNet(10))
    return tmp_path / "teacher.safetensors"


@pytest.fixture
def digits_weights(tmp_path: Path) -> Path:
    """Weights of the digits task's own teacher architecture."""
    save_weights(tmp_path / "digits.safetensors", build_teacher(TASKS["digits"], seed=0))
    return tmp_path / "digits.safetensors"


# --- caching ---


def test_equal_arguments_give_the_same_task() -> None:
    assert load_task("digits") is load_task("digits")
    assert load_task("digits", budget={"rounds": 2}) is load_task("digits", budget={"rounds": 2})
    assert load_task("digits", budget={}) is load_task("digits")


def test_other_arguments_give_another_task() -> None:
    base = load_task("digits")
    assert load_task("digits", budget={"rounds": base.spec.budget.rounds + 1}) is not base
    assert load_task("digits", student={"lr": 0.123}) is not base
    assert load_task("digits", student_arch="convnet") is not base


def test_a_teacher_file_that_changed_is_read_again(digits_weights: Path) -> None:
    first = load_task("digits", teacher=str(digits_weights))
    assert load_task("digits", teacher=str(digits_weights)) is first
    changed = build_teacher(TASKS["digits"], seed=0)
    with torch.no_grad():
        changed.get_parameter("classifier.bias").fill_(3.0)
    save_weights(digits_weights, changed)
    stamp = digits_weights.stat().st_mtime_ns + 1_000_000
    os.utime(digits_weights, ns=(stamp, stamp))
    second = load_task("digits", teacher=str(digits_weights))
    assert second is not first
    assert second.teacher_on(CPU).state_dict()["classifier.bias"].tolist() == [3.0] * 10


# --- overrides ---


def test_overrides_reach_the_task_and_leave_the_rest() -> None:
    base = load_task("digits").spec
    spec = load_task("digits", budget={"rounds": 2, "candidates": 7}, student={"lr": 0.5, "momentum": 0}).spec
    assert spec.budget == replace(base.budget, rounds=2, candidates=7)
    assert spec.student == StudentSettings(lr=0.5, momentum=0.0, weight_decay=base.student.weight_decay)
    assert TASKS["digits"] == base


@pytest.mark.parametrize(
    ("argument", "options", "match"),
    [
        ("budget", {"epochs": 3}, "budget has no setting 'epochs'.*rounds"),
        ("budget", {"rounds": 2.5}, r"budget\['rounds'\]=2\.5.*int"),
        ("budget", {"rounds": "3"}, r"budget\['rounds'\]='3'"),
        ("budget", {"rounds": True}, r"budget\['rounds'\]=True"),
        ("budget", {"rounds": None}, r"budget\['rounds'\]=None"),
        ("budget", {"rounds": math.nan}, r"budget\['rounds'\]=nan"),
        ("student", {"learning_rate": 0.1}, "student has no setting 'learning_rate'.*lr"),
        ("student", {"lr": math.nan}, r"student\['lr'\]=nan.*finite"),
        ("student", {"lr": math.inf}, r"student\['lr'\]=inf"),
        ("student", {"lr": "0.1"}, r"student\['lr'\]='0\.1'.*float"),
        ("student", {"lr": -0.1}, "lr"),
        ("student", {"momentum": -1.0}, "momentum"),
    ],
)
def test_bad_overrides_are_refused_by_name(argument: str, options: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {argument: options}
    with pytest.raises(InvalidInputError, match=match) as error:
        load_task("digits", **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [f.name for f in fields(Budget)])
@pytest.mark.parametrize("value", [0, -3])
def test_every_part_of_the_budget_is_at_least_one(name: str, value: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"budget\['{name}'\]={value}.*at least 1"):
        load_task("digits", budget={name: value})


# --- names ---


@pytest.mark.parametrize("task", ["mnist", "Digits", ""])
def test_an_unknown_task_lists_the_known_ones(task: str) -> None:
    with pytest.raises(InvalidInputError, match=r"task=.*unknown.*digits"):
        load_task(task)


@pytest.mark.parametrize("task", ["no_such_package:SPEC", "tests.own_networks:NO_SPEC", "tests.own_networks:NUMBER"])
def test_an_import_path_that_leads_to_no_task_is_refused(task: str) -> None:
    with pytest.raises(InvalidInputError, match=f"task='{task}'"):
        load_task(task)


@pytest.mark.usefixtures("registry")
def test_a_task_of_ones_own_loads_by_name_and_by_import_path(tmp_path: Path) -> None:
    path = tmp_path / "dense.safetensors"
    save_weights(path, build_teacher(DENSE_TASK, seed=3))
    register_task(replace(DENSE_TASK, name="mine", teacher_weights=str(path)))
    assert load_task("mine").spec.num_classes == DENSE_TASK.num_classes
    task = load_task("tests.own_networks:DENSE_TASK", teacher=str(path))
    assert isinstance(task.teacher_on(CPU), DenseNet)
    assert task.accuracy(task.teacher_on(CPU), CPU) is None


def test_a_task_without_a_teacher_asks_for_one() -> None:
    with pytest.raises(InvalidInputError, match="teacher="):
        load_task("tests.own_networks:DENSE_TASK")


# --- teachers ---


def test_another_architecture_needs_weights_of_its_own() -> None:
    with pytest.raises(InvalidInputError, match="teacher_arch='convnet' needs weights"):
        load_task("digits", teacher_arch="convnet")


def test_a_missing_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"teacher=.*does not exist"):
        load_task("digits", teacher=str(tmp_path / "none.safetensors"))


def test_a_teacher_of_ones_own_is_loaded_frozen(weights: Path) -> None:
    task = load_task("digits", teacher=str(weights), teacher_arch="convnet")
    teacher = task.teacher_on(CPU)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    saved = ConvNet(10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        saved = ConvNet(10)
    assert torch.equal(teacher.state_dict()["classifier.weight"], saved.classifier.weight)
    assert task.teacher_on(CPU) is teacher


def test_a_teacher_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", ConvNet(7))
    with pytest.raises(InvalidInputError, match=r"teacher=.*classifier.*\(7.*\(10"):
        load_task("digits", teacher=str(tmp_path / "w.safetensors"))


def test_a_teacher_whose_factory_ignores_the_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", DropoutNet(2))
    with pytest.raises(InvalidInputError, match=r"teacher_arch='tests\.own_networks:two_classes'.*number of classes"):
        load_task("digits", teacher=str(tmp_path / "w.safetensors"), teacher_arch="tests.own_networks:two_classes")


# --- students and generators ---


def test_a_student_and_a_generator_of_ones_own_are_built() -> None:
    task = load_task(
        "digits",
        student_arch="tests.own_networks:DropoutNet",
        generator_arch="tests.own_networks:plain_generator",
    )
    assert isinstance(task.build_student(0), DropoutNet)
    assert isinstance(task.build_generator(0), FlatGenerator)


@pytest.mark.parametrize("role", ["student", "generator"])
def test_networks_depend_on_the_seed_alone(role: str) -> None:
    build = getattr(load_task("digits"), f"build_{role}")
    torch.manual_seed(1)
    first = build(5)
    torch.manual_seed(2)
    second, other = build(5), build(6)
    parameters = [list(network.parameters()) for network in (first, second, other)]
    assert first is not second
    assert all(torch.equal(a, b) for a, b in zip(parameters[0], parameters[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(parameters[0], parameters[2], strict=True))


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ("resnet99", "unknown"),
        ("no_such_package:make", "imported"),
        ("tests.own_networks:no_arguments", "refused"),
        ("tests.own_networks:no_module", "returned list"),
        ("tests.own_networks:two_classes", "number of classes"),
        ("tests.own_networks:TiedNet", ""),  # takes vectors: its output on images has the wrong shape
        ("tests.own_networks:DictNet", ""),  # answers with a dictionary
    ],
)
def test_a_student_that_does_not_fit_is_refused(arch: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=f"student_arch='{arch}'.*{match}") as error:
        load_task("digits", student_arch=arch).build_student(0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ("gan", "unknown"),
        ("tests.own_networks:no_module", "returned list"),
        ("tests.own_networks:small_generator", "shape"),
        ("tests.own_networks:identity_generator", "shape"),
        ("tests.own_networks:deaf_generator", ""),  # fails on a latent vector
    ],
)
def test_a_generator_that_does_not_fit_is_refused(arch: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=f"generator_arch='{arch}'.*{match}") as error:
        load_task("digits", generator_arch=arch).build_generator(0)
    assert "\n" not in str(error.value)
