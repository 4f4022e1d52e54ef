"""A task's teacher, its evaluation data, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Task, TaskSpec, load_task
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import build_teacher, check_images
from ssdkd_env.tasks.void import VOID
from tests.own_networks import DENSE_TASK

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Says class 0 of a dark image (or pixel) and class 1 of a bright one."""

    def __init__(self, dense: bool = False) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean(dim=1) if self.dense else images.mean(dim=(1, 2, 3))
        silence = torch.full_like(level, -10.0)
        return torch.stack([-level, level, silence, silence], dim=1)


def spec_with(images: Tensor, labels: Tensor) -> TaskSpec:
    return replace(DENSE_TASK, mean=(0.5,) * 3, std=(0.25,) * 3, evaluation=lambda: (images, labels))


def task_with(images: Tensor, labels: Tensor) -> Task:
    spec = spec_with(images, labels)
    return Task(spec, Brightness(dense=labels.dim() == 3))


def test_accuracy_is_the_share_of_right_answers() -> None:
    images = torch.tensor([0, 255, 0, 255, 255], dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    task = task_with(images, torch.tensor([0, 1, 1, 1, 0]))
    assert task.accuracy(Brightness(), "cpu") == pytest.approx(3 / 5)


def test_accuracy_of_dense_predictions_counts_pixels() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, :, :4] = 255
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[0, :4, :4] = 1
    assert task_with(images, labels).accuracy(Brightness(dense=True), CPU) == pytest.approx(1 - 16 / 128)


def test_void_pixels_do_not_count() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, :, :4] = 255
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[0, :4, :4] = 1
    labels[0, :4, 4:] = VOID
    assert task_with(images, labels).accuracy(Brightness(dense=True), CPU) == 1.0
    labels[1] = VOID
    labels[0] = VOID
    assert task_with(images, labels).accuracy(Brightness(dense=True), CPU) == 0.0, "and there is no division by none"


def test_dense_task_refuses_a_teacher_of_whole_images() -> None:
    with pytest.raises(InvalidInputError, match=r"answers once an image, task 'tiny-segmentation' is dense; give one"):
        Task(replace(DENSE_TASK, dense=True), Brightness())
    assert Task(replace(DENSE_TASK, dense=True), Brightness(dense=True)).dense


def test_accuracy_does_not_depend_on_the_size_of_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("digits")
    teacher = task.teacher_on(CPU)
    whole = task.accuracy(teacher, CPU)
    monkeypatch.setattr("ssdkd_env.distillation.forward.FORWARD_CHUNK", 100)
    assert task.accuracy(teacher, CPU) == whole
    assert whole is not None
    assert whole >= 0.98


def test_a_task_without_real_data_reports_no_accuracy() -> None:
    task = Task(DENSE_TASK, build_teacher(DENSE_TASK, seed=0))
    assert task.evaluation(CPU) is None
    assert task.accuracy(Brightness(), CPU) is None


def test_bad_evaluation_data_are_refused() -> None:
    task = task_with(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 4]))
    with pytest.raises(InvalidInputError, match="evaluation data"):
        task.accuracy(Brightness(), CPU)


def test_a_task_freezes_its_teacher() -> None:
    teacher = build_teacher(DENSE_TASK, seed=0).train()
    task = Task(DENSE_TASK, teacher)
    assert task.teacher_on(CPU) is teacher
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_that_cannot_take_the_images_is_refused() -> None:
    spec = replace(DENSE_TASK, image_shape=(1, 8, 8), mean=(0.5,), std=(0.5,))
    with pytest.raises(InvalidInputError, match=r"teacher_arch=.*\(1, 8, 8\)") as error:
        Task(spec, build_teacher(DENSE_TASK, seed=0))
    assert "\n" not in str(error.value)


