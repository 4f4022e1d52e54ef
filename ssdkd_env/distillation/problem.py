"""What the engine needs to know of a task. The engine asks; `ssdkd_env.tasks` answers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor, nn

from ssdkd_env.distillation.student import StudentSettings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.settings import hold_plain, is_whole

#: Settings of a budget that count images in memory at once, and the most that they can be: a file may name any number.
OF_IMAGES, MOST_IMAGES = ("candidates", "batch_size", "buffer_capacity"), 10_000_000
#: Rounds, and steps of a round.
MOST_STEPS = 100_000_000


@dataclass(frozen=True)
class Budget:
    """How much work a run may do. The number of synthesised images does not depend on the sampling plan.

    Attributes:
        rounds: of an episode, unless its work is given.
        warmup_rounds: batches synthesised before the student learns, to fill the buffer.
        candidates: images synthesised a round.
        inversion_steps: optimiser steps a batch of candidates.
        student_steps: student minibatches a round.
        batch_size: images a student minibatch.
        buffer_capacity: images in the replay buffer.
        work: multiply-adds of a whole run, warm-up included (see `costs`): it ends when they are spent, after however
            many rounds. 0 counts rounds.
    """

    rounds: int
    warmup_rounds: int
    candidates: int
    inversion_steps: int
    student_steps: int
    batch_size: int
    buffer_capacity: int
    work: int = 0

    def __post_init__(self) -> None:
        hold_plain(self)
        for setting in fields(self):
            number = getattr(self, setting.name)
            if setting.name == "work":
                if not is_whole(number) or number < 0:
                    raise InvalidInputError(f"budget['work']={number!r}: expected multiply-adds, or 0 to count rounds")
                continue
            most = MOST_IMAGES if setting.name in OF_IMAGES else MOST_STEPS
            if not is_whole(number) or not 1 <= number <= most:
                raise InvalidInputError(
                    f"budget[{setting.name!r}]={number!r}: expected a whole number of at least 1 and at most {most:,}"
                )


class ProblemSpec(Protocol):
    """Numbers of a task; see `TaskSpec`, which has them."""

    @property
    def name(self) -> str:
        """The task's name."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, what the teacher's input was normalised with."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, what the teacher's input was normalised with."""
        ...

    @property
    def padding(self) -> int:
        """Pixels of random shift in augmentation."""
        ...

    @property
    def flip(self) -> bool:
        """Whether augmentation mirrors images."""
        ...

    @property
    def latent_dim(self) -> int:
        """Length of the generator's latent vectors."""
        ...

    @property
    def budget(self) -> Budget:
        """How much work a run may do."""
        ...

    @property
    def student(self) -> StudentSettings:
        """The student's optimiser."""
        ...

    @property
    def training_set_size(self) -> int:
        """Images of the teacher's training set; 0 where it is not known."""
        ...


class Problem(Protocol):
    """A frozen teacher, and the networks that are to be trained; see `Task`, which is one."""

    @property
    def spec(self) -> ProblemSpec:
        """Numbers of the task."""
        ...

    @property
    def dense(self) -> bool:
        """Whether the networks give logits for each pixel."""
        ...

    def teacher_on(self, device: torch.device, folded: bool = False) -> nn.Module:
        """The frozen teacher; with BatchNorm folded, it is faster and shows no statistics."""
        ...

    def build_student(self, seed: int) -> nn.Module:
        """A fresh student, on the CPU."""
        ...

    def build_generator(self, seed: int) -> nn.Module:
        """A fresh generator (N, latent_dim) → (N, C, H, W) in [0, 1], on the CPU."""
        ...

    @property
    def pass_costs(self) -> tuple[int, int, int]:
        """Multiply-adds of one image's forward pass through teacher, student and generator."""
        ...

    def training_images(self) -> Tensor:
        """Real training images (N, C, H, W) uint8, for `vanilla_kd` alone.

        Raises:
            InvalidInputError: where there are none.
        """
        ...
