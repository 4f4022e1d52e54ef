"""One inversion engine: the teacher's knowledge turned into images, whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.emphasis import Emphasis
from ssdkd_env.distillation.execution import EAGER, Execution, Forward
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.distillation.sources import BatchSource, ImageSource, MetaGenerator, Pixels, TrainedGenerator


class Inversion:
    """Synthesises batches of images: a source of images, improved step by step down the method's objective.

    Args:
        method: what is optimised, loss weights and learning rates.
        teacher: frozen, in evaluation mode.
        generator: maps (N, latent_dim) to (N, C, H, W) in [0, 1].
        num_classes: number of classes.
        image_shape: (C, H, W).
        latent_dim: length of a latent vector.
        batch_size: images a batch.
        steps: optimiser steps a batch, unless others are asked for.
        normalize: from image range to network input.
        padding, flip: augmentation.
        random: this engine's own source of randomness, on the generator's device.
        execution: how the networks are called.
    """

    def __init__(
        self,
        method: Method,
        teacher: nn.Module,
        generator: nn.Module,
        num_classes: int,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        batch_size: int,
        steps: int,
        normalize: Normalize,
        padding: int,
        flip: bool,
        random: torch.Generator,
        execution: Execution = EAGER,
    ) -> None:
        self.method = method
        self.execution = execution
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.latent_dim = latent_dim
        self.batch_size = batch_size
        self.steps = steps
        self.random = random
        self.objective = Objective(method, teacher, normalize, padding, flip, random, execution=execution)
        extra = self.objective.parameters()
        self.source: ImageSource
        if method.variables == "meta_generator":
            self.source = MetaGenerator(generator, latent_dim, method, extra, random, execution)
        elif method.variables == "pixels":
            self.source = Pixels(image_shape, normalize, method, extra, random)
        else:
            self.source = TrainedGenerator(generator, latent_dim, num_classes, method, extra, random, execution)

    def synthesize(
        self,
        student: nn.Module | None,
        buffer_share: Tensor,
        count: int | None = None,
        emphasis: Emphasis | None = None,
        steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Synthesise one batch.

        Args:
            student: adversary of the generator, in evaluation mode; None while the buffer is first filled.
            buffer_share: (classes,) class shares of the buffer, for φ.
            count: images to draw from a generator that makes them at any time; others give `batch_size` images.
            emphasis: on φ's terms and the adversary; None is the method's own.
            steps: optimiser steps; None is as many as this engine was made with.

        Returns:
            Images (batch_size or count, C, H, W) float in [0, 1], and the last step's losses (bn, one_hot,
            adversarial), a (3,) tensor.
        """
        targets = self.draw_targets(buffer_share.device)
        adversary = None if student is None else self.execution.of(student)
        emphases = [] if emphasis is None else [emphasis]
        self.source.begin(targets)
        parts = improve(
            self.source, self.objective, targets, adversary, buffer_share[None], emphases, steps or self.steps
        )
        self.objective.end_batch()
        return self.source.finish(count or self.batch_size), parts[0]

    def draw_targets(self, device: torch.device) -> Tensor:
        """(batch_size,) int64: every class equally often up to one, in an order of chance."""
        permutation = torch.randperm(self.batch_size, device=device, generator=self.random)
        offset = torch.randint(self.num_classes, (1,), device=device, generator=self.random)
        return (permutation + offset) % self.num_classes

    def lasting_generator(self) -> MetaGenerator | TrainedGenerator | None:
        """The source, if it is a generator that goes on from batch to batch with an optimiser of the batch's own.

        Those are the methods of which `GroupedRuns` does several runs together.
        """
        if self.method.contrastive_weight:
            return None
        lasting = self.method.variables in ("meta_generator", "generator_and_latents")
        return self.source if lasting and isinstance(self.source, MetaGenerator | TrainedGenerator) else None

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on. The randomness belongs to the caller."""
        return {"source": self.source.state_dict(), "objective": self.objective.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.source.load_state_dict(state["source"])
        self.objective.load_state_dict(state["objective"])


def improve(
    source: BatchSource,
    objective: Objective,
    targets: Tensor,
    student: Forward | None,
    buffer_share: Tensor,
    emphases: Sequence[Emphasis],
    steps: int,
) -> Tensor:
    """Move the images of a batch that has begun down the objective.

    Args:
        source: of the images, of one run or of several.
        objective: of as many runs.
        targets: (runs · N,) int64.
        student: adversary; None without.
        buffer_share: (runs, classes), for φ.
        emphases: of each run.
        steps: optimiser steps.

    Returns:
        The last step's losses (bn, one_hot, adversarial), (runs, 3).
    """
    for _ in range(steps):
        losses, parts = objective(source.images(), targets, student, buffer_share, emphases)
        source.step(losses.sum())
    return parts
