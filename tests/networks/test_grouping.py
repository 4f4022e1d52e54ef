"""Networks side by side against each of them alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdkd_env.networks import build_network
from ssdkd_env.networks.grouping import NetworkGroup, can_group
from tests.own_networks import DenseNet, DictNet, DropoutNet, FlatGenerator, TiedNet

IMAGE = (3, 8, 8)
LATENT = (6,)
#: Images of each network.
EACH = 5

_CLASSIFIER: dict[str, Any] = {"num_classes": 4, "in_channels": 3}
_GENERATOR: dict[str, Any] = {"latent_dim": LATENT[0], "image_shape": (2, 8, 8)}
#: One network of each family as it is named, and forms that no name has: architecture, options, shape of an input.
REGISTERED: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "convnet": ("convnet", _CLASSIFIER | {"channels": (6, 8, 10)}, IMAGE),
    "convnet without BatchNorm": ("convnet", _CLASSIFIER | {"channels": (5, 6), "batch_norm": False}, IMAGE),
    "dcgan": ("dcgan", _GENERATOR | {"image_shape": (2, 33, 40), "channels": 32}, LATENT),
    "deeplab_small12": ("deeplab_small12", _CLASSIFIER, (3, 16, 24)),
    "generator": ("generator", _GENERATOR, LATENT),
    "generator_small": ("generator_small", _GENERATOR, LATENT),
    "resnet8": ("resnet8", _CLASSIFIER, IMAGE),
    "resnet20": ("resnet20", _CLASSIFIER, IMAGE),
    "resnet with projections": ("resnet18", _CLASSIFIER | {"blocks": (1, 2, 1), "widths": (4, 5, 7)}, IMAGE),
    "resnet with odd widths": ("resnet8", _CLASSIFIER | {"widths": (4, 7, 12)}, IMAGE),
    "vgg11": ("vgg11", _CLASSIFIER, IMAGE),
    "wrn16_1": ("wrn16_1", _CLASSIFIER, IMAGE),
}


@pytest.fixture(autouse=True)
def narrow_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-11 with few channels: it has no option for them, and nine million weights."""
    monkeypatch.setattr("ssdkd_env.networks.vgg.WIDTHS", ((4,), (5,), (6, 7), (8, 8), (9, 9)))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def disturbed(network: nn.Module, seed: int) -> nn.Module:
    """The network in float64 with statistics, weights of its norms and counters that no other seed has."""
    random = torch.Generator().manual_seed(seed)
    network = network.double()
    with torch.no_grad():
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(torch.rand(tensor.shape, generator=random, dtype=torch.float64) + 0.5)
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=random, dtype=torch.float64))
            else:
                tensor.fill_(seed)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.abs_().add_(0.1)
    return network


def build(name: str, count: int = 3) -> list[nn.Module]:
    """Networks of one architecture and unequal weights."""
    arch, options, _ = REGISTERED[name]
    return [disturbed(build_network("arch", arch, options, seed), seed) for seed in range(1, count + 1)]


