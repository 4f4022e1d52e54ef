"""One registry of networks. A network is named (`"convnet"`) or given as an import path (`"mypkg.nets:make"`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.dcgan import DCGANGenerator
from ssdkd_env.networks.deeplab import DEEPLABS
from ssdkd_env.networks.generators import Generator
from ssdkd_env.networks.resnet import RESNETS
from ssdkd_env.networks.vgg import VGG11
from ssdkd_env.networks.wide_resnet import WIDE_RESNETS
from ssdkd_env.registry import Registry
from ssdkd_env.threads import one_at_a_time

#: First widths of the small classifiers by name.
CONVNET_WIDTHS = (6, 8, 10, 12, 16, 24)

#: Name → constructor of a generator; takes `latent_dim` and `image_shape`.
GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "generator": Generator,
    "generator_small": partial(Generator, channels=32),  # a quarter of the standard width, for a CPU
    "dcgan": DCGANGenerator,
    "dcgan_small": partial(DCGANGenerator, channels=128),
}

#: Name → constructor. All but the generators take `num_classes` and `in_channels`; they are classifiers of images, and
#: `DEEPLABS` of pixels.
NETWORKS: Registry[Callable[..., nn.Module]] = Registry(
    "network",
    None,
    {
        "convnet": ConvNet,
        # Channels w, 2w and 4w.
        **{f"convnet{width}": partial(ConvNet, channels=(width, 2 * width, 4 * width)) for width in CONVNET_WIDTHS},
        **GENERATORS,
        **RESNETS,
        **WIDE_RESNETS,
        "vgg11": VGG11,
        **DEEPLABS,
    },
)


@one_at_a_time
def build_network(
    argument: str, arch: str, options: Mapping[str, Any], seed: int, device: str | None = None
) -> nn.Module:
    """Build a network with initial weights that depend on `seed` alone.

    PyTorch's initialisers draw from the global CPU generator; its state is put back afterwards, so that
    nothing outside sees the draw.

    Args:
        argument: name of the user's argument, for error messages.
        arch: a key of `NETWORKS`, or an import path to a callable that returns an `nn.Module`.
        options: keyword arguments of the constructor.
        seed: seed of the initial weights.
        device: where it is made; `"meta"` makes shapes without memory.

    Raises:
        InvalidInputError: when `arch` is unknown, does not accept `options`, or returns no module.
    """
    factory = NETWORKS.find(arch, argument)
    with torch.random.fork_rng(devices=[]), nullcontext() if device is None else torch.device(device):
        torch.default_generator.manual_seed(seed)
        try:
            network = factory(**options)
        except TypeError as error:
            raise InvalidInputError(
                f"{argument}={arch!r} was called with {dict(options)} and refused: {error}; "
                "accept these keyword arguments in the factory"
            ) from error
    if not isinstance(network, nn.Module):
        raise InvalidInputError(f"{argument}={arch!r} returned {type(network).__name__}, expected a torch.nn.Module")
    return network
