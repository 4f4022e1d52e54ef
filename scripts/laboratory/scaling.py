"""How the seconds and the memory of a round grow with the buffer, the candidates, the classes and the student."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.machine import MIB, forget_peak_memory, peak_memory_mib
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from laboratory.growth import FEWEST_SIZES, Growth, fit_growth, power
from laboratory.machine import kernel_bytes
from ssdkd_env.distillation import SamplingPlan, priority
from ssdkd_env.distillation.buffer import Entries, ReplayBuffer
from ssdkd_env.distillation.methods import METHODS
from ssdkd_env.distillation.report import Distillation, RoundClock, Synthesis, make_report
from ssdkd_env.distillation.sampling import log_weights, replacement_keys
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.cifar import CIFAR10
from ssdkd_env.tasks.task import Task, build_teacher

CPU = torch.device("cpu")
IMAGE_SHAPE = CIFAR10.image_shape
#: The sizes that are measured.
BUFFERS = (180, 1000, 5000, 20_000, 50_000, 200_000, 1_000_000)
CANDIDATES = (16, 32, 64, 128, 256, 512, 1024)
CLASSES = (10, 100, 1000, 3000, 10_000)
STUDENTS = ("resnet8", "resnet20", "resnet32", "resnet56")
#: Student minibatches whose images are drawn in one call, as in the protocol of CIFAR-10.
MINIBATCHES = CIFAR10.budget.student_steps
#: Images that are gathered from the buffer at once, about as many as the teacher answers for in one pass.
GATHERED = 512
#: A buffer is filled in so many parts.
FILLS = 16
#: Bytes an image that a round needs beside the buffer, a generous guess, and what else shall stay free.
ROUND_BYTES, SPARE_BYTES = 512, 1 << 30


@dataclass(frozen=True)
class Point:
    """One size of a sweep.

    Attributes:
        size: of what grows.
        images, candidates, classes: of the buffer's round.
        student: architecture, where a student's step is measured in place of a buffer's round.
    """

    size: int
    images: int = 5000
    candidates: int = 256
    classes: int = 10
    student: str = ""

    @property
    def image_bytes(self) -> int:
        """Bytes of an image in the buffer: pixels, logits and class shares, four float32 values and a round."""
        return math.prod(IMAGE_SHAPE) + 2 * 4 * self.classes + 4 * 4 + 8


@dataclass(frozen=True)
class Sweep:
    """What grows, the parts of a round whose time it is held against, and the sizes, smallest first."""

    unit: str
    parts: tuple[str, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Measurement:
    """One point, measured.

    Attributes:
        cpu, wall: part → seconds of each repeat, of this process on the processor and on the clock.
        nbytes: of the buffer; for a student, of its parameters, gradients and momenta.
        expected_bytes: the same by arithmetic.
        peak_memory_mib: of the process while it was measured.
        grown_mib: the same, above what the process had before the point was set up.
    """

    point: Point
    cpu: dict[str, list[float]]
    wall: dict[str, list[float]]
    nbytes: int
    expected_bytes: int
    peak_memory_mib: float
    grown_mib: float

    def line(self, sweep: str) -> dict[str, Any]:
        """As JSON."""
        return {"sweep": sweep} | asdict(self)


class Stopwatch:
    """Collects the seconds of named parts, of the process and on the clock."""

    def __init__(self) -> None:
        self.cpu: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.cpu.setdefault(name, []).append(cpu)
        self.wall.setdefault(name, []).append(wall)


def make_sweeps(largest: int) -> dict[str, Sweep]:
    """The four sweeps by name.

    Args:
        largest: images of the largest buffer; larger ones are left out.

    Raises:
        InvalidInputError: when too few buffers are left to fit a growth to.
    """
    smallest = BUFFERS[FEWEST_SIZES - 1]
    if largest < smallest:
        raise InvalidInputError(
            f"--largest {largest}: expected at least {smallest}, so that {FEWEST_SIZES} buffers are "
            "there to fit the growth to"
        )
    return {
        "buffer": Sweep(
            "images in the buffer",
            ("weigh", "update", "probabilities", "draw", "gather", "report"),
            tuple(Point(size, images=size) for size in BUFFERS if size <= largest),
        ),
        "candidates": Sweep(
            "candidates", ("weigh", "update"), tuple(Point(size, candidates=size) for size in CANDIDATES)
        ),
        "classes": Sweep(
            "classes",
            ("weigh", "update", "report"),
            tuple(Point(size, classes=size) for size in CLASSES),
        ),
        "student": Sweep(
            "multiply-adds of the student",
            ("step",),
            tuple(Point(multiply_adds(_student(arch)), student=arch) for arch in STUDENTS),
        ),
    }


def check_memory(name: str, sweep: Sweep) -> None:
    """See to it that the largest buffer of a sweep fits into memory with room to spare, where the system tells.

    Raises:
        InvalidInputError: when it does not.
    """
    available = available_bytes()
    point = max(sweep.points, key=lambda point: point.images * point.image_bytes)
    needed = math.ceil(point.images * (point.image_bytes * (1 + 1 / FILLS) + ROUND_BYTES)) + SPARE_BYTES
    if available is None or needed <= available:
        return
    short = f"needs {needed / 2**30:.1f} GiB of memory with room to spare, {available / 2**30:.1f} GiB are available"
    if name == "buffer":
        raise InvalidInputError(f"--largest {point.size} {short}; give a smaller --largest")
    raise InvalidInputError(f"--sweeps {name} {short}; leave it out of --sweeps")


def available_bytes() -> int | None:
    """Memory that a process can still have without swapping; None where the system does not tell (only Linux does)."""
    return kernel_bytes("/proc/meminfo", "MemAvailable")


def measure_point(point: Point, repeats: int, batch_size: int) -> Measurement:
    """Time the parts of a round, or a student's step, at one size.

    Args:
        point: the sizes.
        repeats: of the timed parts, after one that is not kept.
        batch_size: images a student minibatch.
    """
    forget_peak_memory(CPU)
    before = peak_memory_mib()
    sample = StudentSteps(point, batch_size) if point.student else BufferRounds(point, batch_size)
    sample.once(Stopwatch())
    forget_peak_memory(CPU)
    watch = Stopwatch()
    for _ in range(repeats):
        sample.once(watch)
    peak = peak_memory_mib()
    return Measurement(point, watch.cpu, watch.wall, sample.nbytes, sample.expected_bytes, peak, peak - before)


class BufferRounds:
    """What a `DistillationRun` does with its buffer in a round, in the same order, without the networks.

    Values are noise: what a round costs does not depend on them. The same candidates come back every round.

    Args:
        point: the sizes.
        batch_size: images a student minibatch.

    Attributes:
        buffer: full from the start.
        nbytes, expected_bytes: of the buffer, as it is and by arithmetic.
    """

    def __init__(self, point: Point, batch_size: int) -> None:
        self._random = torch.Generator().manual_seed(0)
        self._batch_size = batch_size
        self._candidates = self._noise(point.candidates, point.classes)
        self.buffer = ReplayBuffer(point.images, IMAGE_SHAPE, point.classes, CPU)
        some = self._noise(math.ceil(point.images / FILLS), point.classes)
        while self.buffer.free:
            filling = some.rows(slice(0, self.buffer.free))
            self.buffer.update(filling, torch.zeros(len(self.buffer) + len(filling)), most_replaced=0)
        residents = self.buffer.residents  # the fillings are alike; equal values would spare a sort some work
        residents.discrepancy.exponential_(generator=self._random)
        residents.confidence.uniform_(1 / point.classes, 1, generator=self._random)
        self.nbytes, self.expected_bytes = self.buffer.nbytes, point.images * point.image_bytes

    def _noise(self, count: int, classes: int) -> Entries:
        logits = torch.randn(count, classes, generator=self._random)
        return Entries(
            images=torch.randint(256, (count, *IMAGE_SHAPE), dtype=torch.uint8, generator=self._random),
            teacher_logits=logits,
            class_share=priority.class_share(logits),
            confidence=priority.confidence(logits),
            discrepancy=torch.empty(count).exponential_(generator=self._random),
            importance_weight=torch.ones(count),
            born=torch.zeros(count, dtype=torch.int64),
        )

    def once(self, watch: Stopwatch) -> None:
        """One round: `weigh`, `update`, `probabilities`, `draw`, `gather` and `report`."""
        plan, buffer, candidates, residents = SamplingPlan(), self.buffer, self._candidates, self.buffer.residents
        with watch.part("weigh"):
            weights = log_weights(plan, buffer.mean_class_share(), residents, candidates)
        with watch.part("update"):
            keys = replacement_keys(weights, self._random)
            update = buffer.update(candidates, keys, math.floor(plan.replaced_share * buffer.capacity))
        with watch.part("probabilities"):
            probabilities = priority.sampling_probabilities(weights[update.rows])
            residents.importance_weight.copy_(priority.importance_weights(probabilities, plan.importance_exponent))
        with watch.part("draw"):
            draws = priority.draw_with_replacement(probabilities, MINIBATCHES * self._batch_size, self._random)
        with watch.part("gather"):
            chunk = draws[:GATHERED]
            _ = residents.images.index_select(0, chunk), residents.importance_weight[chunk]
        with watch.part("report"):
            zero = torch.zeros(())
            synthesis = Synthesis.of(candidates, zero, torch.zeros(3))
            distillation = Distillation(zero, zero, update.replaced, probabilities)
            make_report(0, buffer, synthesis, distillation, 0.0, 0, RoundClock(torch.device("cpu")))


class StudentSteps:
    """The student's step of the fast backend on one minibatch, without the teacher's answer and the augmentation.

    Args:
        point: names the student.
        batch_size: images a minibatch.

    Attributes:
        expected_bytes: of parameters, gradients and momenta by arithmetic.
    """

    def __init__(self, point: Point, batch_size: int) -> None:
        settings, method = CIFAR10.student, METHODS["ssdkd"]
        self._student = _student(point.student).train()
        self._update = FastUpdate(
            self._student, settings.momentum, settings.weight_decay, settings.temperature, method.distance
        )
        self._update.lr = 1e-3  # noise teaches nothing: stay where numbers are finite
        random = torch.Generator().manual_seed(0)
        self._inputs = torch.randn(batch_size, *IMAGE_SHAPE, generator=random)
        self._answers = torch.randn(batch_size, point.classes, generator=random)
        self._weights = torch.ones(batch_size)
        self.expected_bytes = 3 * 4 * sum(parameter.numel() for parameter in self._student.parameters())

    @property
    def nbytes(self) -> int:
        """Of parameters, gradients and momenta as they are."""
        tensors: list[Tensor | None] = [*self._student.parameters(), *self._update.state_dict()["momenta"]]
        tensors += [parameter.grad for parameter in self._student.parameters()]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def once(self, watch: Stopwatch) -> None:
        """One `step`."""
        with watch.part("step"):
            self._update(self._inputs, self._answers, self._weights)


def _student(arch: str) -> nn.Module:
    spec = replace(CIFAR10, teacher_arch="resnet8", student_arch=arch)
    return Task(spec, build_teacher(spec, seed=0)).build_student(seed=0)


def multiply_adds(network: nn.Module) -> int:
    """Multiply-adds of a network's convolutions and matrix products on one image of `IMAGE_SHAPE`."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *IMAGE_SHAPE))
    return int(counter.get_total_flops()) // 2


