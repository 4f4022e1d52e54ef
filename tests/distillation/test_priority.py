"""φ, δ, P and w against calculations by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ssdkd_env.distillation import priority
from ssdkd_env.distillation.plan import SamplingPlan
from tests.distillation.reference import LOGIT_SHAPES, argmax, close, kl, make_logits, mean, pixels, softmax

EPSILON = priority.PRIORITY_EPSILON
CPU = torch.device("cpu")
#: Below this p-value a correct sampler fails once in a hundred thousand seeds; ours is fixed.
SIGNIFICANCE = 1e-5

positive_lists = st.lists(st.floats(0.0, 1e3), min_size=1, max_size=30)
unit_lists = st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=30)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class FixedUniform:
    """Stands in for `torch.rand` and returns chosen numbers, to reach the ends of [0, 1)."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __call__(self, count: int, **_: object) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)[:count]


# --- what is measured of an image ---


def test_per_image_keeps_one_value_an_image_and_averages_pixels() -> None:
    close(priority.per_image(torch.tensor([1.0, 2.0])), [1.0, 2.0])
    dense = torch.arange(12.0).view(2, 2, 3)
    close(priority.per_image(dense), [2.5, 8.5])


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_class_share_is_the_histogram_of_arg_max_classes(shape: tuple[int, ...]) -> None:
    logits = make_logits(shape, seed=1)
    expected = np.zeros((shape[0], shape[1]))
    for i, image in enumerate(pixels(logits)):
        for scores in image:
            expected[i, argmax(scores)] += 1 / len(image)
    close(priority.class_share(logits), expected)


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_confidence_is_the_largest_softmax_probability(shape: tuple[int, ...]) -> None:
    logits = make_logits(shape, seed=2)
    close(priority.confidence(logits), [mean([max(softmax(s)) for s in image]) for image in pixels(logits)])


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_discrepancy_is_kl_from_teacher_to_student_in_nats(shape: tuple[int, ...]) -> None:
    teacher, student = make_logits(shape, seed=3), make_logits(shape, seed=4)
    expected = [
        mean([kl(t, s) for t, s in zip(*pair, strict=True)])
        for pair in zip(pixels(teacher), pixels(student), strict=True)
    ]
    close(priority.discrepancy(teacher, student), expected)


def test_discrepancy_of_a_known_pair() -> None:
    teacher = torch.tensor([[math.log(0.5), math.log(0.5)]])
    student = torch.tensor([[math.log(0.9), math.log(0.1)]])
    close(priority.discrepancy(teacher, student), [0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)])


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_agreement_is_the_share_of_equal_arg_maxes(shape: tuple[int, ...]) -> None:
    teacher, student = make_logits(shape, seed=5), make_logits(shape, seed=6)
    student[0] = teacher[0]
    expected = [
        mean([float(argmax(t) == argmax(s)) for t, s in zip(*pair, strict=True)])
        for pair in zip(pixels(teacher), pixels(student), strict=True)
    ]
    close(priority.agreement(teacher, student), expected)
    assert expected[0] == 1.0


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_many_images_are_measured_a_few_at_a_time(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = make_logits(shape, seed=5), make_logits(shape, seed=6)
    given: dict[str, tuple[Tensor, ...]] = {"class_share": (teacher,), "confidence": (teacher,)}
    given |= {"discrepancy": (teacher, student), "agreement": (teacher, student)}
    whole = {name: getattr(priority, name)(*logits) for name, logits in given.items()}
    seen: list[int] = []
    per_image = priority.per_image

    def counting(values: Tensor) -> Tensor:
        seen.append(len(values))
        return per_image(values)

    monkeypatch.setattr(priority, "per_image", counting)
    monkeypatch.setattr(priority, "CACHED_LOGITS", 2 * teacher[0].numel())
    for name, logits in given.items():
        assert torch.equal(getattr(priority, name)(*logits), whole[name]), name
    assert set(seen) <= {1, 2}


@given(st.integers(0, 10_000), st.sampled_from(LOGIT_SHAPES), st.floats(0.01, 200.0))
def test_measures_of_an_image_stay_in_their_ranges(seed: int, shape: tuple[int, ...], scale: float) -> None:
    teacher, student = make_logits(shape, seed, scale), make_logits(shape, seed + 1, scale)
    close(priority.class_share(teacher).sum(dim=1), np.ones(shape[0]))
    assert (priority.confidence(teacher) >= 1 / shape[1] - 1e-6).all()
    assert (priority.confidence(teacher) <= 1 + 1e-6).all()
    assert (priority.discrepancy(teacher, student) >= 0).all()
    assert (priority.discrepancy(teacher, teacher) == 0).all()
    assert (priority.agreement(teacher, teacher) == 1).all()


# --- φ ---


def test_diversity_is_one_minus_the_share_of_the_buffer_with_the_same_class() -> None:
    buffer_classes = [0, 0, 0, 1, 2, 2]
    images = [0, 1, 2, 3]
    buffer_share = torch.eye(4)[buffer_classes].mean(dim=0)
    expected = [1 - sum(c == other for other in buffer_classes) / len(buffer_classes) for c in images]
    close(priority.diversity(torch.eye(4)[images], buffer_share), expected)


def test_diversity_of_dense_images_averages_over_their_pixels() -> None:
    share, buffer_share = torch.tensor([[0.25, 0.75], [1.0, 0.0]]), torch.tensor([0.4, 0.6])
    close(priority.diversity(share, buffer_share), [1 - (0.25 * 0.4 + 0.75 * 0.6), 1 - 0.4])


def test_every_image_is_diverse_to_an_empty_buffer() -> None:
    close(priority.diversity(torch.eye(3), torch.zeros(3)), [1, 1, 1])


@given(unit_lists, st.floats(0.0, 5.0))
def test_difficulty_is_the_focal_term(p_teacher: list[float], gamma: float) -> None:
    close(priority.difficulty(torch.tensor(p_teacher), gamma), [(1 - p) ** gamma for p in p_teacher], rtol=1e-4)


def test_difficulty_is_no_nan_where_rounding_puts_confidence_above_one() -> None:
    confidence = torch.tensor([1.0 + 1e-6])
    assert priority.difficulty(confidence, 0.5).item() == 0.0


def test_modulation_is_diversity_times_difficulty() -> None:
    share, buffer_share, p_teacher = torch.eye(3), torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.9, 0.5, 0.2])
    expected = [(1 - b) * (1 - p) ** 2 for b, p in zip([0.5, 0.3, 0.2], [0.9, 0.5, 0.2], strict=True)]
    close(priority.modulation(share, buffer_share, p_teacher, difficulty_exponent=2.0), expected)


