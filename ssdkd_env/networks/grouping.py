"""Networks of one architecture side by side as a single one, whose convolutions are grouped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssdkd_env import ranges
from ssdkd_env.networks.head import ExactLinear, exact

#: Largest difference of the answers, relative to the largest answer, that still counts as rounding in float64.
TOLERANCE = 1e-9
#: Images a network when a group is compared with its members.
EXAMPLES = 3


class NetworkGroup(nn.Module):
    """`count` networks of one architecture, each of which sees its own share of a batch.

    Inside, the networks lie beside each other in the channels: a convolution becomes one with `count` times the
    groups, BatchNorm one with `count` times the channels, a linear layer a batched product. Many small operations
    become few large ones, and no number of one network enters that of another.

    It has no weights to keep: they are gathered from the members before a piece of work and scattered after it.

    Args:
        network: one of the members, as a pattern.
        count: how many.

    Raises:
        NotImplementedError: when it holds a layer that has no grouped form.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.count = count
        self.network = _grouped(copy.deepcopy(network), count)
        own = [*self.network.parameters(), *self.network.buffers()]
        self._own = [tensor for tensor in own if tensor.dim()]
        #: BatchNorm's numbers of batches since the weights were gathered; before that every member had its own.
        self._counters = [tensor for tensor in own if not tensor.dim()]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (count · N, …) to (count · N, …): the first N are the first network's, and so on."""
        outputs: Tensor = self.network(self._beside(inputs))
        if outputs.dim() == 4:  # with the channels last, as one network's
            by_network = outputs.permute(0, 2, 3, 1).unflatten(3, (self.count, -1))
            one_after_the_other: Tensor = by_network.permute(3, 0, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)
            return one_after_the_other
        one_after_the_other = outputs.unflatten(1, (self.count, -1)).transpose(0, 1).flatten(0, 1)
        return one_after_the_other

    def _beside(self, inputs: Tensor) -> Tensor:
        """(count · N, C, …) → (N, count · C, …), images in the layout that convolutions like best."""
        beside: Tensor = inputs.unflatten(0, (self.count, -1)).transpose(0, 1).flatten(1, 2)
        return beside.contiguous(memory_format=torch.channels_last) if beside.dim() == 4 else beside

    @ranges.part("grouping")
    @torch.no_grad()
    def gather(self, networks: Sequence[nn.Module]) -> None:
        """Take over the members' parameters, buffers and mode (training or evaluation)."""
        self.network.train(networks[0].training)
        own, theirs = self._pairs(networks)
        torch._foreach_copy_(own, theirs)
        for counter in self._counters:
            counter.zero_()

    @ranges.part("grouping")
    @torch.no_grad()
    def scatter(self, networks: Sequence[nn.Module]) -> None:
        """Give parameters and buffers back to the members."""
        own, theirs = self._pairs(networks)
        torch._foreach_copy_(theirs, own)
        for network in networks:
            counters = [tensor for tensor in (*network.parameters(), *network.buffers()) if not tensor.dim()]
            for counter, passes in zip(counters, self._counters, strict=True):
                counter.add_(passes)
        for passes in self._counters:
            passes.zero_()

    def _pairs(self, networks: Sequence[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
        own = list(chain.from_iterable(self.shares(self._own)))
        members = chain.from_iterable((*network.parameters(), *network.buffers()) for network in networks)
        return own, [tensor for tensor in members if tensor.dim()]

    def shares(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Views of grouped tensors, such as parameters or their gradients: a list for each member."""
        parts = [tensor.chunk(self.count) for tensor in tensors]
        return [[part[index] for part in parts] for index in range(self.count)]


def can_group(network: nn.Module, make_input: Callable[[int], Tensor]) -> bool:
    """Whether a group of such networks answers as each of them does alone, compared in float64.

    Training mode and evaluation mode are tried, with different weights in each member. A network that draws random
    numbers, mixes channels by hand or has a layer without grouped form cannot.

    Args:
        network: on the CPU or another device that knows float64.
        make_input: gives that many float64 inputs, on the network's device.
    """
    try:
        device = make_input(1).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            members = [copy.deepcopy(network).double() for _ in range(2)]
            for seed, member in enumerate(members):
                _disturb(member, seed)
            group = NetworkGroup(members[0], 2)
            before = _random_states(device)
            same = all(_same(group, members, make_input, training) for training in (True, False))
            # The answers alone would not show a dropout that happens to drop nothing.
            return same and all(map(torch.equal, before, _random_states(device)))
    except Exception:  # a user's network can resist copying, float64 or another layout in any way
        return False


@torch.no_grad()
def _same(group: NetworkGroup, members: list[nn.Module], make_input: Callable[[int], Tensor], training: bool) -> bool:
    for member in members:
        member.train(training)
    group.gather(members)
    inputs = make_input(2 * EXAMPLES)
    answers = group(inputs)
    scattered = copy.deepcopy(members)
    group.scatter(scattered)
    expected = torch.cat([member(part) for member, part in zip(members, inputs.chunk(2), strict=True)])
    pairs = [(answers, expected)]
    for own, member in zip(scattered, members, strict=True):
        pairs += list(zip(own.buffers(), member.buffers(), strict=True))
    return all(_close(actual, wanted) for actual, wanted in pairs)


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _close(actual: Tensor, wanted: Tensor) -> bool:
    if actual.shape != wanted.shape:
        return False
    difference, scale = (actual - wanted).abs(), wanted.abs()
    return bool((difference <= TOLERANCE * scale.amax().clamp_min(1.0)).all()) if difference.numel() else True


@torch.no_grad()
def _disturb(network: nn.Module, seed: int) -> None:
    """Change every weight and statistic, so that members which were mixed up would be seen; a diverged one's too."""
    random = torch.Generator().manual_seed(seed)
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.is_floating_point():
            factors = 1.0 + torch.rand(tensor.shape, generator=random, dtype=tensor.dtype).to(tensor.device)
            tensor.copy_(torch.where(tensor.isfinite(), tensor * factors, factors))


class _GroupedLinear(nn.Module):
    """`count` linear layers side by side: (N, count · in) → (N, count · out)."""

    def __init__(self, layer: nn.Linear, count: int) -> None:
        super().__init__()
        self.count, self.exact = count, isinstance(layer, ExactLinear)
        self.weight = nn.Parameter(_repeated(layer.weight, count), requires_grad=layer.weight.requires_grad)
        self.bias: nn.Parameter | None = None
        if layer.bias is not None:
            self.bias = nn.Parameter(_repeated(layer.bias, count), requires_grad=layer.bias.requires_grad)

    def forward(self, inputs: Tensor) -> Tensor:
        """One batched product, exact where the members' are."""
        if not self.exact:
            return self._product(inputs)
        with exact(inputs):
            return self._product(inputs.to(self.weight.dtype))

    def _product(self, inputs: Tensor) -> Tensor:
        weight = self.weight.unflatten(0, (self.count, -1)).transpose(1, 2)
        by_network = inputs.unflatten(1, (self.count, -1)).transpose(0, 1)
        if self.bias is None:
            outputs = torch.bmm(by_network, weight)
        else:
            outputs = torch.baddbmm(self.bias.view(self.count, 1, -1), by_network, weight)
        return outputs.transpose(0, 1).flatten(1)


def _grouped(module: nn.Module, count: int) -> nn.Module:
    """Turn a copy of a network into a group of it; a module with a method `grouped(count)` does so itself."""
    if callable(own_form := getattr(module, "grouped", None)):
        form: nn.Module = own_form(count)
        return form
    if isinstance(module, nn.Linear):
        return _GroupedLinear(module, count)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        module.groups *= count
        module.in_channels *= count
        module.out_channels *= count
    elif isinstance(module, _BatchNorm | nn.InstanceNorm2d):
        if module.momentum is None:
            raise NotImplementedError("an average over all batches weighs them by how many each member has had")
        module.num_features *= count
    elif isinstance(module, nn.GroupNorm):
        module.num_groups *= count
        module.num_channels *= count
    elif isinstance(module, nn.Unflatten):
        sizes = module.unflattened_size
        module.unflattened_size = (sizes[0] * count, *sizes[1:])
    else:
        return _grouped_rest(module, count)
    for name, parameter in module.named_parameters(recurse=False):
        repeated = nn.Parameter(_repeated(parameter, count), requires_grad=parameter.requires_grad)
        module.register_parameter(name, repeated)
    for name, buffer in module.named_buffers(recurse=False):
        module.register_buffer(name, _repeated(buffer, count))
    return module


def _grouped_rest(module: nn.Module, count: int) -> nn.Module:
    """A module without weights of its own: it must treat channels alike, which `can_group` tries out."""
    if any(True for _ in chain(module.parameters(recurse=False), module.buffers(recurse=False))):
        raise NotImplementedError(f"{type(module).__name__} has no grouped form")
    for name, child in list(module.named_children()):
        module.register_module(name, _grouped(child, count))
    return module


def _repeated(tensor: Tensor, count: int) -> Tensor:
    """`count` copies one after the other in the first dimension; numbers without dimension are common to all."""
    if tensor.dim() == 0:
        return tensor.detach().clone()
    repeated = torch.cat([tensor.detach()] * count)
    return repeated.contiguous(memory_format=torch.channels_last) if repeated.dim() == 4 else repeated
