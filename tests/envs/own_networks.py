"""Networks and tasks of a user's own, found by import path (`"tests.envs.own_networks:TINY"`)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ssdkd_env.tasks import Budget, Instance, InstanceSet, TaskSpec
from ssdkd_env.tasks.digits import ASSETS, DIGITS
from ssdkd_env.tasks.instances import crossed, grid
from ssdkd_env.tasks.task import LabelledImages


class LinearStudent(nn.Module):
    """One matrix, no BatchNorm."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def seven_outputs(num_classes: int, in_channels: int = 1) -> nn.Module:
    """A student that does not answer with the task's classes."""
    return LinearStudent(7, in_channels)


def pixelwise(num_classes: int, in_channels: int = 1) -> nn.Module:
    """A student that answers for each pixel, which a classifier cannot teach."""
    return nn.Conv2d(in_channels, num_classes, 1)


class LinearGenerator(nn.Module):
    """One matrix and a sigmoid; with dropout it draws from PyTorch's global generator."""

    def __init__(self, latent_dim: int, image_shape: tuple[int, int, int], dropout: float = 0.0) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, channels * height * width),
            nn.Dropout(dropout),
            nn.Sigmoid(),
            nn.Unflatten(1, (channels, height, width)),
        )

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.layers(latents)
        return images


def dropout_generator(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A generator whose images depend on PyTorch's global generator."""
    return LinearGenerator(latent_dim, image_shape, dropout=0.5)


def small_images(latent_dim: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A generator of images that do not have the task's size."""
    return LinearGenerator(latent_dim, (image_shape[0], 4, 4))


def noise_as_data() -> LabelledImages:
    """Evaluation data that have nothing in common with the digits."""
    random = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=random, dtype=torch.uint8)
    return images, torch.randint(0, 10, (50,), generator=random)


#: Three classes, a teacher of 200 weights, no evaluation data: made in no time, in worker processes too.
TINY = TaskSpec(
    name="tiny",
    image_shape=(1, 8, 8),
    num_classes=3,
    mean=(0.3,),
    std=(0.4,),
    padding=1,
    flip=True,
    teacher_arch="convnet",
    teacher_options={"channels": (4, 8)},
    student_arch="convnet",
    student_options={"channels": (4,)},
    generator_arch="tests.envs.own_networks:LinearGenerator",
    latent_dim=8,
    budget=Budget(
        rounds=3,
        warmup_rounds=1,
        candidates=16,
        inversion_steps=2,
        student_steps=2,
        batch_size=8,
        buffer_capacity=24,
    ),
)
#: Digits with other evaluation data: nothing but the reported accuracy may differ.
DIGITS_JUDGED_BY_NOISE = replace(DIGITS, evaluation=noise_as_data)
#: Digits without evaluation data: no accuracy, no oracle.
DIGITS_WITHOUT_DATA = replace(DIGITS, evaluation=None)
#: Digits taught by a network without BatchNorm; its weights come as `teacher=`.
DIGITS_WITHOUT_BATCH_NORM = replace(DIGITS, teacher_options={"channels": (8, 16), "batch_norm": False})
NO_TASK = 3
#: Two teachers, students of two sizes, episodes of two lengths.
SMALL_SET = InstanceSet(
    "for tests",
    "digits",
    grid([None, str(ASSETS / "digits_teacher_narrow.safetensors")], ("convnet6", "convnet8"), (None,), (2, 3)),
)
SMALL_WORK_SET = InstanceSet(
    "for tests", "digits", crossed([None], ("convnet6", "convnet8"), (0.01, 0.03), work_scales=(0.02, 0.03))
)
#: One instance draws nothing, whatever it is.
ONE_INSTANCE = InstanceSet("for tests", "digits", (Instance(budget={"rounds": 3}),))
EMPTY_SET = InstanceSet("for tests", "digits", ())
#: The last one cannot be made.
BROKEN_SET = InstanceSet("for tests", "digits", (Instance(), Instance(student_arch="convnet7")))
#: Half of them have a memory of their own.
BUFFERS = InstanceSet("for tests", "digits", (Instance(), Instance(budget={"buffer_capacity": 30})))
