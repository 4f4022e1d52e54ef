"""How the forward passes of the hot loops are done: in which precision, and compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssdkd_env.devices import computes_bfloat16
from ssdkd_env.errors import check_choice

#: A network as it is called.
Forward = Callable[[Tensor], Tensor]
#: How a run's arithmetic is done; see `DistillationRun`.
BACKENDS = ("plain", "fast", "compiled")
#: What convolutions and products are computed in. Weights, losses and optimisers stay float32.
PRECISIONS = ("float32", "bfloat16")
#: What a user may ask for.
PRECISION_CHOICES = ("auto", *PRECISIONS)
#: Pixels of an image from which on bfloat16 is taken on a CPU (20×20); below, the conversions cost what it saves.
PIXELS_FOR_BFLOAT16 = 400


def choose_backend(backend: str) -> str:
    """The backend that a name means.

    Raises:
        InvalidInputError: when it is unknown.
    """
    check_choice("backend", backend, (*BACKENDS, "auto"))
    return "fast" if backend == "auto" else backend


class Precision(NamedTuple):
    """What a run computes in.

    Attributes:
        name: one of `PRECISIONS`.
        reason: why, in words.
    """

    name: str
    reason: str


def choose_precision(precision: str, device: torch.device, image_shape: tuple[int, int, int]) -> Precision:
    """The precision that a setting means: itself, or for `"auto"` the faster one.

    It depends on the device and the size of the images, never on a clock, so that a machine always chooses alike.

    Args:
        precision: one of `PRECISION_CHOICES`.
        device: that computes.
        image_shape: (C, H, W).

    Raises:
        InvalidInputError: when the setting is unknown.
    """
    check_choice("precision", precision, PRECISION_CHOICES)
    if precision != "auto":
        return Precision(precision, "it was asked for")
    _, height, width = image_shape
    if not computes_bfloat16(device):
        return Precision("float32", f"this {device.type} device does not compute bfloat16 natively")
    if device.type == "cpu" and height * width < PIXELS_FOR_BFLOAT16:
        return Precision("float32", f"images of {height}×{width} are too small to gain by bfloat16")
    return Precision("bfloat16", f"this {device.type} device computes it natively, and images of {height}×{width} gain")


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
            forward = forward if mode is None else _kept(forward)
        return forward if self.precision == "float32" else _autocast(forward)


#: Networks as they are, in float32.
EAGER = Execution()


def _kept(forward: Forward) -> Forward:
    """With outputs that last: those of a CUDA graph are overwritten by the next pass, and some wait for others."""
    return lambda inputs: forward(inputs).clone()


def _autocast(forward: Forward) -> Forward:
    def run(inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs = forward(inputs)
        return outputs.to(torch.get_default_dtype())

    return run
