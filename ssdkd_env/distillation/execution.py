"""How the forward passes of the hot loops are done: in which precision, and compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssdkd_env.errors import check_choice

#: A network as it is called.
Forward = Callable[[Tensor], Tensor]
#: What convolutions and products are computed in. Weights, losses and optimisers stay float32.
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Execution:
    """How networks are called where inversion steps and student minibatches are made.

    Attributes:
        precision: one of `PRECISIONS`; `"bfloat16"` is PyTorch's autocast.
        compiler: a backend of `torch.compile` such as `"inductor"`, which on CUDA records the passes as CUDA graphs;
            empty to call networks as they are.

    Raises:
        InvalidInputError: when the precision is unknown.
    """

    precision: str = "float32"
    compiler: str = ""

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)

    def of(self, network: nn.Module, hooked: bool = False) -> Forward:
        """The network's forward pass, done so; its result has PyTorch's default type.

        Args:
            network: whose.
            hooked: hooks will come and go on its layers, as those that read statistics: it is not compiled then.
        """
        forward: Forward = network
        if self.compiler and not hooked:
            on_cuda = any(parameter.device.type == "cuda" for parameter in network.parameters())
            mode = "reduce-overhead" if on_cuda and self.compiler == "inductor" else None
            forward = torch.compile(network, backend=self.compiler, mode=mode, dynamic=False)
        return forward if self.precision == "float32" else _autocast(forward)


#: Networks as they are, in float32.
EAGER = Execution()


def _autocast(forward: Forward) -> Forward:
    def run(inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs = forward(inputs)
        return outputs.to(torch.get_default_dtype())

    return run
