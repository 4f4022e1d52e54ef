"""What of a distillation is kept beside its student for others to use: images, the teacher's answers, the generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssdkd_agents.distilling.recent import Recent
from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import save_tensors, write_json
from ssdkd_env.tasks.synthetic_images import label_dtype, save_images
from ssdkd_env.tasks.task import Task

IMAGES, IMAGES_CARD = "images.safetensors", "images.json"
GENERATOR, GENERATOR_CARD = "generator.safetensors", "generator.json"

#: Most images that can be asked for.
MOST = 100_000_000
#: Images that the teacher is asked about at once.
_CHUNK = 1_024
#: What a generator's inputs are, by what a method's inversion moves.
_INPUTS = {
    "generator": "standard normal latents",
    "generator_and_latents": "standard normal latents, which inversion then improves with the generator for each batch",
    "meta_generator": "standard normal latents, which inversion then improves with a copy of the generator for each "
    "batch: these weights are what it starts from",
    "fresh_generator": "standard normal latents, which inversion improved with the generator: these weights are those "
    "of the last batch",
    "generator_and_noisy_labels": "rows of label_embedding, standardised over the batch, through a linear layer that "
    "is initialised anew for each batch and improved with the generator",
}


@dataclass(frozen=True)
class Keep:
    """What is to be kept.

    Attributes:
        images: `"buffer"`, those in the buffer at the end; a number, the last so many that came into it; None for none.
        logits: type of the teacher's logits, or `"none"`; None is float32 where it answers once an image, and none
            where it answers for each pixel, which would be many times the images.
        generator: keep it.

    Raises:
        InvalidInputError: when a number is below 1, or logits are to be kept without images.
    """

    images: Literal["buffer"] | int | None = None
    logits: Literal["float32", "float16", "none"] | None = None
    generator: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.images, int) and not 1 <= self.images <= MOST:
            raise InvalidInputError(f"--keep-images {self.images}: expected buffer, or a number from 1 to {MOST:,}")
        if self.logits is not None and self.images is None:
            raise InvalidInputError(f"--keep-logits {self.logits} needs images; give --keep-images buffer, or a number")

    @property
    def last(self) -> int:
        """Images that have to be held as they come; 0 for none."""
        return self.images if isinstance(self.images, int) else 0

    def check(self, env: SSDKDEnv) -> None:
        """Refuse what a method does not have.

        Raises:
            InvalidInputError: when it trains no generator, or its images are real ones.
        """
        method = env.method
        if self.images is not None and method.memory == "real":
            raise InvalidInputError(
                f"--keep-images: method {method.name!r} synthesises none, its images are the real ones; leave it out"
            )
        if self.generator and method.variables not in _INPUTS:
            raise InvalidInputError(f"--keep-generator: method {method.name!r} has none; leave it out")

    def dtype(self, task: Task) -> torch.dtype | None:
        """The type that logits are kept in; None where they are not."""
        chosen = self.logits or ("none" if task.dense else "float32")
        return {"float32": torch.float32, "float16": torch.float16, "none": None}[chosen]

    def image_bytes(self, task: Task) -> int:
        """Bytes of an image with all that is kept of it."""
        channels, height, width = task.spec.image_shape
        places, dtype = height * width if task.dense else 1, self.dtype(task)
        of_logits = 0 if dtype is None else dtype.itemsize * task.spec.num_classes
        round_bytes = torch.int32.itemsize
        return (
            channels * height * width + places * (label_dtype(task.spec.num_classes).itemsize + of_logits) + round_bytes
        )


def keep_images(folder: Path, env: SSDKDEnv, recent: Recent, keep: Keep, card: dict[str, Any]) -> int:
    """Write the images that are to be kept, with the teacher's answers to exactly these, and their card.

    Args:
        folder: of the run.
        env: at the end of its episode.
        recent: that has looked at it.
        keep: which images.
        card: what is known of the run.

    Returns:
        How many they are.

    Raises:
        InvalidInputError: when a file cannot be written, be it that the disk is full.
    """
    assert env.run is not None
    images, rounds = recent.images() if keep.last else _buffer(env.run)
    dtype, spec = keep.dtype(env.task), env.task.spec
    labels, logits = [], []
    for answers in _logits(env, images):
        labels.append(answers.argmax(dim=1).to("cpu", label_dtype(spec.num_classes)))
        if dtype is not None:
            logits.append(answers.to("cpu", dtype))
    described = card | {
        "images": len(images),
        "kept": "those of the buffer at the end" if keep.images == "buffer" else "the last that came into the buffer",
        "image_shape": list(spec.image_shape),
        "num_classes": spec.num_classes,
        "dense": env.task.dense,
        "logits": None if dtype is None else str(dtype).removeprefix("torch."),
        "normalization": {"mean": list(spec.mean), "std": list(spec.std)},
        "scaling": "images are uint8; the teacher took (images / 255 - mean) / std, a mean and std for each channel",
    }
    save_images(folder / IMAGES, images, rounds, torch.cat(logits) if logits else None, torch.cat(labels), described)
    write_json(folder / IMAGES_CARD, described)
    return len(images)


def _buffer(run: DistillationRun) -> tuple[Tensor, Tensor]:
    residents = run.buffer.residents
    return residents.images.cpu(), residents.born.cpu()


def _logits(env: SSDKDEnv, images: Tensor) -> Iterator[Tensor]:
    """The teacher's logits for images (N, C, H, W) uint8, part by part."""
    teacher, spec = env.task.teacher_on(env.device), env.task.spec
    normalize = Normalize(spec.mean, spec.std, env.device)
    for part in images.split(_CHUNK):
        yield logits_of(teacher, part.to(env.device), normalize)


def keep_generator(folder: Path, env: SSDKDEnv, card: dict[str, Any]) -> None:
    """Write the generator as it is now, with its card.

    Its file is a state dict of the network; NAYER's has the label embedding besides (`label_embedding`).

    Raises:
        InvalidInputError: when a file cannot be written.
    """
    assert env.run is not None
    spec, state = env.task.spec, env.run.inversion.source.state_dict()
    embedding = {} if state.get("embedding") is None else {"label_embedding": state["embedding"]}
    save_tensors(folder / GENERATOR, state["generator"] | embedding)
    described = card | {
        "weights": GENERATOR,
        "arch": spec.generator_arch,
        "options": dict(spec.generator_options),
        "latent_dim": spec.latent_dim,
        "image_shape": list(spec.image_shape),
        "mode": "train: inversion uses the statistics of the batch",
        "inputs": _INPUTS[env.method.variables],
        "outputs": "images in [0, 1], not normalised",
    }
    write_json(folder / GENERATOR_CARD, described)
