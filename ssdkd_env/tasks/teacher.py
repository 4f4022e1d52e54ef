"""Training a teacher on real images, for those who still have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ssdkd_env.distillation.augmentation import Normalize, random_crop_flip
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.task import LabelledImages, TaskSpec, build_teacher, check_classifier, check_images


@dataclass(frozen=True)
class TeacherSettings:
    """SGD with Nesterov momentum and a cosine schedule.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a minibatch.
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: L2 penalty.
        seed: of initial weights, order and augmentation.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise InvalidInputError(
                f"epochs={self.epochs}, batch_size={self.batch_size}: expected whole numbers of at least 1"
            )
        if self.lr <= 0 or not 0 < self.momentum < 1 or self.weight_decay < 0:
            raise InvalidInputError(
                f"lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}: expected lr "
                "above 0, momentum between 0 and 1, weight_decay of at least 0"
            )


def train_teacher(
    spec: TaskSpec,
    train: LabelledImages,
    settings: TeacherSettings,
    device: torch.device,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> nn.Module:
    """Train the task's teacher architecture from scratch.

    Args:
        spec: architecture, augmentation and normalisation.
        train: images (N, C, H, W) uint8 and labels.
        settings: the optimiser's.
        device: where to train.
        on_epoch: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        InvalidInputError: when the data do not fit the task, or the loss stops being finite.
    """
    network = build_teacher(spec, settings.seed)
    check_images("training data", *train, spec, label_dims=check_classifier("teacher", network.eval(), spec) - 1)
    network, images, labels = network.to(device), train[0].to(device), train[1].to(device)
    normalize = Normalize(spec.mean, spec.std, device)
    random = torch.Generator(device).manual_seed(settings.seed)
    batches = max(len(images) // settings.batch_size, 1)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * batches)
    for epoch in range(1, settings.epochs + 1):
        network.train()
        total = torch.zeros((), device=device)
        order = torch.randperm(len(images), device=device, generator=random)
        for index in order.split(settings.batch_size)[:batches]:
            inputs = normalize(random_crop_flip(images[index], spec.padding, spec.flip, random))
            loss = F.cross_entropy(network(inputs), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        mean_loss = float(total / batches)
        if not torch.isfinite(total):
            raise InvalidInputError(f"lr={settings.lr}: the loss is not finite in epoch {epoch}; choose a smaller one")
        on_epoch(epoch, mean_loss)
    return network.eval().cpu()
