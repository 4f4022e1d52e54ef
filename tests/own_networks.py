"""Networks of a user's own, found by import path (`"tests.own_networks:DenseNet"`), and a task made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ssdkd_env.tasks import Budget, TaskSpec
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.instances import Instance, InstanceSet
from ssdkd_env.tasks.probe_settings import ProbeSettings

NUMBER = 3


class DenseNet(nn.Module):
    """A segmentation network: logits (N, num_classes, H, W)."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class DropoutNet(nn.Module):
    """A classifier that draws from PyTorch's global generator while it trains."""

    def __init__(self, num_classes: int, in_channels: int = 1, rate: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(16), nn.Dropout(rate), nn.Linear(16, num_classes))
        self.layers(torch.zeros(1, in_channels, 8, 8))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class FlatGenerator(nn.Module):
    """A generator with options that break the rules of thumb: dropout, or buffers that change in training."""

    def __init__(
        self, latent_dim: int, image_shape: tuple[int, int, int], dropout: float = 0.0, spectral: bool = False
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        last = nn.Linear(16, channels * height * width)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 16),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.utils.parametrizations.spectral_norm(last) if spectral else last,
            nn.Sigmoid(),
            nn.Unflatten(1, (channels, height, width)),
        )

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.layers(latents)
        return images


def dropout_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return FlatGenerator(latent_dim, image_shape, dropout=0.5)


def spectral_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return FlatGenerator(latent_dim, image_shape, spectral=True)


def plain_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return FlatGenerator(latent_dim, image_shape)


def small_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return FlatGenerator(latent_dim, (image_shape[0], 4, 4))


def two_classes(num_classes: int, in_channels: int = 1) -> nn.Module:
    return DropoutNet(2, in_channels)


class DictNet(nn.Module):
    """Answers as torchvision's segmentation networks do: with a dictionary."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.dense = DenseNet(num_classes, in_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.dense(images)}


class TiedNet(nn.Module):
    """Two names for one weight, as in many autoencoders."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(images))
        return logits


class ViewNet(nn.Module):
    """Flattens feature maps as many did before `torch.flatten`, which the layout of channels last does not allow."""

    def __init__(self, num_classes: int, in_channels: int = 1, size: int = 8) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.head = nn.Linear(4 * size * size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images).relu()
        logits: Tensor = self.head(features.view(len(features), -1))
        return logits


def view_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    channels, height, width = image_shape
    layers = (nn.Linear(latent_dim, 64), nn.Unflatten(1, (4, 4, 4)), nn.Conv2d(4, 8, 1), ViewFlatten())
    return nn.Sequential(*layers, nn.Linear(128, channels * height * width), nn.Unflatten(1, image_shape))


class ViewFlatten(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.view(len(features), -1)


def no_module(**_: Any) -> list[int]:
    return [1, 2, 3]


def no_arguments() -> nn.Module:
    return nn.Identity()


DENSE_TASK = TaskSpec(
    name="tiny-segmentation",
    image_shape=(3, 8, 8),
    num_classes=4,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    padding=1,
    flip=True,
    teacher_arch="tests.own_networks:DenseNet",
    student_arch="tests.own_networks:DenseNet",
    generator_options={"channels": 8},
    latent_dim=8,
    budget=Budget(
        rounds=2,
        warmup_rounds=1,
        candidates=8,
        inversion_steps=2,
        student_steps=2,
        batch_size=4,
        buffer_capacity=12,
    ),
)

#: The same, for files with label maps, with networks that cards may name.
MAPS_TASK = replace(
    DENSE_TASK, name="tiny-maps", dense=True, teacher_arch="deeplab_small12", student_arch="deeplab_small12"
)


def identity_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Identity()


def deaf_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Linear(latent_dim + 1, 2)


#: Digits with two amounts of work, in little.
WORK_SIZES = InstanceSet(
    "two amounts of work", "digits", tuple(Instance(work_scale=scale, buffer_scale=0.05) for scale in (0.4, 0.6))
)
#: The same in still less.
LITTLE_WORK = replace(
    WORK_SIZES, instances=tuple(replace(each, work_scale=(each.work_scale or 1.0) / 4) for each in WORK_SIZES.instances)
)

#: Digits with a probe set that is made in no time.
SMALL_PROBE_TASK = replace(
    DIGITS,
    probe=ProbeSettings("meta_generator+noisy_labels+pixels", generators=1, batches=2, kept=1, batch_size=8, steps=1),
)
