"""Matching the statistics that a teacher's BatchNorm layers remember."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssdkd_env import ranges
from ssdkd_env.distillation.restoring import restored
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
        runs: batches of as many runs pass the network at once, one after the other in the first dimension.
    """

    def __init__(self, network: nn.Module, momentum: float = 0.0, instances: bool = False, runs: int = 1) -> None:
        self.layers = batch_norm_layers(network)
        self.momentum = momentum
        self.runs = runs
        self._instances: list[Tensor] | None = [] if instances else None
        #: Means and variances of all layers side by side, and to which of them each number belongs.
        self._remembered, self._owner = _remembered(self.layers)
        #: Blended statistics of earlier batches, (runs, features); None before the first.
        self.past: Tensor | None = None
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
            self._batch[index] = _MeanAndVariance.apply(features, self.runs)  # type: ignore[no-untyped-call]
            if self._instances is not None:
                means = features.flatten(2).mean(dim=2) if features.dim() > 2 else features
                self._instances.append(means.to(self._remembered.dtype))

        if self._instances is not None:
            self._instances = []
        self._batch = {}  # a forward pass that failed midway leaves none of its statistics behind
        handles = [layer.register_forward_pre_hook(record) for layer in self.layers if wanted]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @ranges.part("statistics")
    def loss(self) -> Tensor:
        """L_BN of the forward pass since the last call, (runs,)."""
        if len(self._batch) < len(self.layers):
            raise InvalidInputError(
                f"teacher: only {len(self._batch)} of its {len(self.layers)} BatchNorm layers are used in a pass; "
                "remove the others from the network"
            )
        # In the order of the layers, which need not be the order in which a pass meets them.
        statistics = [statistic for index in range(len(self.layers)) for statistic in self._batch[index]]
        batch = torch.cat(statistics, dim=1)
        self._batch = {}
        self._last = batch.detach()
        if self.past is not None:
            batch = self.momentum * self.past + (1 - self.momentum) * batch
        squares = (self._remembered - batch).square()
        distances = squares.new_zeros(self.runs, 2 * len(self.layers)).index_add(1, self._owner, squares)
        # The root has no gradient at 0; below the smallest number the clamp gives the norm's, which is 0.
        return distances.clamp_min(torch.finfo(distances.dtype).tiny).sqrt().sum(dim=1)

    def instance_features(self) -> Tensor:
        """Each image's mean inputs of all BatchNorm layers side by side, (N, features), of the last forward pass."""
        assert self._instances, "made without instances=True, or nothing was captured"
        return torch.cat(self._instances, dim=1)

    def end_round(self) -> None:
        """Blend the last batch's statistics into those of earlier rounds."""
        if self.momentum == 0.0 or not self.layers:
            return
        past = self._last if self.past is None else self.past
        self.past = self.momentum * past + (1 - self.momentum) * self._last

    def joined(self, members: Sequence[BatchNormStatistics]) -> BatchNormStatistics:
        """Statistics of several runs at once, which go on from what the members have blended."""
        joined = copy.copy(self)
        joined.runs, joined._batch = len(members), {}
        past = [member.past for member in members if member.past is not None]
        joined.past = torch.cat(past) if past else None
        return joined

    def part(self, members: Mapping[int, BatchNormStatistics]) -> None:
        """Give members, by their number among those that were joined, what was blended for them."""
        if self.past is not None:
            for index, member in members.items():
                member.past = self.past[[index]]

    def state_dict(self) -> dict[str, Tensor | None]:
        """The blended statistics of earlier rounds, (runs, features); None before the first."""
        return {"past": None if self.past is None else self.past.clone()}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        """Continue from `state_dict()`."""
        past = state["past"]
        like = self._remembered.new_empty(self.runs, len(self._remembered))
        self.past = None if past is None else restored(like, past, "the blended statistics")


class _MeanAndVariance(torch.autograd.Function):
    """Mean and biased variance of each run's channels, (runs · N, C, …) → (runs, C) and (runs, C).

    The gradient in closed form is one multiply-add over the features, ``(g_mean − 2·g_var·mean)/M + 2·g_var/M · x``,
    where autograd would make four passes.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, runs: int) -> tuple[Tensor, Tensor]:
        by_run = features.unflatten(0, (runs, -1))
        dims = [d for d in range(by_run.dim()) if d not in (0, 2)]
        # Two plain reductions: on the CPU torch.var_mean over these dimensions is several times slower.
        dtype = torch.promote_types(features.dtype, torch.float32)  # bfloat16 would lose the difference of squares
        mean = by_run.mean(dims, dtype=dtype)
        variance = (by_run.to(dtype).square().mean(dims) - mean.square()).clamp_min(0.0)
        ctx.save_for_backward(features, mean, variance)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        features, mean, variance = ctx.saved_tensors
        runs, channels = mean.shape
        per_channel = features.numel() // (runs * channels)
        scale = 2.0 / per_channel * gradients[1] * (variance > 0)
        shift = gradients[0] / per_channel - scale * mean
        shape = (runs, 1, channels, *[1] * (features.dim() - 2))
        by_run = features.unflatten(0, (runs, -1))
        return torch.addcmul(shift.view(shape), by_run, scale.view(shape)).flatten(0, 1), None


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