class Raising(nn.Module):
    """Cannot take what it is given, as layers and assertions of others say it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Expected more than 1 spatial element when training"),  # of InstanceNorm
        IndexError("Dimension out of range"),  # of flatten
        AssertionError("Input image height (8) doesn't match model (224)."),  # of timm and torchvision
        TypeError("forward() missing an argument"),
        AttributeError("'tuple' object has no attribute 'mean'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_network_raises_on_images_is_said_of_it(error: Exception) -> None:
    with pytest.raises(InvalidInputError, match=r"teacher_arch=.*cannot take images of shape") as caught:
        Task(DENSE_TASK, Raising(error))
    assert str(error) in str(caught.value)


def test_a_teacher_that_answers_with_nan_is_refused() -> None:
    teacher = build_teacher(DIGITS, seed=0)
    next(layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)).running_var.neg_()  # type: ignore[union-attr]
    with pytest.raises(InvalidInputError, match=r"teacher_arch='convnet' answers with NaN .*running_var below 0"):
        Task(DIGITS, teacher)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"padding": -1}, "padding=-1: expected a whole number of pixels from 0 to 7"),
        ({"padding": 8}, "padding=8: expected"),
        ({"padding": 1.5}, "padding=1.5: expected"),
        ({"image_shape": (8, 8)}, r"image_shape=\(8, 8\): expected channels, height and width"),
        ({"image_shape": (1, 0, 8)}, "image_shape"),
        ({"num_classes": 0}, "num_classes=0: expected a whole number of at least 1"),
        ({"num_classes": "10"}, "num_classes='10'"),
    ],
)
def test_sizes_that_no_images_have_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=f"task 'digits': {match}"):
        replace(DIGITS, **change)


@pytest.mark.parametrize("found", [None, torch.zeros(2), (torch.zeros(2),), (np.zeros((2, 1, 8, 8)), np.zeros(2))])
def test_evaluation_data_that_are_no_pair_of_tensors_are_refused(found: Any) -> None:
    task = Task(replace(DIGITS, evaluation=lambda: found), build_teacher(DIGITS, seed=0))
    with pytest.raises(InvalidInputError, match=r"evaluation of the task gives a .*, expected two tensors"):
        task.evaluation(CPU)


@pytest.mark.parametrize("role", ["teacher", "student", "generator"])
def test_a_network_that_views_feature_maps_is_told_what_to_call_instead(role: str) -> None:
    name = "tests.own_networks:" + ("view_generator" if role == "generator" else "ViewNet")
    own: dict[str, Any] = {f"{role}_arch": name, f"{role}_options": {}}
    spec = replace(DIGITS, **own)

    def build() -> None:
        task = Task(spec, build_teacher(spec, seed=0))
        task.build_student(0)
        task.build_generator(0)

    with pytest.raises(InvalidInputError) as error:
        build()
    assert str(error.value) == (
        f"{role}_arch={name!r} calls .view on feature maps, which lie channels last here and then have no such view; "
        "call .flatten(1) or .reshape in its forward"
    )


def test_a_teacher_with_other_classes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"teacher_arch=.*number of classes"):
        Task(replace(DENSE_TASK, num_classes=5), build_teacher(DENSE_TASK, seed=0))


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "no images"),
        (torch.zeros(2, 1, 8, 9, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"8, 9.*needs \(N, 1, 8, 8\)"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "needs"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), "float32.*uint8"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "2 images but 3 labels"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 10]), "0 to 10.*0 to 9"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([-1, 5]), "-1 to 5"),
    ],
)
def test_images_that_do_not_fit_the_task_are_refused(images: Tensor, labels: Tensor, match: str) -> None:
    with pytest.raises(InvalidInputError, match=f"my images: .*{match}") as error:
        check_images("my images", images, labels, DIGITS)
    assert "\n" not in str(error.value)


def test_images_that_fit_are_accepted() -> None:
    check_images("x", torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([9]), DIGITS)
    dense_labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    check_images("x", torch.zeros(1, 3, 8, 8, dtype=torch.uint8), dense_labels, DENSE_TASK, label_dims=3)
    dense_labels[0, 0, 0] = VOID
    check_images("x", torch.zeros(1, 3, 8, 8, dtype=torch.uint8), dense_labels, DENSE_TASK, label_dims=3)


def test_a_constant_network_has_the_accuracy_of_its_class() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.eye(10)[3].expand(len(images), -1)

    task = load_task("digits")
    data = task.evaluation(CPU)
    assert data is not None
    share = (data[1] == 3).double().mean().item()
    accuracy = task.accuracy(Constant(), CPU)
    assert accuracy is not None
    assert math.isclose(accuracy, share, rel_tol=1e-6)
