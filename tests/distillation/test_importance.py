"""Importance weights: their scale, what they correct, and what a candidate enters with."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssdkd_env.distillation import priority

BETAS = [0.0, 0.4, 0.7, 1.0]
SIZES = [18, 180, 5000]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread_kl(count: int, spread: float, seed: int = 0) -> Tensor:
    """KL divergences that are spread log-normally."""
    return (spread * torch.randn(count, dtype=torch.float64, generator=generator(seed))).exp()


def probabilities_of(kl: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """P of the paper's sampler."""
    delta = priority.priority(torch.as_tensor(weights), kl)
    return (delta + priority.PRIORITY_EPSILON) / (delta + priority.PRIORITY_EPSILON).sum()


# --- scale ---


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("beta", BETAS)
def test_a_drawn_image_has_weight_one_on_average(beta: float, count: int, spread: float) -> None:
    probabilities = probabilities_of(spread_kl(count, spread))
    weights = priority.importance_weights(probabilities, beta)
    assert (probabilities * weights).sum().item() == pytest.approx(1.0, abs=1e-6)
    draws = priority.draw_with_replacement(probabilities, 200_000, generator(1))
    deviation = (probabilities * (weights - 1).square()).sum().sqrt().item()
    assert weights[draws].mean().item() == pytest.approx(1.0, abs=4 * deviation / math.sqrt(200_000) + 1e-6)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30), st.floats(0.0, 1.0))
def test_weights_are_the_inverse_power_of_p_whatever_their_scale(raw: list[float], beta: float) -> None:
    probabilities = [r / math.fsum(raw) for r in raw]
    powers = [(len(raw) * p) ** -beta for p in probabilities]
    mean = math.fsum(p * power for p, power in zip(probabilities, powers, strict=True))
    bound = math.sqrt(len(raw))

    def mean_of(scale: float) -> float:
        return math.fsum(p * min(scale * power, bound) for p, power in zip(probabilities, powers, strict=True))

    low, high = 1 / mean, 1e9  # the scale that makes the mean of truncated weights 1, by halving
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_of(middle) < 1 else (low, middle)
    expected = {
        "mean": [min(high * power, bound) for power in powers],
        "maximum": [power / max(powers) for power in powers],
        "plain": powers,
    }
    assert set(expected) == set(priority.IMPORTANCE_NORMALIZATIONS)
    for normalization, by_hand in expected.items():
        weights = priority.importance_weights(torch.tensor(probabilities, dtype=torch.float64), beta, normalization)
        assert weights.dtype == torch.float32
        assert weights.tolist() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("count", [180, 5000])
@pytest.mark.parametrize("spread", [0.1, 1.0, 1.5])
def test_no_weight_of_the_papers_plan_is_truncated(count: int, spread: float) -> None:
    probabilities = probabilities_of(spread_kl(count, spread))
    powers = (count * probabilities) ** -0.4
    weights = priority.importance_weights(probabilities, 0.4)
    assert weights.tolist() == pytest.approx((powers / (probabilities * powers).sum()).tolist(), rel=1e-5)


def test_a_rare_image_does_not_throw_the_student() -> None:
    """Its weight would be 10,000 times the mean of the others."""
    probabilities = torch.full((100,), 1.0, dtype=torch.float64)
    probabilities[0] = 1e-4
    probabilities /= probabilities.sum()
    weights = priority.importance_weights(probabilities, 1.0)
    assert weights[0].item() == pytest.approx(10.0, rel=0.02)  # √100
    assert (probabilities * weights).sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("beta", BETAS)
def test_plain_weights_have_a_mean_of_at_most_one_over_the_draws(beta: float) -> None:
    probabilities = probabilities_of(spread_kl(500, 1.5))
    weights = priority.importance_weights(probabilities, beta, "plain")
    mean = (probabilities * weights).sum().item()
    assert mean == pytest.approx((500**-beta * probabilities ** (1 - beta)).sum().item(), rel=1e-5)
    assert mean <= 1.0 + 1e-6


