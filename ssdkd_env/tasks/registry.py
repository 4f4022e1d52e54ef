"""Tasks by name, and what is kept of them in memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ssdkd_env.distillation.costs import Costs
from ssdkd_env.distillation.methods import METHODS, make_method
from ssdkd_env.distillation.problem import Budget
from ssdkd_env.distillation.sizes import Sizes
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.networks.checkpoints import load_weights
from ssdkd_env.recent import Recent
from ssdkd_env.registry import Registry
from ssdkd_env.settings import is_finite_number, plain, with_overrides
from ssdkd_env.tasks.cards import with_card
from ssdkd_env.tasks.cifar import CIFAR10, CIFAR100
from ssdkd_env.tasks.data import find_dataset
from ssdkd_env.tasks.data.readers import read_both, read_split
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.fitness import check_trains
from ssdkd_env.tasks.normalization import check_normalization
from ssdkd_env.tasks.scenes import CAMVID, NYUV2
from ssdkd_env.tasks.task import Task, TaskSpec, build_teacher
from ssdkd_env.threads import one_at_a_time

TASKS: Registry[TaskSpec] = Registry(
    "task", TaskSpec, {spec.name: spec for spec in (DIGITS, CIFAR10, CIFAR100, CAMVID, NYUV2)}
)

#: The largest `work_scale`.
MOST_WORK = 1_000_000
#: Tasks that stay in memory though nobody uses them. Each may hold a data set; a set of instances is in use.
KEPT_TASKS = 8
#: Tasks with the budgets of their specs: those of other budgets share what these have in memory.
_loaded: Recent[str, Task] = Recent(KEPT_TASKS)
#: The first task of each teacher: later ones share it, as the instances of a set do.
_taught: Recent[str, Task] = Recent(KEPT_TASKS)


def with_real_data(spec: TaskSpec, data_root: str | Path | None) -> TaskSpec:
    """The spec with its real data, where `data_root` (else `SSDKD_DATA`) is given and the task names a data set.

    Raises:
        InvalidInputError: when `data_root` does not hold the data set, or the task names none. `SSDKD_DATA` without
            it only gives a warning, because no run needs real data.
    """
    if data_root is not None and not spec.dataset:
        raise InvalidInputError(
            f"data_root={str(data_root)!r}: task {spec.name!r} names no data set to be found there; leave it out"
        )
    try:
        source = find_dataset(spec.dataset, data_root) if spec.dataset else None
    except InvalidInputError as error:
        if data_root is not None:
            raise
        # The line that calls `load_task`, behind its decorator.
        warnings.warn(f"no accuracy on real images will be reported: {error}", stacklevel=4)
        return spec
    if source is None:
        return spec
    test = partial(read_split, "data_root", source, "test", spec)
    return replace(spec, evaluation=test, teacher_data=partial(read_both, "data_root", source, spec))


@one_at_a_time
def load_task(
    task: str,
    teacher: str | None = None,
    teacher_arch: str | None = None,
    teacher_weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    student_arch: str | None = None,
    generator_arch: str | None = None,
    budget: Mapping[str, Any] | None = None,
    student: Mapping[str, Any] | None = None,
    evaluation: str | None = None,
    buffer_scale: float | None = None,
    work_scale: float | None = None,
    data_root: str | None = None,
    probe: Mapping[str, Any] | None = None,
) -> Task:
    """Load a task and its teacher.

    As long as somebody holds it, and for a while after that, its networks and data are not loaded again: tasks whose
    arguments are equal but for the budget share them, and those of one teacher share that, until its file is changed.

    Args:
        task: name in `TASKS`, or import path of a `TaskSpec`.
        teacher: weights file in place of the task's own. A JSON card beside it says its network and normalisation.
        teacher_arch: network of that file, by name or import path; called with num_classes and in_channels, and with
            the options of its card where that names the same network.
        teacher_weights: key of the weights in that file, or "ema"; see `networks.weight_files.read_weights`.
        mean: what the teacher's inputs were normalised with, for each channel, in place of its card's, or the task's.
        std: likewise.
        student_arch: the student's network, likewise.
        generator_arch: the generator's network, likewise; called with latent_dim and image_shape.
        budget: settings of the `Budget` to replace; `"preset"` names one of the task's other budgets.
        student: settings of the `StudentSettings` to replace.
        evaluation: real images and labels (any form that `load_split` reads) in place of the task's own.
        buffer_scale: buffer capacity as a share of the task's `training_set_size`, in place of the budget's.
        work_scale: work of a run as a multiple of SSD-KD's with the task's own budget, or the preset, in place of the
            budget's rounds.
        data_root: folder with the task's real data; else `SSDKD_DATA`.
        probe: settings of the `ProbeSettings` to replace.

    Raises:
        InvalidInputError: when anything is unknown, missing, unreadable or does not fit.
    """
    buffer_scale, work_scale = plain(buffer_scale), plain(work_scale)
    spec = TASKS.find(task)
    _check_methods(spec)
    if teacher is not None:
        spec = with_card(spec, teacher, teacher_arch)
    for name, value in (("teacher_arch", teacher_arch), ("teacher_weights", teacher_weights)):
        if value is not None and teacher is None:
            raise InvalidInputError(
                f"{name}={value!r} needs weights of its own; give teacher='path/to/weights.safetensors'"
            )
    channels = spec.image_shape[0]
    if mean is not None:
        spec = replace(spec, mean=check_normalization("mean", mean, channels))
    if std is not None:
        spec = replace(spec, std=check_normalization("std", std, channels))
    if student_arch is not None:
        spec = replace(spec, student_arch=student_arch, student_options={})
    if generator_arch is not None:
        spec = replace(spec, generator_arch=generator_arch, generator_options={})
    wanted = _budget(spec, budget, buffer_scale)
    spec = replace(
        with_real_data(spec, data_root),
        teacher_weights=teacher if teacher is not None else spec.teacher_weights,
        weights_key=teacher_weights or "",
        student=with_overrides(spec.student, "student", student),
        probe=with_overrides(spec.probe, "probe", probe),
    )
    if evaluation is not None:
        spec = replace(spec, evaluation=partial(read_split, "evaluation", evaluation, "test", spec))
    if not spec.teacher_weights:
        raise InvalidInputError(
            f"task {spec.name!r} ships no teacher; give teacher='path/to/weights.safetensors', or train one: "
            f"ssdkd teacher --task {task} --data-root DATA --out runs/teacher"
        )
    _check_work_scale(work_scale, budget)
    if not isinstance(spec.teacher_weights, str | os.PathLike):
        raise InvalidInputError(f"teacher={spec.teacher_weights!r}: expected the path of a weights file")
    path = Path(spec.teacher_weights)
    stamps = [os.stat(file).st_mtime_ns for file in (path, evaluation) if file and os.path.isfile(file)]
    loaded = _loaded.get(repr((spec, stamps)), lambda: _load(spec, path, stamps)).with_budget(wanted)
    batch = min(wanted.batch_size, 2)  # of which a network either can learn, or more do not help
    # Refuses a student that does not fit, too.
    loaded.once(("trains", batch), lambda: check_trains("student", loaded.build_student(seed=0), spec, batch))
    loaded.evaluation(torch.device("cpu"))  # refuses what does not fit here, as `_load` does
    if work_scale is None:
        return loaded
    own = _budget(TASKS.find(task), _preset(budget), None)
    return loaded.with_budget(replace(wanted, work=max(round(work_scale * work_of(loaded, own)), 1)))


def _check_methods(spec: TaskSpec) -> None:
    """Refuse settings of methods that no preset knows.

    Raises:
        InvalidInputError: naming the task, the method and the setting.
    """
    try:
        if not isinstance(spec.methods, Mapping):
            raise InvalidInputError(f"methods={spec.methods!r}: expected settings by the name of a method")
        for name in spec.methods:
            check_choice("methods", name, METHODS)
            make_method(name, None, spec.methods)
    except InvalidInputError as error:
        raise InvalidInputError(f"task {spec.name!r}: {error}") from error


def _load(spec: TaskSpec, path: Path, stamps: list[int]) -> Task:
    """A task that has been checked.

    Args:
        spec: the description.
        path: of the teacher's weights.
        stamps: of the files, which tell a changed one from the one that was read.
    """

    def teach() -> Task:
        network = build_teacher(spec, seed=0)
        load_weights("teacher", path, network, spec.weights_key)
        return Task(spec, network)

    network_key = (spec.teacher_arch, spec.teacher_options, spec.image_shape, spec.num_classes, spec.weights_key)
    task = _taught.get(repr((network_key, path, stamps)), teach).with_spec(spec)
    task.build_generator(seed=0)  # refuses what does not fit at once, not at the first reset
    return task


def work_of(task: Task, budget: Budget) -> int:
    """Multiply-adds of a run of SSD-KD with this budget on the task's networks: the measure of `work_scale`."""
    method = task.make_method("ssdkd")
    return Costs.of(method, budget, Sizes.of(method, budget, task), task).whole(budget)


