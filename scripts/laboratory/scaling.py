"""How the seconds and the memory of a round's buffer grow with its images, the candidates and the classes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import Interval
from ssdkd_agents.machine import MIB

from laboratory.statistics import Values, bootstrap_interval, two_digits
from ssdkd_env.distillation import SamplingPlan, priority
from ssdkd_env.distillation.allowance import NOTHING, Allowance
from ssdkd_env.distillation.buffer import Entries, ReplayBuffer
from ssdkd_env.distillation.report import Distillation, RoundClock, Synthesis, make_report
from ssdkd_env.distillation.sampling import log_weights, replacement_keys
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.cifar import CIFAR10

CPU = torch.device("cpu")
IMAGE_SHAPE = CIFAR10.image_shape
#: The sizes that are measured.
BUFFERS = (180, 1000, 5000, 20_000, 50_000, 200_000, 1_000_000)
CANDIDATES = (16, 32, 64, 128, 256, 512, 1024)
CLASSES = (10, 100, 1000, 3000, 10_000)
#: Images that are drawn in one call: minibatches as in the protocol of CIFAR-10, of 64 images.
DRAWS = CIFAR10.budget.student_steps * 64
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
    """

    size: int
    images: int = 5000
    candidates: int = 256
    classes: int = 10

    @property
    def image_bytes(self) -> int:
        """Bytes of an image in the buffer: pixels, logits and class shares, three float32 values and a round."""
        return math.prod(IMAGE_SHAPE) + 2 * 4 * self.classes + 3 * 4 + 8


class Sweep(NamedTuple):
    """What grows, the parts of a round whose time it is held against, and the sizes, smallest first."""

    unit: str
    parts: tuple[str, ...]
    points: tuple[Point, ...]


def make_sweeps(largest: int) -> dict[str, Sweep]:
    """The three sweeps by name; buffers of more than `largest` images are left out.

    Raises:
        InvalidInputError: when too few buffers are left to fit a growth to.
    """
    if largest < (smallest := BUFFERS[FEWEST_SIZES - 1]):
        raise InvalidInputError(
            f"--largest {largest}: expected at least {smallest}, so that {FEWEST_SIZES} buffers are "
            "there to fit the growth to"
        )
    buffers = tuple(Point(size, images=size) for size in BUFFERS if size <= largest)
    every = ("weigh", "update", "probabilities", "draw", "gather", "report")
    return {
        "buffer": Sweep("images in the buffer", every, buffers),
        "candidates": Sweep("candidates", every[:2], tuple(Point(size, candidates=size) for size in CANDIDATES)),
        "classes": Sweep("classes", (*every[:2], "report"), tuple(Point(size, classes=size) for size in CLASSES)),
    }


def check_memory(sweeps: Mapping[str, Sweep]) -> None:
    """See to it that the largest buffer fits into memory with room to spare.

    Raises:
        InvalidInputError: when it does not.
    """
    available = psutil.virtual_memory().available
    points = [point for sweep in sweeps.values() for point in sweep.points]
    point = max(points, key=lambda point: point.images * point.image_bytes)
    needed = math.ceil(point.images * (point.image_bytes * (1 + 1 / FILLS) + ROUND_BYTES)) + SPARE_BYTES
    if needed > available:
        raise InvalidInputError(
            f"{point.images} images of {point.classes} classes need {needed / 2**30:.1f} GiB of memory with room to "
            f"spare, {available / 2**30:.1f} GiB are available; give a smaller --largest, or free some"
        )


def measure_point(point: Point, repeats: int) -> dict[str, Any]:
    """Time the parts of a round at one size.

    Args:
        point: the sizes.
        repeats: of the timed parts, after one that is not kept.

    Returns:
        `point`; `cpu`, part → seconds of each repeat; `nbytes` of the buffer, and `expected_bytes` by arithmetic.
    """
    sample = BufferRounds(point)
    sample.once()
    sample.cpu.clear()
    for _ in range(repeats):
        sample.once()
    return {"point": asdict(point), "cpu": sample.cpu, "nbytes": sample.nbytes, "expected_bytes": sample.expected_bytes}


