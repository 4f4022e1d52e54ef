"""Folding BatchNorm into the convolutions before it, for a network that only answers."""

from __future__ import annotations

import copy
import linecache
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import _loader
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from ssdkd_env.networks.head import ExactPixelwise

#: Largest difference of the logits, relative to the largest logit, that still counts as rounding in float64.
TOLERANCE = 1e-6


def fold_batch_norm(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy of a frozen network in evaluation mode that answers the same with fewer operations.

    In evaluation mode BatchNorm is a scale and a shift for each channel, which the convolution before it can take
    over. A network that cannot be traced, or that would answer otherwise than before, is returned as it is.

    Args:
        network: in evaluation mode, on the CPU. (It is compared there in float64: a GPU's convolutions round so
            coarsely that a right copy would look wrong.)
        images: (N, C, H, W) float, an example of its input.

    Returns:
        The folded copy, or `network` itself.
    """
    folded = _folded_double(network, images)
    if folded is None:
        return network
    folded = folded.to(next(network.parameters()).dtype).requires_grad_(False).eval()
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class FoldedTwin:
    """What a network that is trained answers in evaluation mode, with fewer operations: `fold_batch_norm` of it, kept.

    Args:
        network: in evaluation mode.
        images: (N, C, H, W) float on the CPU, an example of its input; None to fold nothing.

    Attributes:
        network: asks like the network. Layers that are not folded are the network's own; the others have the weights
            of the last `follow()`. It is the network itself where nothing can be folded.
    """

    def __init__(self, network: nn.Module, images: Tensor | None) -> None:
        self.network = network
        self._pairs: list[tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]] = []
        if images is not None and _folded_double(copy.deepcopy(network).cpu(), images) is not None:
            with _sources_forgotten():
                self.network = traced = fx.GraphModule(network, _Tracer().trace(network))
                self._pairs = [(folded.requires_grad_(False), conv, norm) for folded, conv, norm in _fold(traced)]

    @torch.no_grad()
    def follow(self) -> None:
        """Take over the network's weights and statistics as they are now."""
        for folded, conv, norm in self._pairs:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            statistics = norm.running_mean, norm.running_var, norm.eps
            weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
            folded.weight.copy_(weight)
            assert folded.bias is not None
            folded.bias.copy_(bias)


def _folded_double(network: nn.Module, images: Tensor) -> nn.Module | None:
    """A folded copy in float64 that answers as the network does; None where there is none."""
    try:
        original = copy.deepcopy(network).double()
        with _sources_forgotten():
            traced = fx.GraphModule(original, _Tracer().trace(original))
            _fold(traced)
        with torch.no_grad():
            expected, answer = copy.deepcopy(network).double()(images.double()), traced(images.double())
    except Exception:  # a user's network can resist tracing or float64 in any way; it then stays unfolded
        return None
    if not isinstance(answer, Tensor) or answer.shape != expected.shape:
        return None
    if not (answer - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1.0):
        return None
    return traced


@contextmanager
def _sources_forgotten() -> Iterator[None]:
    """Forget the sources of networks that are traced here.

    PyTorch keeps each of them for ever, for tracebacks, also when the network is gone: some KiB for every episode.
    """
    kept = set(_loader.eval_cache)
    try:
        yield
    finally:
        for name in _loader.eval_cache.keys() - kept:
            del _loader.eval_cache[name]
            linecache.cache.pop(name, None)


class _Tracer(fx.Tracer):
    """Looks into no module without convolutions, which may then depend on the size of its input, nor into a head."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a module gives; of other threads, such as an agent's policy, tracing sees all calls and records none."""
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        looks_into = any(isinstance(part, (nn.Conv2d, nn.BatchNorm2d)) for part in m.modules())
        return super().is_leaf_module(m, module_qualified_name) or not looks_into or isinstance(m, ExactPixelwise)


def _fold(traced: fx.GraphModule) -> list[tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]]:
    """Fold every BatchNorm that alone uses the output of a convolution, where both are called once.

    Returns:
        The new convolutions, and what each stands for.
    """
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    folded = []
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        norm, conv = modules[str(node.target)], modules[str(before.target)]
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or not isinstance(conv, nn.Conv2d):
            continue
        if calls[node.target] > 1 or calls[before.target] > 1:
            continue
        folded.append((fuse_conv_bn_eval(conv, norm), conv, norm))
        traced.set_submodule(str(before.target), folded[-1][0])
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return folded
