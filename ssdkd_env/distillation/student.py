"""The student's minibatch loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.augmentation import Normalize, Views
from ssdkd_env.distillation.execution import EAGER, Execution
from ssdkd_env.distillation.forward import answers, images_gathered
from ssdkd_env.distillation.losses import distillation_loss
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.updates import FastUpdate, PlainUpdate, StudentUpdate
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.settings import hold_plain, is_finite_number

#: The cosine schedule ends at this share of its start (0.2 → 2e-4 in the standard protocol).
FINAL_LR_SHARE = 1e-3


@dataclass(frozen=True)
class StudentSettings:
    """How the student is optimised: SGD with a cosine schedule over the rounds.

    Attributes:
        lr: learning rate of the first round.
        momentum: Nesterov-free momentum.
        weight_decay: L2 penalty.
        temperature: T of the distillation loss, for methods without one of their own.
    """

    lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 1e-4
    temperature: float = 20.0

    def __post_init__(self) -> None:
        hold_plain(self)
        for each in fields(self):
            value = getattr(self, each.name)
            if not is_finite_number(value) or value < 0 or (each.name == "temperature" and value == 0):
                least = "above 0" if each.name == "temperature" else "of at least 0"
                raise InvalidInputError(f"student[{each.name!r}]={value!r}: expected a number {least}")


@dataclass(frozen=True)
class Share:
    """The part of every minibatch that one of several replicas of a student sees.

    Attributes:
        index: which of them it is, from 0 on.
        of: how many there are.
    """

    index: int = 0
    of: int = 1

    def rows(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Places of the share among all images of minibatches (minibatches, batch_size), one after the other."""
        count, batch_size = shape
        first, last = (batch_size * index // self.of for index in (self.index, self.index + 1))
        places = torch.arange(count * batch_size, device=device).view(count, batch_size)
        return places[:, first:last].flatten()


#: Of the only one.
WHOLE = Share()


class StudentTrainer:
    """Distils the teacher into the student on minibatches of buffer images.

    Args:
        student: network to train, on the device.
        teacher: frozen, in evaluation mode.
        settings: the optimiser's.
        method: the distance to the teacher, and its temperature.
        normalize: from image range to network input.
        padding, flip: augmentation.
        random: source of randomness of the augmentation.
        execution: how teacher and student are called.
        plain: compute a step as in the reference, by `PlainUpdate`.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        settings: StudentSettings,
        method: Method,
        normalize: Normalize,
        padding: int,
        flip: bool,
        random: torch.Generator,
        execution: Execution = EAGER,
        plain: bool = False,
    ) -> None:
        self.student = student.eval()
        self.teacher = execution.of(teacher)
        self.execution = execution
        self.settings = settings
        self.distance, self.temperature = method.distance, method.temperature or settings.temperature
        self._normalize = normalize
        self._padding, self._flip = padding, flip
        self.random = random
        sgd = (settings.momentum, settings.weight_decay, self.temperature, self.distance)
        self.update: StudentUpdate = (
            PlainUpdate(student, *sgd) if plain else FastUpdate(student, *sgd, forward=execution.of(student))
        )

    def learning_rate(self, position: float) -> float:
        """Cosine from `lr` in the first round to `lr · FINAL_LR_SHARE` in the last, by `Allowance.position`."""
        cosine = 0.5 * (1 + math.cos(math.pi * position))
        return self.settings.lr * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)

    def train(
        self, images: Tensor, draws: Tensor, weights: Tensor, learning_rate: float, share: Share = WHOLE
    ) -> Tensor:
        """Some minibatches of a round.

        Args:
            images: (N, C, H, W) uint8, the buffer.
            draws: (minibatches, batch_size) int64, rows of `images`.
            weights: (N,) float32, importance weights.
            learning_rate: of all of them.
            share: of each minibatch that is looked at. Gradients are those of a mean over the whole one, times the
                number of replicas: their mean over the replicas is the gradient of the whole one.

        Returns:
            Sum of the minibatches' weighted losses, a scalar tensor on the device: the share's part of it.
        """
        self.begin(learning_rate)
        total = torch.zeros((), device=images.device)
        for chunk in self.chunks(draws, images):
            inputs, chunk_weights = self.look_at(images, weights, chunk, share)
            with ranges.part("teacher"):
                teacher_logits = answers(self.teacher, inputs)
            size, batch_size = len(inputs) // len(chunk), chunk.shape[1]
            moving = chunk_weights * (share.of * size / batch_size)
            parts = (part.split(size) for part in (inputs, teacher_logits, moving))
            own = torch.cat([self.update(*minibatch) for minibatch in zip(*parts, strict=True)])
            total += self.loss(teacher_logits, own, chunk_weights) / batch_size
        self.student.eval()
        return total

    def begin(self, learning_rate: float) -> None:
        """Prepare student and optimiser for minibatches of a round."""
        self.update.lr = learning_rate
        self.student.train()

    def chunks(self, draws: Tensor, images: Tensor) -> tuple[Tensor, ...]:
        """The minibatches, as many together as are gathered of these images at once."""
        chunks: tuple[Tensor, ...] = draws.split(max(images_gathered(images) // draws.shape[1], 1))
        return chunks

    @ranges.part("gather")
    def look_at(self, images: Tensor, weights: Tensor, chunk: Tensor, share: Share = WHOLE) -> tuple[Tensor, Tensor]:
        """Augmented network inputs of a chunk's share, one minibatch after the other, and their weights."""
        index = chunk.flatten()
        views = Views.draw(len(index), self._padding, self._flip, images.device, self.random)
        if share.of > 1:  # views are drawn for all, so that no share needs to know what the others look at
            rows = share.rows(chunk.shape, images.device)
            index, views = index[rows], views and views.of(rows)
        drawn = images.index_select(0, index)  # faster than images[index] on the CPU
        return self._normalize(drawn if views is None else views.seen(drawn)), weights[index]

    @ranges.part("loss")
    def loss(self, teacher_logits: Tensor, student_logits: Tensor, weights: Tensor) -> Tensor:
        """Sum of the images' weighted losses, a scalar."""
        losses = distillation_loss(teacher_logits, student_logits, self.temperature, self.distance)
        return (weights * losses).sum()

    def state_dict(self) -> dict[str, Any]:
        """Student and optimiser. The randomness belongs to the caller."""
        return {"student": self.student.state_dict(), "optimizer": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.student.load_state_dict(state["student"])
        self.update.load_state_dict(state["optimizer"])
