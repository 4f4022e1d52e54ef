"""Folding BatchNorm into convolutions."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from threading import Thread

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssdkd_env.networks import folding
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.folding import FoldedTwin, fold_batch_norm
from ssdkd_env.networks.registry import build_network
from tests.networks.test_classifiers import CLASSIFIERS

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(arch: str) -> nn.Module:
    """A network whose BatchNorm layers have seen some noise, frozen."""
    network = build_network("teacher_arch", arch, {"num_classes": 5, "in_channels": 3}, seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=random)
                module.bias.uniform_(-0.2, 0.2, generator=random)
        for _ in range(3):
            network.train()(2 * torch.randn(8, 3, 16, 16, generator=random) + 0.3)
    return network.eval().requires_grad_(False)


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("arch", CLASSIFIERS)
def test_the_folded_network_answers_the_same_with_fewer_layers(arch: str) -> None:
    network = trained(arch)
    before, answers = batch_norms(network), network(IMAGES)
    folded = fold_batch_norm(network, IMAGES)
    assert folded is not network
    torch.testing.assert_close(folded(IMAGES), answers, rtol=1e-4, atol=1e-4 * float(answers.abs().max()))
    assert batch_norms(network) == before, "the original is left as it was"
    # A pre-activation network normalises before its convolutions, so that less than half can be folded.
    assert batch_norms(folded) <= (0.6 * before if arch.startswith("wrn") else 0)


class Odd(nn.Module):
    """One convolution whose output goes two ways, one that is used twice, and one branch on the data."""

    def __init__(self, branch: bool) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.second_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.branch = branch

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.first(images)
        features = features + self.first_norm(features)
        features = self.second_norm(self.second(features)) + self.second(features)
        if self.branch and features.sum() > 0:
            features = -features
        return features.mean(dim=(2, 3))


def test_what_is_used_elsewhere_too_is_not_folded() -> None:
    network = Odd(branch=False).eval()
    folded = fold_batch_norm(network, IMAGES)
    torch.testing.assert_close(folded(IMAGES), network(IMAGES))
    assert batch_norms(folded) == 2


def test_a_network_that_cannot_be_traced_is_returned_as_it_is() -> None:
    network = Odd(branch=True).eval()
    assert fold_batch_norm(network, IMAGES) is network


def test_a_copy_that_would_answer_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fold_wrongly(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
        folded = fuse_conv_bn_eval(conv, norm)
        with torch.no_grad():
            folded.weight.mul_(1.0 + 1e-3)
        return folded

    network = trained("resnet8")
    monkeypatch.setattr(folding, "fuse_conv_bn_eval", fold_wrongly)
    assert fold_batch_norm(network, IMAGES) is network


@pytest.mark.parametrize("arch", ["resnet8", "convnet", "wrn16_1", "vgg11"])
def test_a_twin_answers_as_its_network_does_whenever_it_follows(arch: str) -> None:
    network = trained(arch).double().requires_grad_(True)
    twin, images = FoldedTwin(network, IMAGES), IMAGES.double()
    assert twin.network is not network
    assert batch_norms(twin.network) < batch_norms(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(2):
        before = network(images)
        network.train()(images).square().mean().backward()
        optimizer.step()
        network.eval()
        answers = network(images)
        assert (answers - before).abs().max() > 1e-3
        assert (answers - twin.network(images)).abs().max() > 1e-3, "it follows when it is told to"
        twin.follow()
        torch.testing.assert_close(twin.network(images), answers, rtol=1e-9, atol=1e-9)


def test_a_twin_of_a_network_that_cannot_be_folded_is_that_network() -> None:
    network = Odd(branch=True).eval()
    twin = FoldedTwin(network, IMAGES)
    twin.follow()
    assert twin.network is network
    unfolded = trained("resnet8")
    assert FoldedTwin(unfolded, None).network is unfolded


def test_gradients_pass_a_twin_to_its_inputs_and_leave_none_on_what_was_folded() -> None:
    network = trained("resnet8").double().requires_grad_(True)
    twin = FoldedTwin(network, IMAGES)
    gradients: list[Tensor] = []
    for asked in (network, twin.network):
        images = IMAGES.double().requires_grad_()
        gradients += torch.autograd.grad(asked(images).square().sum(), images)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)
    folded = {id(parameter) for parameter in twin.network.parameters()} - {id(p) for p in network.parameters()}
    assert folded
    assert not any(p.requires_grad for p in twin.network.parameters() if id(p) in folded)


class Telephone(nn.Module):
    """While it works, another thread calls a network of its own."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.call: Callable[[], Tensor] = lambda: other(torch.ones(1, 2))
        self.heard: list[object] = []

    def forward(self, images: Tensor) -> Tensor:
        def listen() -> None:
            try:
                self.heard.append(self.call())
            except Exception as error:
                self.heard.append(error)

        thread = Thread(target=listen)
        thread.start()
        thread.join()
        answer: Tensor = self.norm(self.conv(images)).mean(dim=(2, 3))
        return answer


def test_tracing_leaves_the_networks_of_other_threads_alone() -> None:
    """It replaces `nn.Module.__call__` for all threads: an agent's policy may act while an environment is reset."""
    policy = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    network = Telephone(policy).eval()
    twin = FoldedTwin(network, IMAGES)
    assert batch_norms(twin.network) == 0, "it was traced"
    assert network.heard
    for answer in network.heard:
        assert isinstance(answer, Tensor), answer
        torch.testing.assert_close(answer, policy(torch.ones(1, 2)))


def test_sources_of_traced_networks_are_not_kept() -> None:
    """PyTorch keeps them for ever, so that a process grows with every episode."""
    images = torch.rand(2, 1, 8, 8)
    network = ConvNet(3, 1, (4, 5)).eval()
    before = len(linecache.cache)
    for _ in range(3):
        twin = FoldedTwin(network, images)
        twin.follow()
        assert fold_batch_norm(network, images) is not network
    assert len(linecache.cache) == before
    assert torch.allclose(twin.network(images), network(images), atol=1e-5)