def test_an_exponent_of_zero_switches_a_term_of_modulation_off() -> None:
    share, buffer_share, p_teacher = torch.eye(3), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.5, 0.2])
    close(priority.modulation(share, buffer_share, p_teacher, 0.0, 1.0), [0.0, 0.5, 0.8])
    close(priority.modulation(share, buffer_share, p_teacher, 1.0, 0.0), [0.0, 1.0, 1.0])
    close(priority.modulation(share, buffer_share, p_teacher, 0.0, 0.0), [1.0, 1.0, 1.0])


# --- P ---


def test_priority_is_last_weight_times_divergence() -> None:
    close(priority.priority(torch.tensor([1.0, 0.5, 0.25]), torch.tensor([2.0, 2.0, 0.0])), [2.0, 1.0, 0.0])


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)),
)
def test_log_sampling_weights_are_the_log_of_the_product(
    rows: list[tuple[float, float, float]], exponents: tuple[float, float, float]
) -> None:
    delta, diversity, difficulty = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
    weights = priority.log_sampling_weights(delta, diversity, difficulty, *exponents)
    expected = [
        math.prod((abs(factor) + EPSILON) ** exponent for factor, exponent in zip(row, exponents, strict=True))
        for row in rows
    ]
    close(weights.exp(), expected, rtol=1e-9, atol=0)


@given(positive_lists)
def test_the_papers_plan_samples_in_proportion_to_delta_plus_epsilon(delta: list[float]) -> None:
    paper = SamplingPlan(discrepancy_exponent=1.0, diversity_exponent=0.0, difficulty_exponent=0.0)
    count = len(delta)
    diversity, difficulty = torch.rand(2, count, dtype=torch.float64, generator=generator(0))
    log_weights = priority.log_sampling_weights(
        torch.tensor(delta, dtype=torch.float64),
        diversity,
        difficulty,
        paper.discrepancy_exponent,
        paper.diversity_exponent,
        paper.difficulty_exponent,
    )
    total = math.fsum(abs(d) + EPSILON for d in delta)
    close(priority.sampling_probabilities(log_weights), [(abs(d) + EPSILON) / total for d in delta], 1e-12, 0)


def test_zero_exponents_sample_uniformly() -> None:
    delta = torch.tensor([0.0, 1.0, 50.0])
    log_weights = priority.log_sampling_weights(delta, delta / 50, delta / 50, 0.0, 0.0, 0.0)
    assert priority.sampling_probabilities(log_weights).tolist() == [1 / 3] * 3


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=40))
def test_sampling_probabilities_are_a_softmax_in_float64(log_weights: list[float]) -> None:
    probabilities = priority.sampling_probabilities(torch.tensor(log_weights, dtype=torch.float64))
    close(probabilities, softmax(log_weights), rtol=1e-12, atol=1e-300)