def test_weights_by_maximum_shrink_the_steps_of_a_large_buffer() -> None:
    # What the default is not: KL spread exponentially, with mean 1, over 5,000 images.
    kl = torch.rand(5000, dtype=torch.float64, generator=generator(0)).log().neg()
    probabilities = probabilities_of(kl)
    means = {
        beta: (probabilities * priority.importance_weights(probabilities, beta, "maximum")).sum().item()
        for beta in (0.4, 1.0)
    }
    assert means[0.4] == pytest.approx(0.14, abs=0.01)
    assert means[1.0] == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("normalization", sorted(priority.IMPORTANCE_NORMALIZATIONS))
def test_beta_zero_switches_importance_weights_off(normalization: str) -> None:
    probabilities = torch.tensor([0.7, 0.2, 0.1]).double()
    weights = priority.importance_weights(probabilities / probabilities.sum(), 0.0, normalization)
    assert weights.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("spread", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("count", SIZES)
def test_at_beta_one_the_expected_weighted_gradient_is_that_of_uniform_draws(count: int, spread: float) -> None:
    """Where no weight is truncated."""
    probabilities = probabilities_of(spread_kl(count, spread))
    assert (count * probabilities).min() > count**-0.5
    gradients = torch.randn(count, 5, dtype=torch.float64, generator=generator(3))
    weights = priority.importance_weights(probabilities, beta=1.0).double()
    expected = (probabilities[:, None] * weights[:, None] * gradients).sum(dim=0)
    assert expected.tolist() == pytest.approx(gradients.mean(dim=0).tolist(), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("normalization", sorted(priority.IMPORTANCE_NORMALIZATIONS))
def test_weights_of_an_image_that_is_never_drawn_are_finite(normalization: str) -> None:
    weights = priority.importance_weights(torch.tensor([0.0, 1.0]).double(), 1.0, normalization)
    assert weights.isfinite().all()
    assert weights[0] > weights[1] > 0
    assert priority.priority(weights, torch.zeros(2)).tolist() == [0.0, 0.0]


# --- what becomes of δ over the rounds ---


def settled(kl: Tensor, beta: float, rounds: int) -> list[Tensor]:
    """P of each round where the KL stays as it is."""
    weights, seen = torch.ones_like(kl), []
    for _ in range(rounds):
        delta = priority.priority(weights, kl)
        seen.append(delta / delta.sum())
        weights = priority.importance_weights(seen[-1], beta).double()
    return seen


@pytest.mark.parametrize("beta", [0.2, 0.4, 0.7])
def test_sampling_tends_to_a_root_of_the_kl(beta: float) -> None:
    kl = spread_kl(200, 1.0)
    expected = kl ** (1 / (1 + beta))
    assert settled(kl, beta, 60)[-1].tolist() == pytest.approx((expected / expected.sum()).tolist(), rel=1e-3)


def test_at_beta_one_sampling_alternates() -> None:
    kl = spread_kl(200, 0.5)
    *_, first, second = settled(kl, 1.0, 20)
    assert first.tolist() == pytest.approx((kl / kl.sum()).tolist(), rel=1e-3)
    assert second.tolist() == pytest.approx([1 / 200] * 200, rel=1e-3)


@pytest.mark.parametrize("exponent", [-2.0, 1.0, 2.0])
@pytest.mark.parametrize("beta", [0.4, 1.0])
def test_weights_and_priorities_stay_bounded_over_the_rounds(exponent: float, beta: float) -> None:
    """Beyond aβ = 1 each round would drive them further apart."""
    kl, weights = spread_kl(180, 1.0), torch.ones(180, dtype=torch.float64)
    for _ in range(200):
        delta = priority.priority(weights, kl) + priority.PRIORITY_EPSILON
        probabilities = delta**exponent / (delta**exponent).sum()
        weights = priority.importance_weights(probabilities, beta).double()
        assert weights.max() <= math.sqrt(180) + 1e-5  # 10¹² without truncation
    assert (probabilities * weights).sum().item() == pytest.approx(1.0, abs=1e-6)


# --- who enters ---


def experienced(beta: float, seed: int) -> tuple[Tensor, Tensor]:
    """KL and weights of 2,000 residents that have been in the buffer for one to eight rounds, learning in between."""
    random = generator(seed)
    count, oldest = 2000, 8
    kl = (torch.randn(count, dtype=torch.float64, generator=random)).exp()
    weights, age = torch.ones_like(kl), torch.randint(1, oldest + 1, (count,), generator=random)
    for to_go in range(oldest, 0, -1):
        inside = age >= to_go
        new = age == to_go
        if inside.any() and new.any() and not new.equal(inside):
            old = inside & ~new
            weights[new] = priority.entering_weights(kl[new], kl[old], weights[old]).double()
        probabilities = probabilities_of(kl[inside], weights[inside])
        weights[inside] = priority.importance_weights(probabilities, beta).double()
        # Some images are learnt, others forgotten.
        kl[inside] *= (0.3 * torch.randn(int(inside.sum()), dtype=torch.float64, generator=random)).exp()
    return kl, weights


def odds(candidate_weights: Tensor, kl: Tensor, weights: Tensor) -> Tensor:
    """How often a candidate with a resident's KL takes its place under the paper's sampler (Gumbel top-1 of both)."""
    ours, theirs = (priority.priority(own, kl) + priority.PRIORITY_EPSILON for own in (candidate_weights, weights))
    return ours / (ours + theirs)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("beta", BETAS)
def test_at_equal_kl_candidate_and_resident_compete_as_equals(beta: float, seed: int) -> None:
    kl, weights = experienced(beta, seed)
    entering = priority.entering_weights(kl, kl, weights).double()
    fair = odds(entering, kl, weights)
    assert fair.mean().item() == pytest.approx(0.5, abs=0.01)
    for third in kl.argsort().chunk(3):  # the easy, the middling and the hard ones
        assert fair[third].mean().item() == pytest.approx(0.5, abs=0.04)


def test_with_a_weight_of_one_the_hard_candidates_would_win_and_the_easy_ones_lose() -> None:
    kl, weights = experienced(0.4, 0)
    unfair = odds(torch.ones_like(kl), kl, weights)
    easy, _, hard = kl.argsort().chunk(3)
    assert unfair[easy].mean() < 0.45
    assert unfair[hard].mean() > 0.52


def test_entering_weights_are_those_of_a_line_in_logarithms() -> None:
    kl = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64) - priority.PRIORITY_EPSILON
    weights = torch.tensor([4.0, 2.0, 1.0])  # halved by each factor of ten
    entering = priority.entering_weights(torch.tensor([10**0.5]).double() - priority.PRIORITY_EPSILON, kl, weights)
    assert entering.tolist() == pytest.approx([2**0.5])


def test_entering_weights_stay_among_the_residents_weights() -> None:
    kl = torch.tensor([0.1, 1.0, 10.0])
    entering = priority.entering_weights(torch.tensor([0.0, 1e6]), kl, torch.tensor([4.0, 2.0, 1.0]))
    assert entering.tolist() == pytest.approx([4.0, 1.0])


@pytest.mark.parametrize(
    ("resident_kl", "weights", "expected"),
    [
        ([], [], 1.0),
        ([2.0], [0.5], 0.5),
        ([2.0, 2.0], [0.5, 2.0], 1.0),  # no slope to be seen: their geometric mean
        ([1.0, 5.0], [1.0, 1.0], 1.0),  # uniform sampling
        ([0.37] * 180, [0.5, 2.0] * 90, 1.0),  # whose mean KL is rounded
        ([0.0] * 7, [0.5] * 7, 0.5),
    ],
)
def test_entering_weights_of_few_residents(resident_kl: list[float], weights: list[float], expected: float) -> None:
    entering = priority.entering_weights(torch.tensor([3.0, 0.0]), torch.tensor(resident_kl), torch.tensor(weights))
    assert entering.tolist() == pytest.approx([expected, expected])
    assert entering.dtype == torch.float32
