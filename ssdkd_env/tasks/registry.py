"""Tasks by name, loaded once a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.networks.checkpoints import load_weights
from ssdkd_env.networks.registry import resolve_import_path
from ssdkd_env.settings import with_overrides
from ssdkd_env.tasks.data import load_npz
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import Task, TaskSpec, build_teacher

TASKS: dict[str, TaskSpec] = {"digits": DIGITS}

_loaded: dict[str, Task] = {}


def register_task(spec: TaskSpec) -> None:
    """Make a task of your own known by its name, in this process."""
    TASKS[spec.name] = spec


def find_spec(task: str) -> TaskSpec:
    """The `TaskSpec` named `task`, or found at the import path `"package.module:spec"`.

    Raises:
        InvalidInputError: when there is none.
    """
    if ":" in task:
        spec = resolve_import_path("task", task)
        if not isinstance(spec, TaskSpec):
            raise InvalidInputError(f"task={task!r} is a {type(spec).__name__}, expected a ssdkd_env.tasks.TaskSpec")
        return spec
    check_choice("task", task, TASKS)
    return TASKS[task]


def load_task(
    task: str,
    teacher: str | None = None,
    teacher_arch: str | None = None,
    student_arch: str | None = None,
    generator_arch: str | None = None,
    budget: Mapping[str, Any] | None = None,
    student: Mapping[str, Any] | None = None,
    evaluation: str | None = None,
) -> Task:
    """Load a task and its teacher; equal arguments give the same object as long as the teacher's file is unchanged.

    Args:
        task: name in `TASKS`, or import path of a `TaskSpec`.
        teacher: weights file in place of the task's own.
        teacher_arch: network of that file, by name or import path; called with num_classes and in_channels.
        student_arch: the student's network, likewise.
        generator_arch: the generator's network, likewise; called with latent_dim and image_shape.
        budget: settings of the `Budget` to replace.
        student: settings of the `StudentSettings` to replace.
        evaluation: `.npz` of real images and labels in place of the task's own evaluation data.

    Raises:
        InvalidInputError: when anything is unknown, missing, unreadable or does not fit.
    """
    spec = find_spec(task)
    if teacher_arch is not None:
        if teacher is None:
            raise InvalidInputError(
                f"teacher_arch={teacher_arch!r} needs weights of its own; give teacher='path/to/weights.safetensors'"
            )
        spec = replace(spec, teacher_arch=teacher_arch, teacher_options={})
    if student_arch is not None:
        spec = replace(spec, student_arch=student_arch, student_options={})
    if generator_arch is not None:
        spec = replace(spec, generator_arch=generator_arch, generator_options={})
    spec = replace(
        spec,
        teacher_weights=teacher if teacher is not None else spec.teacher_weights,
        budget=with_overrides(spec.budget, "budget", budget),
        student=with_overrides(spec.student, "student", student),
        evaluation=partial(load_npz, "evaluation", evaluation) if evaluation is not None else spec.evaluation,
    )
    if not spec.teacher_weights:
        raise InvalidInputError(f"task {spec.name!r} ships no teacher; give teacher='path/to/weights.safetensors'")
    path = Path(spec.teacher_weights)
    stamps = [Path(file).stat().st_mtime_ns for file in (path, evaluation) if file and Path(file).is_file()]
    key = repr((spec, stamps))
    if key not in _loaded:
        network = build_teacher(spec, seed=0)
        load_weights("teacher", path, network)
        loaded = Task(spec, network)
        loaded.build_student(seed=0)  # refuses what does not fit here, not at the first reset
        loaded.build_generator(seed=0)
        if evaluation is not None:
            loaded.evaluation(torch.device("cpu"))
        _loaded[key] = loaded
    return _loaded[key]
