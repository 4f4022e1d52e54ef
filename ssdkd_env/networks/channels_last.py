"""Operations whose gradients lie as convolutions like them, in channels_last, where PyTorch's own do not.

Autograd gives the gradient of a mean over pixels as an expanded view and that of a slice in the contiguous layout. The
layers below then meet two layouts at once, and on a CPU ReLU's gradient takes many times as long. The values here are
PyTorch's, bit by bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GlobalAveragePooling(nn.Module):
    """The mean over all pixels: (N, C, H, W) → (N, C), float32 at least."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C)."""
        pooled: Tensor = _MeanOverPixels.apply(features)  # type: ignore[no-untyped-call]
        return pooled


def every_second_pixel(features: Tensor, channels_before: int, channels_after: int) -> Tensor:
    """Every second row and column, and zeros for new channels before and after the old ones.

    Args:
        features: (N, C, H, W).
        channels_before: new ones before the old.
        channels_after: new ones after them.

    Returns:
        (N, channels_before + C + channels_after, ⌈H/2⌉, ⌈W/2⌉).
    """
    taken: Tensor = _EverySecondPixel.apply(features, channels_before, channels_after)  # type: ignore[no-untyped-call]
    return taken


def to_channels_last(features: Tensor) -> Tensor:
    """(N, C, H, W) from another layout; the gradient comes back in the contiguous one."""
    converted: Tensor = _ToChannelsLast.apply(features)  # type: ignore[no-untyped-call]
    return converted


def keep_gradient_channels_last(logits: Tensor) -> Tensor:
    """Dense logits, whose gradient then comes in the layout that they have themselves.

    Softmax answers, and sends gradients back, in the contiguous layout. The enlargement of logits takes five times as
    long to go back from there as the conversion does.

    Args:
        logits: (N, classes, H, W) with their channels last; others stay as they are.
    """
    if logits.dim() == 4 and logits.requires_grad and logits.is_contiguous(memory_format=torch.channels_last):
        logits.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
    return logits


class _ToChannelsLast(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor) -> Tensor:
        return features.clone(memory_format=torch.channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing is needed."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Copied even if it looks contiguous: while a graph is recorded, BatchNorm's gradient does, and later is not.
        return gradients[0].clone(memory_format=torch.contiguous_format)


class _MeanOverPixels(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor) -> Tensor:
        # A mean in bfloat16 would be rounded once more, before the layer that must not round.
        return features.mean(dim=(2, 3), dtype=torch.promote_types(features.dtype, torch.float32))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.shape, ctx.dtype = inputs[0].shape, inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        height, width = ctx.shape[2:]
        spread: Tensor = (gradients[0] / (height * width)).to(ctx.dtype)[:, :, None, None].expand(ctx.shape)
        return spread.contiguous(memory_format=torch.channels_last)


class _EverySecondPixel(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, before: int, after: int) -> Tensor:
        return F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, before, after))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        ctx.shape, ctx.before = inputs[0].shape, inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        own = gradients[0].narrow(1, ctx.before, ctx.shape[1])
        spread = torch.empty(ctx.shape, dtype=own.dtype, device=own.device, memory_format=torch.channels_last).zero_()
        spread[:, :, ::2, ::2] = own
        return spread, None, None