def growths_of(sweep: Sweep, measurements: Sequence[Measurement]) -> dict[str, Growth]:
    """Growth of each part's processor time over a sweep."""
    return {part: fit_growth({m.point.size: m.cpu[part] for m in measurements}) for part in sweep.parts}


def table_of(sweep: Sweep, measurements: Sequence[Measurement], growths: Mapping[str, Growth]) -> str:
    """Markdown: a row a size with median milliseconds of processor time, and the growth of each part below."""
    head = [sweep.unit, *(f"{part} ms" for part in sweep.parts), "clock / processor"]
    head += ["MiB", "MiB by arithmetic", "process grew by MiB"]
    rows: list[list[str]] = []
    for m in measurements:
        clock = np.median(np.sum([m.wall[part] for part in sweep.parts], axis=0))
        processor = np.median(np.sum([m.cpu[part] for part in sweep.parts], axis=0))
        name = f"{m.point.size:,}" + (f" ({m.point.student})" if m.point.student else "")
        rows.append([name, *(f"{1000 * float(np.median(m.cpu[part])):.3g}" for part in sweep.parts)])
        rows[-1] += [f"{clock / max(processor, 1e-9):.2f}"]
        rows[-1] += [f"{m.nbytes / MIB:,.2f}", f"{m.expected_bytes / MIB:,.2f}", f"{m.grown_mib:,.0f}"]
    rows.append(["growth", *(power(growths[part].exponent) for part in sweep.parts), *[""] * 4])
    rows.append(["from the last but one", *(power(growths[part].last_exponent) for part in sweep.parts), *[""] * 4])
    return markdown_table(head, rows)
