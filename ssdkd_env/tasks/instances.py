"""Instance sets: families of like tasks, of which an episode draws one. Ours, not the paper's.

A sampler that is trained on a set and judged on another is tested for what carries over, not for what it has learnt by
heart. The sets are grids of teacher, student, buffer scale and budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.registry import Registry
from ssdkd_env.tasks.digits import ASSETS

#: What an instance may choose, by the names of `load_task`'s arguments; beside these, settings of the budget.
CHOSEN = ("teacher", "student_arch", "buffer_scale", "work_scale")


@dataclass(frozen=True)
class Instance:
    """One task of a set: what differs from the base task, as arguments of `load_task`.

    Attributes:
        teacher: weights file with a card beside it; None is the task's own.
        student_arch: by name or import path; None is the task's own.
        buffer_scale: capacity of the buffer as a share of the training set; None is the budget's.
        budget: settings of the budget to replace.
        work_scale: of the task's own work; None counts the budget's rounds.
    """

    teacher: str | None = None
    student_arch: str | None = None
    buffer_scale: float | None = None
    budget: Mapping[str, int] = field(default_factory=dict)
    work_scale: float | None = None

    def over(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `load_task`, or of an environment, with what this instance chooses in their place."""
        own = self._chosen
        shared = arguments.get("budget") or {}
        if self.budget and isinstance(shared, Mapping):  # what is none is refused by `load_task`
            own["budget"] = {**shared, **self.budget}
        return {**arguments, **own}

    @property
    def settings(self) -> dict[str, Any]:
        """What this instance chooses, settings of the budget beside the rest."""
        return self._chosen | dict(self.budget)

    @property
    def _chosen(self) -> dict[str, Any]:
        return {name: value for name in CHOSEN if (value := getattr(self, name)) is not None}


def differing(instances: Sequence[Instance]) -> list[str]:
    """Names of `Instance.settings` that have several values among instances, or none in some."""
    settings = [each.settings for each in instances]
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({each.get(name) for each in settings}) > 1]


@dataclass(frozen=True)
class InstanceSet:
    """A family of tasks.

    Attributes:
        about: what it is for.
        task: name of the base task.
        instances: its members, equally likely.
    """

    about: str
    task: str
    instances: tuple[Instance, ...]


def grid(
    teachers: Sequence[str | None],
    students: Sequence[str | None],
    buffer_scales: Sequence[float | None],
    rounds: Sequence[int],
) -> tuple[Instance, ...]:
    """Every combination."""
    combinations = product(teachers, students, buffer_scales, rounds)
    return tuple(
        Instance(teacher, student, scale, {"rounds": count}) for teacher, student, scale, count in combinations
    )


def crossed(
    teachers: Sequence[str | None],
    students: Sequence[str | None],
    buffer_scales: Sequence[float],
    work_scales: Sequence[float],
    warm_ups: Sequence[int] = (),
    times: int = 1,
) -> tuple[Instance, ...]:
    """Every buffer with every amount of work and every warm-up, each with a teacher and a student in turn.

    A whole grid of all five would be many times as long, and an oracle has to search each of its instances.

    Args:
        teachers: weights files; None is the task's own.
        students: by name or import path.
        buffer_scales: capacities of the buffer as shares of the training set.
        work_scales: of the task's own work.
        warm_ups: batches of the warm-up; none leaves them to the budget.
        times: how often all of it is gone through, with other teachers and students.
    """
    columns = list(product(work_scales, [{"warmup_rounds": count} for count in warm_ups] or [{}]))
    instances: list[Instance] = []
    for turn in range(times):
        for row, scale in enumerate(buffer_scales):
            for column, (work, budget) in enumerate(columns):
                teacher = teachers[len(instances) % len(teachers)]
                # Moved on from row to row, so that no student meets one amount of work alone.
                student = students[(turn + row + column) % len(students)]
                instances.append(Instance(teacher, student, scale, budget, work_scale=work))
    return tuple(instances)


def _digits(*names: str) -> list[str | None]:
    return [str(ASSETS / f"digits_teacher{name}.safetensors") for name in names]


INSTANCE_SETS: Registry[InstanceSet] = Registry(
    "instances",
    InstanceSet,
    {
        "digits-train": InstanceSet(
            "to train a sampler on: three teachers, three students, three buffers, two budgets",
            "digits",
            grid([None, *_digits("_b", "_wide")], ("convnet6", "convnet8", "convnet12"), (0.05, 0.1, 0.2), (12, 16)),
        ),
        "digits-test": InstanceSet(
            "held out, between what was trained on: no teacher, student, buffer or budget of digits-train",
            "digits",
            grid(_digits("_narrow"), ("convnet10",), (0.075, 0.15), (14,)),
        ),
        "digits-far": InstanceSet(
            "held out, beyond what was trained on: a larger student, smaller and larger buffers, shorter and longer "
            "budgets",
            "digits",
            grid(_digits("_narrow"), ("convnet16",), (0.025, 0.4), (8, 24)),
        ),
        "digits-work-train": InstanceSet(
            "to train a sampler on that divides the work: memories and generators that are hardly begun or well made, "
            "very small and large buffers, little work, and teachers of equal, long-tailed and stepped classes",
            "digits",
            crossed(
                [None, *_digits("_tail", "_wide", "_step", "_b")],
                ("convnet6", "convnet8", "convnet12"),
                (0.01, 0.05, 0.2),
                (0.45, 0.7),
                (1, 12),
                times=2,
            ),
        ),
        "digits-work-test": InstanceSet(
            "held out, between what was trained on: no teacher, student, buffer, warm-up or amount of work of "
            "digits-work-train",
            "digits",
            crossed(
                _digits("_narrow", "_narrow_tail", "_narrow_step"),
                ("convnet10",),
                (0.015, 0.03, 0.08, 0.15),
                (0.5, 0.6),
                (2, 8),
                times=3,
            ),
        ),
        "digits-work-far": InstanceSet(
            "held out, beyond what was trained on: a smaller and a larger buffer, less work and more, longer warm-ups, "
            "a larger student",
            "digits",
            crossed(
                _digits("_far", "_far_tail", "_far_step"),
                ("convnet16",),
                (0.005, 0.4),
                (0.42, 1.2),
                (14, 18),
                times=3,
            ),
        ),
    },
)


def find_instances(name: str, task: str) -> tuple[Instance, ...]:
    """The instances of a set by name, or at the import path `"package.module:set"`.

    Args:
        name: of the set.
        task: that it must belong to.

    Raises:
        InvalidInputError: when there is none, it is empty, or it belongs to another task.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"instances={name!r}: expected a name such as 'digits-train', or an import path")
    members = INSTANCE_SETS.find(name)
    if members.task != task:
        raise InvalidInputError(f"instances={name!r} belong to task {members.task!r}, not to {task!r}; leave one out")
    if not members.instances:
        raise InvalidInputError(f"instances={name!r} is empty; give it at least one Instance")
    return members.instances