def in_seed(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Equal but for rounding in float64."""
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def assert_a_group_is_its_members(members: list[nn.Module], shape: tuple[int, ...], training: bool) -> None:
    """Answers, gradients of inputs and parameters, and what a pass leaves in the buffers."""
    alone = [copy.deepcopy(member).train(training) for member in members]
    group = NetworkGroup(members[0], len(members))
    group.gather([member.train(training) for member in members])
    inputs = [numbers(EACH, *shape, seed=10 + index).requires_grad_() for index in range(len(members))]
    together = torch.cat([part.detach() for part in inputs]).requires_grad_()

    answers = group(together)
    expected = [network(part) for network, part in zip(alone, inputs, strict=True)]
    assert_equal(answers, torch.cat(expected))

    cotangents = numbers(*answers.shape, seed=20)
    (answers * cotangents).sum().backward()
    for answer, cotangent in zip(expected, cotangents.chunk(len(members)), strict=True):
        (answer * cotangent).sum().backward()
    assert together.grad is not None
    assert_equal(together.grad, torch.cat([part.grad for part in inputs if part.grad is not None]))
    trained = [parameter for parameter in group.parameters() if parameter.requires_grad]
    gradients = group.shares([parameter.grad for parameter in trained if parameter.grad is not None])
    for share, network in zip(gradients, alone, strict=True):
        for gradient, parameter in zip(share, (p for p in network.parameters() if p.requires_grad), strict=True):
            assert parameter.grad is not None
            assert_equal(gradient, parameter.grad)

    group.scatter(members)
    for member, network in zip(members, alone, strict=True):
        state = member.state_dict()
        assert state.keys() == network.state_dict().keys()
        for key, value in network.state_dict().items():
            assert_equal(state[key], value)


# --- a group is its members ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", REGISTERED)
def test_a_group_is_its_members_alone(name: str, training: bool) -> None:
    assert_a_group_is_its_members(build(name), REGISTERED[name][2], training)


def test_several_passes_add_up_in_the_buffers() -> None:
    members = build("convnet")
    alone = [copy.deepcopy(member).train() for member in members]
    group = NetworkGroup(members[0], 3)
    group.gather([member.train() for member in members])
    for seed in range(3):
        inputs = numbers(3 * EACH, *IMAGE, seed=seed)
        group(inputs)
        for network, part in zip(alone, inputs.chunk(3), strict=True):
            network(part)
    group.scatter(members)
    group.scatter(members)  # changes nothing more
    for member, network in zip(members, alone, strict=True):
        for buffer, expected in zip(member.buffers(), network.buffers(), strict=True):
            assert_equal(buffer, expected)


def test_every_network_sees_its_own_share_of_the_batch() -> None:
    """A change of one share changes the answers to that share alone."""
    members = build("convnet")
    group = NetworkGroup(members[0], 3)
    group.gather([member.train() for member in members])
    inputs = numbers(3 * EACH, *IMAGE)
    before = group(inputs)
    inputs[EACH : 2 * EACH] += 1.0
    changed = (group(inputs) != before).flatten(1).any(dim=1)
    assert changed.tolist() == [False] * EACH + [True] * EACH + [False] * EACH


def test_one_network_is_a_group_too() -> None:
    assert_a_group_is_its_members(build("resnet8", count=1), IMAGE, training=True)


# --- gathering and scattering ---


@pytest.mark.parametrize("name", ["generator", "resnet8"])
def test_what_was_gathered_is_scattered_again(name: str) -> None:
    members = [member.to(memory_format=torch.channels_last) for member in build(name)]  # type: ignore[call-overload]
    before = [copy.deepcopy(member.state_dict()) for member in members]
    group = NetworkGroup(members[0], 3)
    for _ in range(2):
        group.gather(members)
        with torch.no_grad():
            for tensor in itertools.chain(*(member.parameters() for member in members)):
                tensor.zero_()
        group.scatter(members)
        group.scatter(members)
    for member, state in zip(members, before, strict=True):
        for key, value in member.state_dict().items():
            assert torch.equal(value, state[key]), key
            assert value.stride() == state[key].stride(), key


def test_members_keep_their_weights_to_themselves() -> None:
    """The group holds copies: what it does to them shows in no member before it is scattered."""
    members = build("convnet")
    before = [copy.deepcopy(member.state_dict()) for member in members]
    group = NetworkGroup(members[0], 3)
    group.gather([member.train() for member in members])
    group(numbers(3 * EACH, *IMAGE))
    with torch.no_grad():
        for parameter in group.parameters():
            parameter.zero_()
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in member.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_a_group_is_in_its_members_mode(training: bool) -> None:
    members = build("convnet")
    group = NetworkGroup(members[0].train(not training), 3)
    group.gather([member.train(training) for member in members])
    assert all(module.training == training for module in group.network.modules())


def test_shares_are_views_of_each_members_part() -> None:
    group = NetworkGroup(nn.Linear(2, 2), 3)
    whole = torch.arange(6.0)
    shares = group.shares([whole, whole.view(3, 2)])
    assert [[part.flatten().tolist() for part in share] for share in shares] == [[[i, i + 1.0]] * 2 for i in (0, 2, 4)]
    shares[1][0].zero_()
    assert whole.tolist() == [0, 1, 0, 0, 4, 5]
    assert group.shares([]) == [[], [], []]


# --- what can be grouped ---


class Swish(nn.Module):
    """A module of the user's own without parameters."""

    def forward(self, features: Tensor) -> Tensor:
        return features * features.sigmoid()


class ByHand(nn.Module):
    """A classifier with an operation of the user's own on its features."""

    def __init__(self, operation: Callable[[Tensor], Tensor], width: int = 6) -> None:
        super().__init__()
        self.operation = operation
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(width, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(self.operation(self.first(images))).mean(dim=(2, 3))
        return logits


class SharedLayer(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.inner = nn.Sequential(self.first)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.inner(self.first(images))
        return answer


class Scaled(nn.Linear):
    """A layer that looks like another."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2.0 * super().forward(inputs)


class Reshaped(nn.Module):
    """A generator that knows how many channels it has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Conv2d(4, 3, 1)

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.second(self.first(latents).view(-1, 4, 2, 2))
        return images


class OwnScale(nn.Module):
    """A layer with weights that has a grouped form of its own; a wrong one, if it is to mix up the members."""

    def __init__(self, mixes: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(6))
        self.count, self.mixes = 1, mixes

    def grouped(self, count: int) -> nn.Module:
        self.scale = nn.Parameter(self.scale.detach().repeat(count))
        self.count = count
        return self

    def forward(self, features: Tensor) -> Tensor:
        scale = self.scale.view(self.count, 6)
        return features * (scale.flip(0) if self.mixes else scale).reshape(1, -1, 1, 1)


class OwnStatistic(nn.Module):
    """A layer that changes no answer, and in its grouped form remembers what all members have seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(1))

    def grouped(self, count: int) -> nn.Module:
        self.level = torch.zeros(count)
        return self

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            self.level.fill_(features.mean().item())
        return features


class Mixing(nn.Module):
    """Takes its channels in another order, in one of the two modes."""

    def __init__(self, in_training: bool) -> None:
        super().__init__()
        self.in_training = in_training

    def forward(self, features: Tensor) -> Tensor:
        return features.flip(1) if self.training == self.in_training else features


def stacked(*layers: nn.Module) -> nn.Sequential:
    """A convolution, the layers on its six channels, and a linear classifier."""
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *layers, nn.Flatten(), nn.Linear(6 * 64, 4))


def with_frozen_bias() -> nn.Module:
    network = stacked(nn.ReLU())
    for layer in (network[0], network[-1]):
        layer.bias.requires_grad_(False)
    return network


def weight_normed() -> nn.Module:
    network = stacked()
    nn.utils.parametrizations.weight_norm(network[0])
    return network


#: Networks that have a grouped form, and the shape of an input.
GROUPABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "an own module without parameters": (lambda: stacked(nn.BatchNorm2d(6), Swish()), IMAGE),
    "an own operation": (lambda: ByHand(torch.tanh), IMAGE),
    "without BatchNorm": (lambda: stacked(nn.ReLU()), IMAGE),
    "frozen biases": (with_frozen_bias, IMAGE),
    "GroupNorm": (lambda: stacked(nn.GroupNorm(2, 6), nn.ReLU(inplace=True)), IMAGE),
    "InstanceNorm": (lambda: stacked(nn.InstanceNorm2d(6, affine=True, track_running_stats=True)), IMAGE),
    "BatchNorm without statistics": (lambda: stacked(nn.BatchNorm2d(6, track_running_stats=False)), IMAGE),
    "a depthwise convolution": (lambda: stacked(nn.Conv2d(6, 6, 3, padding=1, groups=3)), IMAGE),
    "a transposed convolution": (
        lambda: nn.Sequential(
            nn.Linear(6, 32),
            nn.BatchNorm1d(32),
            nn.Unflatten(1, (8, 2, 2)),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2),
            nn.Tanh(),
            nn.ConvTranspose2d(6, 3, 4, 2, 1, bias=False),
        ),
        LATENT,
    ),
    "linear layers": (lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)), LATENT),
    "dropout that drops nothing": (lambda: stacked(nn.Dropout(0.0)), IMAGE),
    "a layer with a grouped form of its own": (lambda: stacked(OwnScale()), IMAGE),
    "dense prediction": (lambda: DenseNet(4, 3), IMAGE),
    "a generator": (lambda: FlatGenerator(6, IMAGE), LATENT),
}
#: Networks that have none.
UNGROUPABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dropout": (lambda: DropoutNet(4), (1, 8, 8)),
    "dropout of channels": (lambda: stacked(nn.Dropout2d(0.5)), IMAGE),
    "dropout that seldom drops": (lambda: stacked(nn.Flatten(), nn.Dropout(1e-9)), IMAGE),
    "noise": (lambda: ByHand(lambda features: features + torch.randn_like(features)), IMAGE),
    "softmax over channels": (lambda: ByHand(lambda features: features.softmax(dim=1)), IMAGE),
    "a layer of softmax": (lambda: stacked(nn.Softmax2d()), IMAGE),
    "probabilities": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Softmax(dim=1)), IMAGE),
    "LayerNorm": (lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 4)), IMAGE),
    "PReLU": (lambda: stacked(nn.PReLU()), IMAGE),
    "PReLU of channels": (lambda: stacked(nn.PReLU(6)), IMAGE),
    "channels put side by side by hand": (lambda: ByHand(lambda f: torch.cat([f, f.relu()], dim=1), 12), IMAGE),
    "channels taken apart by hand": (lambda: ByHand(lambda f: f[:, :3], 3), IMAGE),
    "channels in another order": (lambda: ByHand(lambda f: f.flip(1)), IMAGE),
    "channels in another order while it trains": (lambda: stacked(Mixing(True)), IMAGE),
    "channels in another order while it answers": (lambda: stacked(Mixing(False)), IMAGE),
    "an own grouped form that mixes up the members": (lambda: stacked(OwnScale(mixes=True)), IMAGE),
    "an own statistic of all members": (lambda: stacked(OwnStatistic()), IMAGE),
    "channels compared": (lambda: ByHand(lambda f: f - f.mean(dim=1, keepdim=True)), IMAGE),
    "a number from all features": (lambda: ByHand(lambda f: f / f.abs().max()), IMAGE),
    "cumulative BatchNorm": (lambda: stacked(nn.BatchNorm2d(6, momentum=None)), IMAGE),
    "tied weights": (lambda: TiedNet(4), (4,)),
    "a layer in two places": (SharedLayer, IMAGE),
    "a layer that looks like another": (lambda: nn.Sequential(nn.Flatten(), Scaled(192, 4)), IMAGE),
    "weight norm": (weight_normed, IMAGE),
    "spectral norm": (lambda: FlatGenerator(6, IMAGE, spectral=True), LATENT),
    "a shape written out": (Reshaped, LATENT),
    "an answer in a dictionary": (lambda: DictNet(4, 3), IMAGE),
}


def examples(shape: tuple[int, ...]) -> Callable[[int], Tensor]:
    return lambda count: numbers(count, *shape)


@pytest.mark.parametrize("name", GROUPABLE)
def test_these_networks_can_be_grouped_and_are_their_members_then(name: str) -> None:
    make, shape = GROUPABLE[name]
    networks = [in_seed(make, seed) for seed in range(3)]
    assert can_group(networks[0], examples(shape))
    for training in (True, False):
        members = [disturbed(network, seed) for seed, network in enumerate(networks)]
        assert_a_group_is_its_members(members, shape, training)


@pytest.mark.parametrize("name", [name for name in REGISTERED if name != "resnet20"])
def test_registered_networks_can_be_grouped(name: str) -> None:
    arch, options, shape = REGISTERED[name]
    assert can_group(build_network("arch", arch, options, 0), examples(shape))


@pytest.mark.parametrize("name", UNGROUPABLE)
def test_these_networks_cannot_be_grouped(name: str) -> None:
    make, shape = UNGROUPABLE[name]
    assert not can_group(in_seed(make, 0), examples(shape))


def test_a_diverged_network_can_be_grouped() -> None:
    """What a network is decides, not what its weights are at the moment."""
    network = build("convnet")[0]
    with torch.no_grad():
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)
    assert can_group(network, examples(IMAGE))
    assert not can_group(nn.Sequential(network, nn.Softmax(dim=1)), examples(IMAGE))


@pytest.mark.parametrize("layer", [nn.PReLU(6), nn.LayerNorm((6, 8, 8)), nn.BatchNorm2d(6, momentum=None)])
def test_a_layer_without_grouped_form_is_refused(layer: nn.Module) -> None:
    with pytest.raises(NotImplementedError):
        NetworkGroup(stacked(layer), 2)


def test_a_trained_network_can_be_grouped() -> None:
    network = build("convnet")[0].train()
    network(numbers(EACH, *IMAGE))
    assert can_group(network.float(), examples(IMAGE))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [lambda: DropoutNet(4, 3), lambda: stacked(nn.BatchNorm2d(6))])
def test_asking_leaves_no_trace(make: Callable[[], nn.Module], training: bool) -> None:
    network = in_seed(make, 0).train(training)
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    can_group(network, examples(IMAGE))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training == training for module in network.modules())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.dtype == before[key].dtype


# --- one diverged network ---


def everything(
    members: list[nn.Module], inputs: Tensor, training: bool
) -> tuple[list[list[Tensor]], list[dict[str, Tensor]]]:
    """Each member's answers, gradients of inputs and parameters; and its state after the pass."""
    count = len(members)
    group = NetworkGroup(members[0], count)
    group.gather([member.train(training) for member in members])
    inputs = inputs.clone().requires_grad_()
    answers = group(inputs)
    gradients = torch.autograd.grad(F.mse_loss(answers, torch.ones_like(answers)), [inputs, *group.parameters()])
    group.scatter(members)
    parts = zip(answers.detach().chunk(count), gradients[0].chunk(count), group.shares(gradients[1:]), strict=True)
    return [[answer, gradient, *share] for answer, gradient, share in parts], [m.state_dict() for m in members]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize(
    ("arch", "options", "shape"),
    [
        ("convnet", {"num_classes": 10, "in_channels": 1, "channels": (2, 3)}, (1, 8, 8)),
        ("convnet", {"num_classes": 10, "in_channels": 3, "channels": (12, 20)}, IMAGE),
        ("convnet", {"num_classes": 10, "in_channels": 2, "channels": (16, 32)}, (2, 8, 8)),
        ("generator", {"latent_dim": 6, "image_shape": (1, 8, 8), "channels": 10}, LATENT),
        ("generator", {"latent_dim": 6, "image_shape": (3, 8, 8), "channels": 16}, LATENT),
        ("resnet8", {"num_classes": 4, "in_channels": 3, "widths": (4, 8, 16)}, (3, 4, 4)),
    ],
)
def test_what_is_no_number_stays_in_its_network(
    arch: str, options: dict[str, Any], shape: tuple[int, ...], count: int, training: bool
) -> None:
    """In float32 and channels-last, as runs have it, where libraries pad and block the channels."""
    bad = count // 2
    members = [
        build_network("arch", arch, options, seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for seed in range(count)
    ]
    inputs = numbers(count * EACH, *shape).float()
    broken_inputs = inputs.clone()
    broken_inputs[bad * EACH : (bad + 1) * EACH] = torch.nan
    broken = copy.deepcopy(members)
    with torch.no_grad():
        for parameter in broken[bad].parameters():
            parameter.fill_(torch.nan)

    sound, states = everything(copy.deepcopy(members), inputs, training)
    for networks, batch in ((broken, inputs), (members, broken_inputs)):
        found, found_states = everything(networks, batch, training)
        assert found[bad][0].isnan().any()
        for index in set(range(count)) - {bad}:
            assert all(map(torch.equal, found[index], sound[index]))
            assert all(torch.equal(value, states[index][key]) for key, value in found_states[index].items())
