"""Folding BatchNorm into the convolutions before it, for a frozen network."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
    try:
        original = copy.deepcopy(network).double()
        traced = fx.GraphModule(original, _Tracer().trace(original))
        _fold(traced)
        with torch.no_grad():
            expected, answer = copy.deepcopy(network).double()(images.double()), traced(images.double())
    except Exception:  # a user's network can resist tracing or float64 in any way; it then stays unfolded
        return network
    if not isinstance(answer, Tensor) or answer.shape != expected.shape:
        return network
    if not (answer - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1.0):
        return network
    folded = traced.to(next(network.parameters()).dtype).requires_grad_(False).eval()
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Tracer(fx.Tracer):
    """Looks into no module without convolutions, which may then depend on the size of its input."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        looks_into = any(isinstance(part, (nn.Conv2d, nn.BatchNorm2d)) for part in m.modules())
        return super().is_leaf_module(m, module_qualified_name) or not looks_into


def _fold(traced: fx.GraphModule) -> None:
    """Fold every BatchNorm that alone uses the output of a convolution, where both are called once."""
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        norm, conv = modules[str(node.target)], modules[str(before.target)]
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or not isinstance(conv, nn.Conv2d):
            continue
        if calls[node.target] > 1 or calls[before.target] > 1:
            continue
        traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
