"""φ, δ, P and w: the functions of SSD-KD, pure.

Source: SSD-KD (CVPR 2024, arXiv 2406.07876). Its exact equations were not available to us: those marked
*reconstructed* follow its text and figures. Logits are (N, C) or, for dense prediction, (N, C, H, W); an
image's value is then the mean over its pixels, and its class is the histogram of its pixels' classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

#: ε of the sampling probability: keeps an image that the student has learnt reachable. Reconstructed.
PRIORITY_EPSILON = 1e-2
#: Least N·P that importance weights tell apart: keeps them finite in float32 for an image that is never drawn.
SMALLEST_RATIO = 1e-12
#: What the importance weights (N·P)^−β are divided by.
IMPORTANCE_NORMALIZATIONS = {
    "mean": "by the mean over draws, Σ P·w, so that a drawn image has weight 1 on average; none is above √N",
    "maximum": "by the maximum over the buffer, as in prioritised replay (Schaul et al. 2016)",
    "plain": "by nothing; the mean over draws is then N^−β Σ P^(1−β) ≤ 1",
}

Measure = TypeVar("Measure", bound=Callable[..., Tensor])

#: Most numbers of logits that are measured at once, 16 MiB: beyond, what is made of them leaves a core's cache.
CACHED_LOGITS = 2**22


def by_images(measure: Measure) -> Measure:
    """What a measure says of each image's logits, asked of a few images at a time where there are many numbers."""

    @wraps(measure)
    def measured(*logits: Tensor) -> Tensor:
        most = max(1, CACHED_LOGITS // max(logits[0][:1].numel(), 1))
        if len(logits[0]) <= most:
            return measure(*logits)
        return torch.cat([measure(*parts) for parts in zip(*(each.split(most) for each in logits), strict=True)])

    return cast(Measure, measured)


def per_image(values: Tensor) -> Tensor:
    """Mean of (N,) or (N, H, W) values over all but the first dimension → (N,)."""
    return values if values.dim() == 1 else values.flatten(1).mean(dim=1)


@by_images
def class_share(logits: Tensor) -> Tensor:
    """Share of each class in an image's arg-max prediction.

    Args:
        logits: (N, C) or (N, C, H, W) float.

    Returns:
        (N, C) float, rows sum to 1; one-hot for (N, C) logits.
    """
    one_hot = F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)
    return one_hot if one_hot.dim() == 2 else one_hot.flatten(1, -2).mean(dim=1)


@by_images
def confidence(logits: Tensor) -> Tensor:
    """p_T(x): the largest softmax probability, per image → (N,) float in (0, 1]."""
    return per_image(logits.softmax(dim=1).amax(dim=1))


def target_probability(logits: Tensor, targets: Tensor) -> Tensor:
    """The teacher's probability of the target class, per image → (N,) float in [0, 1].

    Args:
        logits: (N, C) or (N, C, H, W) float.
        targets: (N,) or (N, H, W) int64.
    """
    return per_image(logits.softmax(dim=1).gather(1, targets[:, None]).squeeze(1))


def diversity(share: Tensor, buffer_share: Tensor) -> Tensor:
    """First factor of φ: 1 − (share of the buffer that has the image's class). SSD-KD, reconstructed.

    Args:
        share: (N, C) class shares of the images.
        buffer_share: (C,) mean class share of the buffer; zeros for an empty buffer.

    Returns:
        (N,) float in [0, 1]; for one-hot shares exactly ``1 − (1/N) Σ 1(c_T(x') = c_T(x))``.
    """
    return (1.0 - share @ buffer_share).clamp_min(0.0)  # rounding may go a hair below, whose root would be NaN


def difficulty(p_teacher: Tensor, gamma: float) -> Tensor:
    """Second factor of φ: ``(1 − p_T)^γ``, the focal form (Lin et al. 2017). SSD-KD, reconstructed.

    Args:
        p_teacher: (N,) confidence of the teacher.
        gamma: focusing exponent γ ≥ 0.
    """
    return (1.0 - p_teacher).clamp_min(0.0) ** gamma


