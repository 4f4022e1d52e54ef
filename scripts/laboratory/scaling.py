"""How the seconds and the memory of a round grow with the buffer, the candidates, the classes and the student."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import Interval
from ssdkd_agents.machine import MIB, forget_peak_memory, peak_memory_mib
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from laboratory.statistics import Values, bootstrap_interval
from ssdkd_env.distillation import SamplingPlan, priority
from ssdkd_env.distillation.allowance import NOTHING, Allowance
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
#: A report wants to know of one.
ROUNDS = Allowance(1, lambda amounts: 1)
#: A buffer is filled in so many parts.
FILLS = 16
#: Bytes an image that a round needs beside the buffer, a generous guess, and what else shall stay free.
ROUND_BYTES, SPARE_BYTES = 512, 1 << 30
#: An exponent whose interval ends here or below counts as linear; caches and page faults take their share of time.
MOST_LINEAR = 1.15
#: Growth is fitted to the larger half of the sizes, and to at least so many.
FEWEST_SIZES = 3


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
        """Bytes of an image in the buffer: pixels, logits and class shares, three float32 values and a round."""
        return math.prod(IMAGE_SHAPE) + 2 * 4 * self.classes + 3 * 4 + 8


class Sweep(NamedTuple):
    """What grows, the parts of a round whose time it is held against, and the sizes, smallest first."""

    unit: str
    parts: tuple[str, ...]
    points: tuple[Point, ...]


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
        self.cpu.setdefault(name, []).append(time.process_time() - cpu)
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)


def make_sweeps(largest: int) -> dict[str, Sweep]:
    """The four sweeps by name; buffers of more than `largest` images are left out.

    Raises:
        InvalidInputError: when too few buffers are left to fit a growth to.
    """
    if largest < (smallest := BUFFERS[FEWEST_SIZES - 1]):
        raise InvalidInputError(
            f"--largest {largest}: expected at least {smallest}, so that {FEWEST_SIZES} buffers are "
            "there to fit the growth to"
        )
    buffers = tuple(Point(size, images=size) for size in BUFFERS if size <= largest)
    students = tuple(Point(multiply_adds(_student(arch)), student=arch) for arch in STUDENTS)
    every = ("weigh", "update", "probabilities", "draw", "gather", "report")
    return {
        "buffer": Sweep("images in the buffer", every, buffers),
        "candidates": Sweep("candidates", every[:2], tuple(Point(size, candidates=size) for size in CANDIDATES)),
        "classes": Sweep("classes", (*every[:2], "report"), tuple(Point(size, classes=size) for size in CLASSES)),
        "student": Sweep("multiply-adds of the student", ("step",), students),
    }


def check_memory(name: str, sweep: Sweep) -> None:
    """See to it that the largest buffer of a sweep fits into memory with room to spare.

    Raises:
        InvalidInputError: when it does not.
    """
    available = psutil.virtual_memory().available
    point = max(sweep.points, key=lambda point: point.images * point.image_bytes)
    needed = math.ceil(point.images * (point.image_bytes * (1 + 1 / FILLS) + ROUND_BYTES)) + SPARE_BYTES
    if needed > available:
        short = (
            f"needs {needed / 2**30:.1f} GiB of memory with room to spare, {available / 2**30:.1f} GiB are available"
        )
        if name == "buffer":
            raise InvalidInputError(f"--largest {point.size} {short}; give a smaller --largest")
        raise InvalidInputError(f"--sweeps {name} {short}; leave it out of --sweeps")


def measure_point(point: Point, repeats: int, batch_size: int) -> dict[str, Any]:
    """Time the parts of a round, or a student's step, at one size.

    Args:
        point: the sizes.
        repeats: of the timed parts, after one that is not kept.
        batch_size: images a student minibatch.

    Returns:
        `point`; `cpu` and `wall`, part → seconds of each repeat, of this process on the processor and on the clock;
        `nbytes` of the buffer, or of a student's parameters, gradients and momenta, and `expected_bytes` by
        arithmetic; `peak_memory_mib` of the process meanwhile, and `grown_mib`, by which that is more than before.
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
    nbytes = {"nbytes": sample.nbytes, "expected_bytes": sample.expected_bytes}
    return {"point": asdict(point), **vars(watch), **nbytes, "peak_memory_mib": peak, "grown_mib": peak - before}


