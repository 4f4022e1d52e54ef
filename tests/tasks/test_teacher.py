"""Training a small teacher on some real digits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Task
from ssdkd_env.tasks.digits import DIGITS, split_digits
from ssdkd_env.tasks.task import LabelledImages
from ssdkd_env.tasks.teacher import TeacherSettings, train_teacher

CPU = torch.device("cpu")
SMALL = replace(DIGITS, teacher_options={"channels": (8, 16)})


def some_digits(count: int) -> LabelledImages:
    (images, labels), _ = split_digits()
    return images[:count], labels[:count]


def test_a_teacher_learns_and_reports_its_epochs() -> None:
    seen: list[tuple[int, float]] = []
    teacher = train_teacher(
        SMALL,
        some_digits(600),
        TeacherSettings(epochs=8, batch_size=16),
        CPU,
        lambda epoch, loss: seen.append((epoch, loss)),
    )
    assert [epoch for epoch, _ in seen] == list(range(1, 9))
    assert all(math.isfinite(loss) for _, loss in seen)
    assert seen[-1][1] < 0.5 * seen[0][1]
    assert not teacher.training
    accuracy = Task(SMALL, teacher).accuracy(teacher, CPU)
    assert accuracy is not None
    assert accuracy > 0.6


@pytest.mark.parametrize("count", [200, 20])  # fewer images than a minibatch holds, too
def test_one_seed_gives_one_teacher(count: int) -> None:
    teachers = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(global_seed)
        teacher = train_teacher(SMALL, some_digits(count), TeacherSettings(epochs=1, seed=seed), CPU)
        teachers.append(list(teacher.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(teachers[0], teachers[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(teachers[0], teachers[2], strict=True))


def test_a_learning_rate_that_diverges_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"lr=1e\+30"):
        train_teacher(SMALL, some_digits(200), TeacherSettings(epochs=3, lr=1e30), CPU)


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"batch_size": 0}, {"epochs": -1}])
def test_settings_without_work_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(setting))):
        TeacherSettings(**setting)


def test_data_that_do_not_fit_are_refused() -> None:
    images, labels = some_digits(10)
    with pytest.raises(InvalidInputError, match="training data"):
        train_teacher(SMALL, (images, labels + 1), TeacherSettings(epochs=1), CPU)
