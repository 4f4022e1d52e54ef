"""Asking a network what it sees in many images."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.execution import Forward

#: Most images a forward pass.
FORWARD_CHUNK = 512
#: Most pixels of images that are gathered at once: `FORWARD_CHUNK` of 32×32. Beyond, what is made of large images, and
#: the logits of each of their pixels, take hundreds of MiB, which the system hands out anew every time.
GATHERED_PIXELS = FORWARD_CHUNK * 32 * 32
#: Most pixels of the images of a forward pass on a CPU: 64 images of 32×32. Beyond, the feature maps of the field's
#: networks leave a core's cache, and the pass takes longer.
CACHED_PIXELS = 65_536


def images_a_pass(images: Tensor) -> int:
    """How many of the images (N, C, H, W) pass a network at once."""
    if images.device.type != "cpu":
        return FORWARD_CHUNK
    return max(1, min(FORWARD_CHUNK, CACHED_PIXELS // (images.shape[2] * images.shape[3])))


def images_gathered(images: Tensor) -> int:
    """How many of the images (N, C, H, W) are gathered at once, whatever the device: random numbers are drawn so."""
    return max(1, min(FORWARD_CHUNK, GATHERED_PIXELS // (images.shape[2] * images.shape[3])))


@torch.no_grad()
def answers(network: Forward, inputs: Tensor) -> Tensor:
    """Logits of a network in evaluation mode for its inputs (N, C, H, W) float."""
    return torch.cat([network(part) for part in inputs.split(images_a_pass(inputs))])


@torch.no_grad()
def logits_of(network: Forward, images: Tensor, normalize: Normalize) -> Tensor:
    """Logits of a network in evaluation mode for images (N, C, H, W) uint8, without augmentation."""
    return torch.cat([network(normalize(part)) for part in images.split(images_a_pass(images))])