def test_a_million_float32_weights_still_sum_to_one() -> None:
    weights = torch.randn(1_000_000, generator=generator(1))
    assert abs(priority.sampling_probabilities(weights).sum().item() - 1) < 1e-12


# --- what P is like ---


def test_effective_sample_size_counts_the_images_that_matter() -> None:
    def share(values: list[float]) -> float:
        return priority.effective_sample_size(torch.tensor(values, dtype=torch.float64)).item()

    assert share([0.25] * 4) == pytest.approx(1.0)
    assert share([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert share([0.5, 0.5, 0.0, 0.0]) == pytest.approx(0.5)
    assert share([0.6, 0.3, 0.1]) == pytest.approx(1 / (3 * (0.36 + 0.09 + 0.01)))


# --- draws ---


def test_draws_with_replacement_have_the_given_frequencies() -> None:
    probabilities = torch.tensor([0.4, 0.05, 0.25, 0.001, 0.2, 0.099], dtype=torch.float64)
    draws = priority.draw_with_replacement(probabilities, 20_000, generator(4))
    assert draws.shape == (20_000,)
    assert draws.dtype == torch.int64
    counts = torch.bincount(draws, minlength=6).numpy()
    assert stats.chisquare(counts, probabilities.numpy() * 20_000).pvalue > SIGNIFICANCE


def test_draws_are_independent_of_one_another() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    first, second = priority.draw_with_replacement(probabilities, 20_000, generator(5)).view(2, -1)
    table = np.zeros((3, 3))
    np.add.at(table, (first.numpy(), second.numpy()), 1)
    assert stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def test_an_image_without_probability_is_never_drawn() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.5, 0.0], dtype=torch.float64)
    draws = priority.draw_with_replacement(probabilities, 10_000, generator(6))
    assert set(draws.tolist()) == {1, 4}


@given(st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.3, 1.0, 7.0]), min_size=1, max_size=12).filter(any))
def test_the_ends_of_the_uniform_interval_draw_images_with_probability(raw: list[float]) -> None:
    probabilities = torch.tensor(raw, dtype=torch.float64) / math.fsum(raw)
    inside = 0.5 * probabilities[0].item()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", FixedUniform([0.0, 1 - 2**-53, inside]))
        low, high, _ = priority.draw_with_replacement(probabilities, 3, generator(0)).tolist()
    drawable = [i for i, p in enumerate(probabilities.tolist()) if p > 0]
    assert low == drawable[0]
    assert probabilities[high] > 0
    assert high <= drawable[-1]


def test_one_image_is_drawn_always() -> None:
    assert priority.draw_with_replacement(torch.ones(1).double(), 5, generator(7)).tolist() == [0] * 5


def test_gumbel_noise_follows_the_standard_gumbel_law() -> None:
    noise = priority.gumbel(5_000, generator(8), CPU)
    assert noise.dtype == torch.float64
    assert stats.kstest(noise.numpy(), stats.gumbel_r.cdf).pvalue > SIGNIFICANCE


def test_gumbel_noise_is_finite_at_the_ends_of_the_uniform_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", FixedUniform([0.0, 1 - 2**-53, 0.5]))
    low, high, middle = priority.gumbel(3, generator(0), CPU).tolist()
    assert middle == pytest.approx(-math.log(math.log(2)))
    assert -10 < low < middle < high < 50


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0, 4.0], [0.01, 0.01, 10.0, 1.0]])
def test_gumbel_top_k_draws_without_replacement_one_after_the_other(weights: list[float]) -> None:
    count, trials = len(weights), 20_000
    noise = priority.gumbel(count * trials, generator(9), CPU).view(trials, count)
    keys = torch.tensor(weights, dtype=torch.float64).log() + noise
    drawn = keys.topk(2, dim=1).indices
    pairs = list(itertools.permutations(range(count), 2))
    expected = []
    for first, second in pairs:
        total = sum(weights)
        expected.append(weights[first] / total * weights[second] / (total - weights[first]))
    observed = [int(((drawn[:, 0] == first) & (drawn[:, 1] == second)).sum()) for first, second in pairs]
    likely = [i for i, p in enumerate(expected) if p * trials >= 5]
    rare_observed = trials - sum(observed[i] for i in likely)
    rare_expected = 1 - sum(expected[i] for i in likely)
    table_observed = [observed[i] for i in likely] + ([rare_observed] if len(likely) < len(pairs) else [])
    table_expected = [expected[i] for i in likely] + ([rare_expected] if len(likely) < len(pairs) else [])
    result = stats.chisquare(table_observed, np.array(table_expected) / sum(table_expected) * trials)
    assert result.pvalue > SIGNIFICANCE
