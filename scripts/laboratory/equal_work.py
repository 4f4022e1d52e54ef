"""Two sides that do the same work beside each other: what a round is, counting it, and our engine as one side."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from laboratory.common import timed
from ssdkd_env.distillation import DistillationRun, make_method
from ssdkd_env.tasks import Task
from ssdkd_env.tasks.cifar import CIFAR10
from ssdkd_env.tasks.task import build_teacher

#: Rounds of the schedules: more than are measured, so that no side resets its generator's first layer meanwhile.
ROUNDS = 10_000


@dataclass(frozen=True)
class Round:
    """What both sides do in a round, on images (3, 32, 32) of 10 classes.

    Attributes:
        teacher_arch: the teacher's network, by name or import path.
        student_arch: the student's.
        generator_channels: width of the standard generator.
        candidates: images that are synthesised.
        inversion_steps: optimiser steps on them.
        student_steps: student minibatches.
        batch_size: images a student minibatch.
        measured: most images of the memory that ours measures anew after a round, for its sampling plan; theirs has
            nothing of the kind.
    """

    teacher_arch: str = "resnet20"
    student_arch: str = "resnet8"
    generator_channels: int = 128
    candidates: int = 128
    inversion_steps: int = 5
    student_steps: int = 25
    batch_size: int = 128
    measured: int = 5000

    def work(self) -> dict[str, int]:
        """Images through each network that both sides must show, as `WorkCounter` names them."""
        inversion, distillation = self.inversion_steps * self.candidates, self.student_steps * self.batch_size
        places = dict.fromkeys(("generator, inversion", "teacher, inversion", "student, adversary"), inversion)
        places |= {"student, distillation": distillation}
        backward = {f"{place}, backward": images for place, images in places.items()}
        return places | backward | {"teacher, answers": distillation}

    def task(self) -> Task:
        """CIFAR-10's task with these networks; the teacher's weights are random, which no time depends on.

        Raises:
            InvalidInputError: when a network is unknown.
        """
        budget = replace(
            CIFAR10.budget,
            rounds=ROUNDS,
            warmup_rounds=1,
            candidates=self.candidates,
            inversion_steps=self.inversion_steps,
            student_steps=self.student_steps,
            batch_size=self.batch_size,
            buffer_capacity=self.measured,
        )
        spec = replace(
            CIFAR10,
            teacher_arch=self.teacher_arch,
            student_arch=self.student_arch,
            generator_options={"channels": self.generator_channels},
            budget=budget,
        )
        task = Task(spec, build_teacher(spec, 0))
        task.build_student(0)  # refuses what does not fit here, before anything is measured
        task.build_generator(0)
        return task


class Seconds(NamedTuple):
    """Wall time of a round: making images and putting them into the memory; the minibatches and what else there is."""

    synthesis: float
    student: float

    @property
    def total(self) -> float:
        """Both."""
        return self.synthesis + self.student


class WorkCounter:
    """Counts the images that pass through networks inside `counting`, forward and backward.

    Args:
        teachers: teacher, in every form in which it answers.
        students: the student, in every form; told by its mode: it trains in distillation, and is evaluated as adversary
            or when it is measured.
        generator: counted with all networks of its class, because both sides work on clones.

    Attributes:
        images: place → images.
        dtypes: of all outputs.
    """

    def __init__(self, teachers: list[nn.Module], students: list[nn.Module], generator: type[nn.Module]) -> None:
        self._teachers, self._students = {id(teacher) for teacher in teachers}, {id(student) for student in students}
        self._generator = generator
        self.images: Counter[str] = Counter()
        self.dtypes: set[str] = set()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count inside this block."""
        handle = register_module_forward_hook(self._count)
        try:
            yield
        finally:
            handle.remove()

    def _count(self, module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or (place := self._place(module, output.requires_grad)) is None:
            return
        self.images[place] += len(output)
        self.dtypes.add(str(output.dtype))
        if output.requires_grad:
            output.register_hook(lambda gradient: self.images.update({f"{place}, backward": len(gradient)}))

    def _place(self, module: nn.Module, differentiated: bool) -> str | None:
        if id(module) in self._teachers:
            return "teacher, inversion" if differentiated else "teacher, answers"
        if id(module) in self._students:
            if module.training:
                return "student, distillation"
            return "student, adversary" if differentiated else "student, measuring"
        if type(module) is self._generator:
            return "generator, inversion" if differentiated else "generator, drawing"
        return None


#: Passes without gradient that ours does beyond the common work, and why.
EXTRA = {
    "generator, drawing": "ours draws the batch after its last step; theirs keeps its best step's",
    "teacher, answers": "ours measures the new images",
    "student, measuring": "ours measures the new images, and after the round the memory, for its sampling plan",
}


def unequal_work(
    side: str,
    counted: WorkCounter,
    expected: Mapping[str, int],
    extra: Collection[str] = (),
    in_float32: bool = True,
) -> list[str]:
    """Where a side did other work in a round than `Round.work()` expects; empty when it did the same.

    Args:
        side: its name.
        counted: in one round.
        expected: place → images.
        extra: places at which it may do more.
        in_float32: no network may answer in another type.
    """
    problems = []
    for place in sorted({*expected, *counted.images}):
        images, wanted = counted.images[place], expected.get(place, 0)
        if images < wanted or (images > wanted and place not in extra):
            problems.append(f"{side}: {images} images at the place '{place}', expected {wanted}")
    if in_float32 and counted.dtypes != {"torch.float32"}:
        problems.append(f"{side}: computes in {', '.join(sorted(counted.dtypes))}, expected torch.float32")
    return problems


def filler_images(count: int, seed: int = 0) -> Tensor:
    """Smooth random images (count, 3, 32, 32) uint8: as easily packed as what generators make."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 8, 8), generator=random, dtype=torch.uint8)
    return torch.cat([F.interpolate(part, scale_factor=4.0, mode="bilinear") for part in coarse.split(1024)])


class OurSide:
    """Our engine with a pool of a fixed number of images.

    Args:
        size: the work of a round.
        task: made by `size.task()`.
        pool: images in the memory when the student studies.
        device: where.
        precision: of the engine.
    """

    def __init__(self, size: Round, task: Task, pool: int, device: torch.device, precision: str = "float32") -> None:
        self.task, self.device = task, device
        method = make_method("fast5", {"steps": size.inversion_steps, "pool_capacity": pool})
        self.run = DistillationRun(task, method, seed=0, device=device, precision=precision)
        self.first_student = copy.deepcopy(self.run.student)
        self.run.warm_up()
        made = self.run.buffer.residents
        rows = torch.arange(pool - len(made), device=device) % len(made)
        fillers = replace(made.rows(rows), images=filler_images(len(rows)).to(device))
        self.run.buffer.update(fillers, torch.zeros(pool, dtype=torch.float64, device=device), most_replaced=0)
        self.diverged = False

    @property
    def memory(self) -> int:
        """Images that the student studies."""
        return len(self.run.buffer)

    def counter(self) -> WorkCounter:
        """Of this side's networks."""
        teachers = [self.task.teacher_on(self.device), self.task.teacher_on(self.device, folded=True)]
        students = [self.run.student, self.run._answering.network]
        return WorkCounter(teachers, students, type(self.task.build_generator(0)))

    def round(self) -> Seconds:
        """One round."""
        report, seconds = timed(self.device, lambda: self.run.step(self.run.method.own_plan))
        self.diverged = report.diverged
        return Seconds(report.seconds_synthesis, seconds - report.seconds_synthesis)
