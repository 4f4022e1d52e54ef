"""InfoNCE against a sum by hand, and the bank of earlier images."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation import contrastive
from ssdkd_env.distillation.contrastive import CONTRASTIVE_TEMPERATURE, EMBEDDING, ContrastiveLoss
from tests.distillation.reference import close

FEATURES = 5


def make_loss(seed: int = 0, features: int = FEATURES) -> ContrastiveLoss:
    return ContrastiveLoss(features, torch.Generator().manual_seed(seed), torch.device("cpu"))


def draw(seed: int, count: int = 4, features: int = FEATURES) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def embed(loss: ContrastiveLoss, features: Tensor) -> list[np.ndarray]:
    """Unit embeddings in float64: linear, ReLU, linear, divided by the length."""
    state = {name: value.double().numpy() for name, value in loss.head.state_dict().items()}
    embedded = []
    for vector in features.double().numpy():
        hidden = np.maximum(state["0.weight"] @ vector + state["0.bias"], 0)
        out = state["2.weight"] @ hidden + state["2.bias"]
        embedded.append(out / math.sqrt(float(out @ out)))
    return embedded


def info_nce(loss: ContrastiveLoss, first: Tensor, second: Tensor, negatives: Tensor) -> float:
    """Mean −log of the positive's share among the batch's second views and the negatives."""
    anchors, others = embed(loss, first), embed(loss, second) + embed(loss, negatives)
    values = []
    for index, anchor in enumerate(anchors):
        similar = [math.exp(float(anchor @ other) / 0.2) for other in others]
        values.append(-math.log(similar[index] / math.fsum(similar)))
    return math.fsum(values) / len(values)


def test_the_constants_are_cmis() -> None:
    assert (contrastive.BANK_SIZE, contrastive.NEGATIVES, CONTRASTIVE_TEMPERATURE) == (40_960, 4_096, 0.2)


# --- the loss ---


def test_without_a_bank_the_batch_is_compared_with_itself() -> None:
    loss, first, second = make_loss(), draw(1), draw(2)
    close(loss(first, second), info_nce(loss, first, second, draw(3, 0)))


def test_earlier_images_are_negatives() -> None:
    loss, first, second = make_loss(), draw(1), draw(2)
    without = loss(first, second)
    loss.remember(draw(3, 6))
    loss.remember(draw(4, 2))
    close(loss(first, second), info_nce(loss, first, second, torch.cat([draw(3, 6), draw(4, 2)])))
    assert loss(first, second) > without


def test_of_a_large_bank_some_are_drawn_by_the_given_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "NEGATIVES", 3)
    loss, first, second, bank = make_loss(7), draw(1), draw(2), draw(3, 10)
    loss.remember(bank)
    same = torch.Generator()
    same.set_state(loss._random.get_state())
    values = []
    for _ in range(3):
        value = loss(first, second)
        negatives = bank[torch.randint(10, (3,), generator=same)]
        close(value, info_nce(loss, first, second, negatives))
        values.append(value.item())
    assert len(set(values)) > 1, "the same negatives every time"


def test_a_small_bank_draws_nothing() -> None:
    loss = make_loss()
    loss.remember(draw(3, 10))
    before = loss._random.get_state()
    loss(draw(1), draw(2))
    assert torch.equal(loss._random.get_state(), before)


def test_equal_views_of_unlike_images_cost_least() -> None:
    loss, images = make_loss(), draw(1, 6) * 3
    matched, shuffled = loss(images, images), loss(images, images.roll(1, dims=0))
    assert 0 < matched < shuffled
    alike = draw(1, 1).repeat(6, 1)
    close(loss(alike, alike), math.log(6))  # nothing tells them apart


def test_the_loss_is_differentiated_right_in_both_views() -> None:
    loss = make_loss().double()
    loss.remember(draw(3).double())
    views = [draw(seed).double().requires_grad_() for seed in (1, 2)]
    assert torch.autograd.gradcheck(loss, views)


def test_the_head_learns_and_the_bank_does_not() -> None:
    loss = make_loss()
    features = draw(3).requires_grad_()
    loss.remember(features * 2)
    assert not loss.bank.requires_grad
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    values = []
    for _ in range(5):
        value = loss(draw(1), draw(1) + 0.1 * draw(2))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values == sorted(values, reverse=True)
    assert features.grad is None
    assert torch.equal(loss.bank, draw(3) * 2)


# --- the bank ---


def test_the_bank_grows_and_the_oldest_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "BANK_SIZE", 7)
    loss = make_loss()
    assert loss.bank.shape == (0, FEATURES)
    batches = [draw(seed, 3) for seed in range(4)]
    for count, batch in enumerate(batches, start=1):
        loss.remember(batch)
        assert torch.equal(loss.bank, torch.cat(batches[:count])[-7:])
    loss.remember(draw(9, 20))
    assert torch.equal(loss.bank, draw(9, 20)[-7:])


def test_the_bank_is_a_copy_of_what_it_was_given() -> None:
    loss, features = make_loss(), draw(1)
    loss.remember(features)
    features.zero_()
    assert torch.equal(loss.bank, draw(1))


# --- initial weights and state ---


def test_initial_weights_come_from_the_given_source_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_loss(3)
    torch.manual_seed(2)
    second, other = make_loss(3), make_loss(4)
    states = [loss.state_dict() for loss in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["head.0.weight"], states[2]["head.0.weight"])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_uniform_as_in_a_linear_layer() -> None:
    loss = make_loss(features=400)
    for layer, inputs in ((loss.head[0], 400), (loss.head[2], EMBEDDING)):
        assert isinstance(layer, nn.Linear)
        bound = inputs**-0.5
        for values in (layer.weight, layer.bias):
            assert values.abs().max() <= bound
            assert values.abs().max() > 0.9 * bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("before", [0, 3, 9])
def test_a_state_resumes_whatever_the_banks_lengths(before: int) -> None:
    original, restored = make_loss(1), make_loss(2)
    original.remember(draw(3, 5))
    if before:
        restored.remember(draw(4, before))
    state = copy.deepcopy(dict(original.state_dict()))
    restored.load_state(state)
    assert torch.equal(restored.bank, original.bank)
    assert torch.equal(restored(draw(1), draw(2)), original(draw(1), draw(2)))
    state["bank"].zero_()
    assert torch.equal(restored.bank, draw(3, 5)), "the bank is still tied to the state"
    restored.remember(draw(5))
    assert len(restored.bank) == 9


def test_making_one_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    ContrastiveLoss(5, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
