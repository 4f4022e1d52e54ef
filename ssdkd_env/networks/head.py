"""The last linear layer of a classifier, whose products make the logits."""

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


def exact(inputs: Tensor) -> torch.autocast:
    """Autocast switched off, on the inputs' device."""
    return torch.autocast(inputs.device.type, enabled=False)


def last_linear(network: nn.Module) -> tuple[str, nn.Linear] | None:
    """Name and module of the last linear layer; None where there is none."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def with_exact_head(network: nn.Module) -> nn.Module:
    """The network, whose last linear layer is from now on an `ExactLinear` with the same weights.

    A linear layer of a class of its own, and a network that is nothing but one, stay as they are.
    """
    found = last_linear(network)
    if found is not None and type(found[1]) is nn.Linear and found[0]:
        name, layer = found
        head = ExactLinear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        head.weight, head.bias = layer.weight, layer.bias
        network.set_submodule(name, head.train(layer.training))
    return network