def modulation(
    share: Tensor,
    buffer_share: Tensor,
    p_teacher: Tensor,
    diversity_exponent: float = 1.0,
    difficulty_exponent: float = 1.0,
) -> Tensor:
    """φ(x) = diversity(x)^a · (1 − p_T(x))^b, the modulating function. SSD-KD, reconstructed, with a = 1 and b = γ.

    Args:
        share: (N, C) class shares of the images.
        buffer_share: (C,) mean class share of the buffer.
        p_teacher: (N,) confidence of the teacher.
        diversity_exponent: a ≥ 0, ours; 0 switches the term off.
        difficulty_exponent: b ≥ 0; 0 switches the term off.

    Returns:
        (N,) float in [0, 1].
    """
    return diversity(share, buffer_share) ** diversity_exponent * difficulty(p_teacher, difficulty_exponent)


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(f_T/T) ‖ softmax(f_S/T)) in nats, per prediction: (N,), or (N, H, W) for dense prediction."""
    log_teacher = (teacher_logits / temperature).log_softmax(dim=1)
    log_student = (student_logits / temperature).log_softmax(dim=1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)


@by_images
def discrepancy(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """KL(f_T(x) ‖ f_S(x)) in nats at temperature 1, per image → (N,) float ≥ 0."""
    return per_image(kl_divergence(teacher_logits, student_logits)).clamp_min(0.0)


@by_images
def agreement(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Share of an image's predictions (one, or one a pixel) whose arg-maxes agree → (N,) float in [0, 1]."""
    return per_image((teacher_logits.argmax(dim=1) == student_logits.argmax(dim=1)).to(teacher_logits.dtype))


def priority(previous_weights: Tensor, kl: Tensor) -> Tensor:
    """δ_i(x) = w_{i−1}(x) · KL(f_T(x) ‖ f_S(x)). SSD-KD, reconstructed. (N,) float.

    With w = (N·P)^−β the factor works against itself: where P ∝ δ and the KL stays as it is, P tends to
    KL^(1/(1+β)), so that at β = 0.4 a KL ten times as large is drawn 5.2 times as often. At β = 1 it does not settle:
    δ is KL and the same for all images in turns. Where P ∝ δ^a the condition is aβ < 1; beyond it δ swings from round
    to round, as far as the truncation of `importance_weights` lets w go.
    """
    return previous_weights * kl


def entering_weights(
    discrepancy: Tensor, resident_discrepancy: Tensor, resident_weights: Tensor, epsilon: float = PRIORITY_EPSILON
) -> Tensor:
    """w_{i−1} of images that have never been drawn from: what residents of their KL carry. Ours.

    The paper's δ_i needs a weight that a candidate does not have. With w = 1 a candidate whose KL is that of a hard
    resident (w < 1) would win most contests, and one as easy as an easy resident (w > 1) would lose them. So w is read
    off the least-squares line of log w over log(KL + ε) of the residents, inside the range of their weights: at equal
    KL candidate and resident compete as equals. At the fixed point of `priority` the residents lie on that line.

    Args:
        discrepancy: (N,) KL of the candidates.
        resident_discrepancy: (M,) KL of the residents.
        resident_weights: (M,) w of the residents, above 0.
        epsilon: ε > 0.

    Returns:
        (N,) float32; 1 where there are no residents.
    """
    if len(resident_weights) == 0:
        return torch.ones_like(discrepancy)
    known, weights = (resident_discrepancy.double() + epsilon).log(), resident_weights.double().log()
    spread, centred = known - known.mean(), weights - weights.mean()
    # Where all residents have one KL, the rounding of its mean is all the spread there is, and says nothing of a slope.
    slope = (spread * centred).sum() / spread.square().sum().clamp_min(1e-12 * len(known))
    fitted = weights.mean() + slope * ((discrepancy.double() + epsilon).log() - known.mean())
    return fitted.clamp(weights.amin(), weights.amax()).exp().float()


def log_sampling_weights(
    delta: Tensor,
    diversity_term: Tensor,
    difficulty_term: Tensor,
    discrepancy_exponent: float,
    diversity_exponent: float,
    difficulty_exponent: float,
    epsilon: float = PRIORITY_EPSILON,
) -> Tensor:
    """Unnormalised log P(x) = a_δ·log(|δ|+ε) + a_div·log(diversity+ε) + a_dif·log(difficulty+ε).

    Exponents (1, 0, 0) give the paper's ``P ∝ |δ| + ε`` (reconstructed); exponent α on δ alone gives Schaul
    et al. 2016, eq. 1. The other two factors are ours; the same ε keeps their logarithm finite.

    Args:
        delta: (N,) priorities δ.
        diversity_term: (N,) first factor of φ.
        difficulty_term: (N,) second factor of φ with γ = 1.
        discrepancy_exponent: a_δ.
        diversity_exponent: a_div.
        difficulty_exponent: a_dif.
        epsilon: ε > 0.

    Returns:
        (N,) float, finite for finite input.
    """
    return (
        discrepancy_exponent * (delta.abs() + epsilon).log()
        + diversity_exponent * (diversity_term + epsilon).log()
        + difficulty_exponent * (difficulty_term + epsilon).log()
    )


