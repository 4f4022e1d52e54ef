"""Matching the statistics that a teacher's BatchNorm layers remember."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssdkd_env.errors import InvalidInputError


def batch_norm_layers(network: nn.Module) -> list[_BatchNorm]:
    """The network's BatchNorm layers that hold running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


class BatchNormStatistics:
    """Matches the batch's feature statistics to those that the teacher's BatchNorm layers remember.

    ``L_BN = Σ_layers ‖running_mean − mean‖₂ + ‖running_var − var‖₂`` (DeepInversion, Yin et al. 2020), with the
    biased batch variance. With momentum m (Fast, Fang et al. 2022), the batch's statistics are first blended
    with those of earlier rounds, ``m·past + (1−m)·batch``, so that a small batch need not match alone.

    Hooks are attached only inside `capture`, never during distillation.

    Args:
        network: the frozen teacher.
        momentum: m in [0, 1); 0 uses the batch alone.
        instances: also keep each image's mean features, for the contrastive loss.
    """

    def __init__(self, network: nn.Module, momentum: float = 0.0, instances: bool = False) -> None:
        self.layers = batch_norm_layers(network)
        self.momentum = momentum
        self._instances: list[Tensor] | None = [] if instances else None
        #: Means and variances of all layers side by side, and to which of them each number belongs.
        self._remembered, self._owner = _remembered(self.layers)
        self._past: Tensor | None = None
        self._index = {layer: index for index, layer in enumerate(self.layers)}
        self._batch: dict[int, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def capture(self, wanted: bool = True) -> Iterator[None]:
        """Record the statistics of every forward pass of the network inside this block, if they are wanted."""

        def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            features, index = inputs[0], self._index[layer]  # type: ignore[index]
            if index in self._batch:
                raise InvalidInputError(
                    f"teacher: its {type(layer).__name__} number {index} is used twice in one pass, so that its "
                    "statistics belong to neither place; give each place a layer of its own"
                )
            self._batch[index] = _MeanAndVariance.apply(features)  # type: ignore[no-untyped-call]
            if self._instances is not None:
                self._instances.append(features.flatten(2).mean(dim=2) if features.dim() > 2 else features)

        if self._instances is not None:
            self._instances = []
        self._batch = {}  # a forward pass that failed midway leaves none of its statistics behind
        handles = [layer.register_forward_pre_hook(record) for layer in self.layers if wanted]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def loss(self) -> Tensor:
        """L_BN of the forward pass since the last call, a scalar."""
        if len(self._batch) < len(self.layers):
            raise InvalidInputError(
                f"teacher: only {len(self._batch)} of its {len(self.layers)} BatchNorm layers are used in a pass; "
                "remove the others from the network"
            )
        # In the order of the layers, which need not be the order in which a pass meets them.
        batch = torch.cat([statistic for index in range(len(self.layers)) for statistic in self._batch[index]])
        self._batch = {}
        self._last = batch.detach()
        if self._past is not None:
            batch = self.momentum * self._past + (1 - self.momentum) * batch
        squares = (self._remembered - batch).square()
        distances = squares.new_zeros(2 * len(self.layers)).index_add(0, self._owner, squares)
        # The root has no gradient at 0; below the smallest number the clamp gives the norm's, which is 0.
        return distances.clamp_min(torch.finfo(distances.dtype).tiny).sqrt().sum()

    def instance_features(self) -> Tensor:
        """Each image's mean inputs of all BatchNorm layers side by side, (N, features), of the last forward pass."""
        assert self._instances, "made without instances=True, or nothing was captured"
        return torch.cat(self._instances, dim=1)

    def end_round(self) -> None:
        """Blend the last batch's statistics into those of earlier rounds."""
        if self.momentum == 0.0 or not self.layers:
            return
        past = self._last if self._past is None else self._past
        self._past = self.momentum * past + (1 - self.momentum) * self._last

    def state_dict(self) -> dict[str, Tensor | None]:
        """The blended statistics of earlier rounds; None before the first."""
        return {"past": None if self._past is None else self._past.clone()}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        """Continue from `state_dict()`."""
        past = state["past"]
        self._past = None if past is None else past.to(self._remembered.device).clone()


class _MeanAndVariance(torch.autograd.Function):
    """Mean and biased variance of each channel, (N, C, …) → (C,) and (C,).

    The gradient in closed form is one multiply-add over the features, ``(g_mean − 2·g_var·mean)/M + 2·g_var/M · x``,
    where autograd would make four passes.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        dims = [d for d in range(features.dim()) if d != 1]
        # Two plain reductions: on the CPU torch.var_mean over these dimensions is several times slower.
        mean = features.mean(dims)
        variance = (features.square().mean(dims) - mean.square()).clamp_min(0.0)
        ctx.save_for_backward(features, mean, variance)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        features, mean, variance = ctx.saved_tensors
        per_channel = features.numel() // features.shape[1]
        scale = 2.0 / per_channel * gradients[1] * (variance > 0)
        shift = gradients[0] / per_channel - scale * mean
        shape = (1, -1, *[1] * (features.dim() - 2))
        return torch.addcmul(shift.view(shape), features, scale.view(shape))


def _remembered(layers: list[_BatchNorm]) -> tuple[Tensor, Tensor]:
    values: list[Tensor] = []
    for layer in layers:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        values += [layer.running_mean, layer.running_var]
    if not values:
        return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    sizes = torch.tensor([len(value) for value in values])
    return torch.cat(values), torch.arange(len(values)).repeat_interleave(sizes).to(values[0].device)