class BufferRounds:
    """What a `DistillationRun` does with its buffer in a round, in the same order, without the networks.

    Values are noise: what a round costs does not depend on them. The same candidates come back every round.

    Attributes:
        buffer: full from the start.
        nbytes, expected_bytes: of the buffer, as it is and by arithmetic.
        cpu: part → the processor's seconds in each round.
    """

    def __init__(self, point: Point) -> None:
        self._random = torch.Generator().manual_seed(0)
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
        self.cpu: dict[str, list[float]] = {}

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

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.cpu.setdefault(name, []).append(time.process_time() - started)

    def once(self) -> None:
        """One round: `weigh`, `update`, `probabilities`, `draw`, `gather` and `report`."""
        plan, buffer, candidates, residents = SamplingPlan(), self.buffer, self._candidates, self.buffer.residents
        with self._part("weigh"):
            weights = log_weights(plan, buffer.mean_class_share(), residents, candidates)
        with self._part("update"):
            keys = replacement_keys(weights, self._random)
            update = buffer.update(candidates, keys, math.floor(plan.replaced_share * buffer.capacity))
        with self._part("probabilities"):
            probabilities = priority.sampling_probabilities(weights[update.rows])
            residents.importance_weight.copy_(priority.importance_weights(probabilities, plan.importance_exponent))
        with self._part("draw"):
            draws = priority.draw_with_replacement(probabilities, DRAWS, self._random)
        with self._part("gather"):
            chunk = draws[:GATHERED]
            _ = residents.images.index_select(0, chunk), residents.importance_weight[chunk]
        with self._part("report"):
            zero = torch.zeros(())
            synthesis = Synthesis.of(candidates, zero, torch.zeros(3))
            distillation = Distillation(zero, zero, update.replaced, probabilities)
            make_report(0, buffer, synthesis, distillation, 0, ROUNDS, RoundClock(CPU), 0.0, NOTHING)


@dataclass(frozen=True)
class Growth:
    """Exponent of ``seconds ∝ size^exponent`` over the larger sizes, with intervals from resampled repeats.

    `last_exponent` is that between the two largest sizes alone: a fit through a curve that bends upwards hides its end.
    """

    exponent: Interval
    last_exponent: Interval
    sizes: tuple[int, ...]

    @property
    def linear(self) -> bool:
        """Whether the interval leaves no room above `MOST_LINEAR`."""
        return self.exponent.high <= MOST_LINEAR


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

    def slope(*repeats: Values, axis: int = -1) -> Values:
        y = np.log([np.maximum(np.median(each, axis=axis), 1e-9) for each in repeats])  # a coarse clock can say 0
        slopes: Values = np.polyfit(np.log(sizes[-len(y) :]), y.reshape(len(y), -1), 1)[0].reshape(y.shape[1:])
        return slopes

    return Growth(bootstrap_interval(repeats, slope), bootstrap_interval(repeats[-2:], slope), tuple(sizes))


def power(exponent: Interval) -> str:
    """A power of the size, with its interval."""
    return f"n^{two_digits(exponent)}"


def table_of(sweep: Sweep, measured: Sequence[Mapping[str, Any]], growths: Mapping[str, Growth]) -> str:
    """Markdown: a row a size with median milliseconds of processor time, and the growth of each part below."""
    head = [sweep.unit, *(f"{part} ms" for part in sweep.parts), "MiB", "MiB by arithmetic"]
    rows: list[list[str]] = []
    for line in measured:
        cells = [f"{line['point']['size']:,}"]
        cells += [f"{1000 * float(np.median(line['cpu'][part])):.3g}" for part in sweep.parts]
        rows.append([*cells, *(f"{line[name] / MIB:,.2f}" for name in ("nbytes", "expected_bytes"))])
    for name, attribute in (("growth", "exponent"), ("from the last but one", "last_exponent")):
        rows.append([name, *(power(getattr(growths[part], attribute)) for part in sweep.parts), "", ""])
    return markdown_table(head, rows)