def _check_work_scale(work_scale: Any, budget: Mapping[str, Any] | None) -> None:
    given = budget if isinstance(budget, Mapping) else {}
    if work_scale is not None:
        if not is_finite_number(work_scale) or not 0 < work_scale <= MOST_WORK:
            raise InvalidInputError(
                f"work_scale={work_scale!r}: expected a number above 0 and at most {MOST_WORK:,}, such as 1.0"
            )
        if "work" in given:
            raise InvalidInputError("work_scale and budget['work'] say the same; give one of them")
    if "rounds" in given and (work_scale is not None or given.get("work")):
        amount = "budget['work']" if work_scale is None else "work_scale"
        raise InvalidInputError(f"budget['rounds'] and {amount} both say how long a run is; give one of them")


def _preset(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """What settings of a budget say of the budget that they change."""
    return {name: value for name, value in (settings or {}).items() if name == "preset"}


def _budget(spec: TaskSpec, settings: Mapping[str, Any] | None, buffer_scale: float | None) -> Budget:
    """The task's budget, or a named one, with some settings replaced."""
    budget = spec.budget
    if isinstance(settings, Mapping) and "preset" in settings:
        settings = dict(settings)
        if not spec.budgets:
            raise InvalidInputError(f"budget['preset']: task {spec.name!r} has one budget only; leave the preset out")
        name = check_choice("budget['preset']", settings.pop("preset"), spec.budgets)
        budget = with_overrides(budget, f"budgets[{name!r}]", spec.budgets[name])
    budget = with_overrides(budget, "budget", settings)
    if buffer_scale is None:
        return budget
    if not spec.training_set_size:
        raise InvalidInputError(
            f"buffer_scale={buffer_scale}: task {spec.name!r} does not say how many images its teacher was trained on; "
            "give budget={'buffer_capacity': ...} instead"
        )
    if not is_finite_number(buffer_scale) or not 0 < buffer_scale <= 1:
        raise InvalidInputError(f"buffer_scale={buffer_scale!r}: expected a share in (0, 1], such as 0.1")
    if settings and "buffer_capacity" in settings:
        raise InvalidInputError("buffer_scale and budget['buffer_capacity'] say the same; give one of them")
    return replace(budget, buffer_capacity=max(round(buffer_scale * spec.training_set_size), 1))