class BufferRounds:
    """What a `DistillationRun` does with its buffer in a round, in the same order, without the networks.

    Values are noise: what a round costs does not depend on them. The same candidates come back every round.

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
            make_report(0, buffer, synthesis, distillation, 0, ROUNDS, RoundClock(CPU), 0.0, NOTHING)


class StudentSteps:
    """The student's step of the fast backend on one minibatch, without the teacher's answer and the augmentation.

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
        inputs = torch.randn(batch_size, *IMAGE_SHAPE, generator=random)
        self._minibatch = inputs, torch.randn(batch_size, point.classes, generator=random), torch.ones(batch_size)
        self.expected_bytes = 3 * 4 * sum(parameter.numel() for parameter in self._student.parameters())

    @property
    def nbytes(self) -> int:
        """Of parameters, gradients and momenta as they are."""
        parameters = [*self._student.parameters()]
        tensors = [*parameters, *(p.grad for p in parameters), *self._update.state_dict()["momenta"]]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def once(self, watch: Stopwatch) -> None:
        """One `step`."""
        with watch.part("step"):
            self._update(*self._minibatch)


def _student(arch: str) -> nn.Module:
    spec = replace(CIFAR10, teacher_arch="resnet8", student_arch=arch)
    return Task(spec, build_teacher(spec, seed=0)).build_student(seed=0)


def multiply_adds(network: nn.Module) -> int:
    """Multiply-adds of a network's convolutions and matrix products on one image of `IMAGE_SHAPE`."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *IMAGE_SHAPE))
    return int(counter.get_total_flops()) // 2


@dataclass(frozen=True)
class Growth:
    """Power law ``seconds = scale · size^exponent`` over the larger sizes, with intervals from resampled repeats.

    `last_exponent` is that between the two largest sizes alone: a fit through a curve that bends upwards hides its end.
    """

    scale: float
    exponent: Interval
    last_exponent: Interval
    sizes: tuple[int, ...]

    @property
    def linear(self) -> bool:
        """Whether the interval leaves no room above `MOST_LINEAR`."""
        return self.exponent.high <= MOST_LINEAR

    @property
    def verdict(self) -> str:
        """What may be said of it."""
        may = "GROWS" if self.exponent.low > MOST_LINEAR else "MAY GROW"
        return "grows no faster than linearly" if self.linear else f"{may} FASTER than linearly"


def fit_growth(seconds: Mapping[int, Sequence[float]]) -> Growth:
    """Fit a power law to the medians over the repeats of each size, by least squares on logarithms.

    Only the larger half of the sizes counts, where what does not grow no longer dominates.

    Raises:
        ValueError: when there are fewer than `FEWEST_SIZES` sizes.
    """
    if len(seconds) < FEWEST_SIZES:
        raise ValueError(f"a growth needs at least {FEWEST_SIZES} sizes")
    sizes = sorted(seconds)[-max(FEWEST_SIZES, math.ceil(len(seconds) / 2)) :]
    repeats = [np.array(seconds[size]) for size in sizes]

    def fit(*repeats: Values, axis: int = -1) -> Values:
        """Exponent and logarithm of the scale, of the largest sizes."""
        y = np.log([np.maximum(np.median(each, axis=axis), 1e-9) for each in repeats])  # a coarse clock can say 0
        line: Values = np.polyfit(np.log(sizes[-len(y) :]), y.reshape(len(y), -1), 1).reshape(2, *y.shape[1:])
        return line

    exponent, last = (
        bootstrap_interval(some, lambda *values, axis=-1: fit(*values, axis=axis)[0])
        for some in (repeats, repeats[-2:])
    )
    return Growth(float(np.exp(fit(*repeats)[1])), exponent, last, tuple(sizes))


def power(exponent: Interval) -> str:
    """A power of the size, with its interval."""
    return f"n^{exponent.mean:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]"


def table_of(sweep: Sweep, measured: Sequence[Mapping[str, Any]], growths: Mapping[str, Growth]) -> str:
    """Markdown: a row a size with median milliseconds of processor time, and the growth of each part below."""
    head = [sweep.unit, *(f"{part} ms" for part in sweep.parts), "clock / processor"]
    head += ["MiB", "MiB by arithmetic", "process grew by MiB"]
    rows: list[list[str]] = []
    for line in measured:
        clock, processor = (np.median(np.sum([line[by][p] for p in sweep.parts], axis=0)) for by in ("wall", "cpu"))
        size, student = line["point"]["size"], line["point"]["student"]
        cells = [f"{size:,} ({student})" if student else f"{size:,}"]
        cells += [f"{1000 * float(np.median(line['cpu'][part])):.3g}" for part in sweep.parts]
        cells += [f"{clock / max(processor, 1e-9):.2f}", f"{line['nbytes'] / MIB:,.2f}"]
        rows.append([*cells, f"{line['expected_bytes'] / MIB:,.2f}", f"{line['grown_mib']:,.0f}"])
    for name, attribute in (("growth", "exponent"), ("from the last but one", "last_exponent")):
        rows.append([name, *(power(getattr(growths[part], attribute)) for part in sweep.parts), *[""] * 4])
    return markdown_table(head, rows)
