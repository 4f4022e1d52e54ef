"""The last layer of a classifier, whose products make the logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExactLinear(nn.Linear):
    """A linear layer that autocast does not round.

    Rounded to bfloat16, a logit is off by up to 0.4 % of itself, which at T = 20 is not far from what a good student
    still differs by.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (…, in_features) to (…, out_features), in the type of the weights."""
        with exact(inputs):
            return super().forward(inputs.to(self.weight.dtype))


class ExactPixelwise(nn.Conv2d):
    """The same for the 1×1 convolution that answers for each pixel."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W), in the type of the weights."""
        with exact(inputs):
            return super().forward(inputs.to(self.weight.dtype))


def exact(inputs: Tensor) -> torch.autocast:
    """Autocast switched off, on the inputs' device."""
    return torch.autocast(inputs.device.type, enabled=False)


def last_linear(network: nn.Module) -> tuple[str, nn.Linear] | None:
    """Name and module of the last linear layer; None where there is none."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def with_exact_head(network: nn.Module) -> nn.Module:
    """The network, whose last layer is from now on an exact one with the same weights.

    That is its last linear layer, or, where it has none, its last convolution if that is a 1×1 one. A layer of a class
    of its own, and a network that is nothing but one, stay as they are.
    """
    found = last_layer(network)
    if found is None or not found[0]:
        return network
    name, layer = found
    head: ExactLinear | ExactPixelwise
    if type(layer) is nn.Linear:
        head = ExactLinear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    elif type(layer) is nn.Conv2d:
        head = ExactPixelwise(layer.in_channels, layer.out_channels, 1, bias=layer.bias is not None, device="meta")
    else:
        return network
    head.weight, head.bias = layer.weight, layer.bias
    network.set_submodule(name, head.train(layer.training))
    return network


def last_layer(network: nn.Module) -> tuple[str, nn.Module] | None:
    """Name and module of the layer that gives the logits: the last linear one, or a last 1×1 convolution; else None."""
    return last_linear(network) or _last_pixelwise(network)


def _last_pixelwise(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Name and module of the last convolution, if it is a plain 1×1 one."""
    convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    name, last = convolutions[-1] if convolutions else ("", None)
    plain = last is not None and last.kernel_size == last.stride == (1, 1) and last.padding == (0, 0)
    return (name, last) if last is not None and plain and last.groups == 1 else None
