"""The heavy parts of a run as pieces of work, so that several runs can do equal ones together.

A run reads as if it were alone: it calls `perform` with a piece of work and gets its result. Alone, the work is done at
once; `grouped.GroupedRuns` lets several runs come to theirs and does what is equal as one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.emphasis import Emphasis
from ssdkd_env.distillation.execution import EAGER, Execution
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.distillation.inversion import Inversion
from ssdkd_env.distillation.student import StudentTrainer

ResultT_co = TypeVar("ResultT_co", covariant=True)


@dataclass(frozen=True)
class LayerRandom:
    """Randomness of a run's own for layers that draw from PyTorch's global generators, such as dropout.

    Attributes:
        seed: of the draws.
        device: whose global generator such layers use, beside the CPU's.
    """

    seed: int
    device: torch.device

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Seed the global generators, and put them back as they were."""
        on_cuda = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if on_cuda else []):
            torch.default_generator.manual_seed(self.seed)
            if on_cuda:
                with torch.cuda.device(self.device):
                    torch.cuda.manual_seed(self.seed)
            yield


class Work(Protocol[ResultT_co]):
    """A piece of work.

    Attributes:
        name: its phase of a round, which a profiler shows.
    """

    name: ClassVar[str]

    @property
    def key(self) -> Hashable:
        """Pieces with equal keys, of runs of one method, may be done together, though one may have more steps."""
        ...

    def alone(self) -> ResultT_co:
        """Do it for this run alone."""
        ...


def _length(execution: Execution, steps: int) -> int | None:
    """What of a piece's length must be equal: all of it where networks are compiled, anew for each size of a group."""
    return steps if execution.compiler else None


#: Who does the work of the run that is being played; None: the run itself.
_helper: ContextVar[Callable[[Work[Any]], Any] | None] = ContextVar("helper", default=None)


def perform(work: Work[ResultT_co]) -> ResultT_co:
    """Do a piece of work, or have it done by whoever `helped_by` names; returns its result."""
    helper = _helper.get()
    if helper is not None:
        result: ResultT_co = helper(work)
        return result
    with ranges.phase(work.name):
        return work.alone()


@contextmanager
def helped_by(helper: Callable[[Work[Any]], Any] | None) -> Iterator[None]:
    """Have all work that this context comes to done by `helper`, which returns the result; alone where it is None."""
    token = _helper.set(helper)
    try:
        yield
    finally:
        _helper.reset(token)


@dataclass(frozen=True, eq=False)
class SynthesisWork:
    """Synthesise a batch: `Inversion.synthesize`. Gives images and losses.

    Attributes:
        inversion: the run's.
        student: adversary; None without.
        buffer_share: (classes,), for φ.
        count: images that are wanted.
        steps: optimiser steps.
        emphasis: on φ's terms and the adversary.
        random: of the layers.
        together: whether it may be done together with others'.
        kind: of the run; only runs of one kind do it together.
    """

    name: ClassVar[str] = "synthesis"
    inversion: Inversion
    student: nn.Module | None
    buffer_share: Tensor
    count: int
    steps: int
    emphasis: Emphasis
    random: LayerRandom
    together: bool = True
    kind: Hashable = None

    @property
    def key(self) -> Hashable:
        """Batches with an adversary or without, with statistics of earlier batches or without."""
        if not self.together:
            return id(self)
        statistics = self.inversion.objective.statistics
        length = _length(self.inversion.execution, self.steps)
        return "synthesis", self.kind, self.student is None, statistics.past is None, self.count, length

    def alone(self) -> tuple[Tensor, Tensor]:
        """Do it."""
        with self.random.lent():
            return self.inversion.synthesize(self.student, self.buffer_share, self.count, self.emphasis, self.steps)


@dataclass(frozen=True, eq=False)
class TrainingWork:
    """Train the student on minibatches: `StudentTrainer.train`. Gives the sum of the losses.

    Attributes:
        trainer: the run's.
        images: (N, C, H, W) uint8.
        draws: (minibatches, batch_size) int64.
        weights: (N,) float32.
        learning_rate: of all minibatches.
        random: of the layers.
        kind: of the run; only runs of one kind do it together.
    """

    name: ClassVar[str] = "training"

    trainer: StudentTrainer
    images: Tensor
    draws: Tensor
    weights: Tensor
    learning_rate: float
    random: LayerRandom
    kind: Hashable = None

    @property
    def key(self) -> Hashable:
        """Minibatches of one size."""
        return "training", self.kind, self.draws.shape[1], _length(self.trainer.execution, len(self.draws))

    def alone(self) -> Tensor:
        """Do it."""
        with self.random.lent():
            return self.trainer.train(self.images, self.draws, self.weights, self.learning_rate)


@dataclass(frozen=True, eq=False)
class LogitsWork:
    """Ask a network in evaluation mode. Gives its logits, (N, C) or (N, C, H, W).

    Attributes:
        network: whose answer is wanted.
        role: of the network, `"teacher"` or `"student"`.
        images: (N, C, H, W) uint8.
        normalize: from image range to network input.
        random: of the layers.
        together: whether it may be done together with others'.
        kind: of the run; only runs of one kind do it together.
        execution: how the network is called.
    """

    name: ClassVar[str] = "logits"

    network: nn.Module
    role: str
    images: Tensor
    normalize: Normalize
    random: LayerRandom
    together: bool = True
    kind: Hashable = None
    execution: Execution = EAGER

    @property
    def key(self) -> Hashable:
        """As many images for networks of one role, in runs of one kind."""
        if not self.together:
            return id(self)
        return "answer", self.kind, self.role, len(self.images), self.execution

    def alone(self) -> Tensor:
        """Do it."""
        with self.random.lent(), ranges.part(self.role):
            return logits_of(self.execution.of(self.network), self.images, self.normalize)