def sampling_probabilities(log_weights: Tensor) -> Tensor:
    """P: softmax of unnormalised log-weights, in float64 so that a million of them still sum to 1. (N,)."""
    return log_weights.double().softmax(dim=0)


def importance_weights(probabilities: Tensor, beta: float, normalization: str = "mean") -> Tensor:
    """w(x) ∝ (N·P(x))^(−β): corrects the bias of drawing ∝ P. SSD-KD, reconstructed; Schaul et al. 2016, sec. 3.4.

    The paper's scale of w is not known to us. Divided by its maximum, as in prioritised replay, w shrinks every step
    of SGD, the more the more P differs between images, so that the sampling would steer the learning rate: with a KL
    that is spread exponentially around 1 over 5,000 images the mean weight of a draw is 0.14 at β = 0.4 and 0.01 at
    β = 1. So the default is self-normalised. Dividing by the maximum also keeps small the weight of an image that is
    hardly ever drawn; in place of that, self-normalised weights are truncated at √N (Ionides 2008), with their mean 1.

    Args:
        probabilities: (N,) float64, sums to 1.
        beta: β in [0, 1]; at 1 the expected weighted gradient of draws ∝ P is that of uniform draws, as far as no
            weight is truncated.
        normalization: a key of `IMPORTANCE_NORMALIZATIONS`.

    Returns:
        (N,) float32 > 0. Below a share `SMALLEST_RATIO` of the uniform probability w no longer grows.
    """
    count = len(probabilities)
    weights = (count * probabilities).clamp_min(SMALLEST_RATIO) ** -beta
    if normalization == "mean":
        weights = _of_mean_one(weights, probabilities, math.sqrt(count))
    elif normalization == "maximum":
        weights = weights / weights.amax()
    return weights.float()


def _of_mean_one(weights: Tensor, probabilities: Tensor, bound: float) -> Tensor:
    """Weights c·w, truncated at `bound` ≥ 1, with the c that makes their mean Σ P·w over the draws 1. (N,) float64.

    With the k largest truncated, c_k = (1 − bound · Σ P of those) / Σ P·w of the rest; the smallest k will do whose
    rest stays within the bound.
    """
    largest_first = weights.argsort(descending=True)
    w, p = weights[largest_first], probabilities[largest_first]
    truncated = p.cumsum(0) - p
    rest = (p * w).flip(0).cumsum(0).flip(0)
    scales = (1.0 - bound * truncated) / rest
    scale = scales[((scales * w <= bound) & (scales > 0)).int().argmax()]
    return (scale * weights).clamp_max(bound)


def effective_sample_size(probabilities: Tensor) -> Tensor:
    """Kish's effective sample size of P as a share of N: ``1 / (N Σ P²)``, a scalar in (0, 1]."""
    return 1.0 / (len(probabilities) * probabilities.square().sum())


def draw_with_replacement(probabilities: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` indices ∝ P by inverting the cumulative sum; one call serves all minibatches of a round.

    Args:
        probabilities: (N,) float64.
        count: number of draws.
        generator: source of randomness, on the same device.

    Returns:
        (count,) int64.
    """
    cumulative = probabilities.cumsum(dim=0)
    uniform = torch.rand(count, dtype=torch.float64, device=probabilities.device, generator=generator)
    # Rounding can leave the last entry a hair below 1; the clamp keeps a draw in that gap inside.
    return torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp_max(len(probabilities) - 1)


def gumbel(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, (count,) float64.

    Added to log-weights, the top k are a draw without replacement (Gumbel top-k; Kool et al. 2019).
    """
    uniform = torch.rand(count, dtype=torch.float64, device=device, generator=generator)
    tiny = torch.finfo(torch.float64).tiny
    return -(-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()
