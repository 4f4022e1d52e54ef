"""Asking a network what it sees in many images."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.execution import Forward

#: Images a forward pass. Larger batches use a core better until they leave its cache.
FORWARD_CHUNK = 512


@torch.no_grad()
def logits_of(network: Forward, images: Tensor, normalize: Normalize) -> Tensor:
    """Logits of a network in evaluation mode for images (N, C, H, W) uint8, without augmentation."""
    return torch.cat([network(normalize(chunk)) for chunk in images.split(FORWARD_CHUNK)])
