"""What a scorer may know of an image, and what the scorers make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from torch import Tensor

from ssdkd_env.distillation.buffer import Entries
from ssdkd_env.distillation.scoring import (
    FEATURES,
    BinScorer,
    ClassBinScorer,
    NeuralScorer,
    SampleFeatures,
    Scorer,
    cut,
    ranks,
    sample_features,
)
from tests.distillation.rows import CLASSES, make_entries

EPSILON = 1e-2
# Few levels, so that ties are common.
levels = st.one_of(st.integers(-2, 3).map(float), st.floats(-5, 5))


def random_like(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SCORERS: dict[str, Scorer] = {
    "bins": BinScorer(1.3, random_like(3, 4)),
    "class_bins": ClassBinScorer(-0.4, random_like(CLASSES, 4)),
    "samples": NeuralScorer(random_like(7), random_like(3, 7, seed=1), random_like(3, seed=2), random_like(3, seed=3)),
}


def features_of(*competing: Entries) -> SampleFeatures:
    return sample_features(competing, competing[0].class_share.mean(dim=0))


# --- ranks ---


@given(st.lists(levels, min_size=2, max_size=40))
def test_ranks_are_mean_ranks_from_minus_one_to_one(values: list[float]) -> None:
    found = ranks(torch.tensor(values, dtype=torch.float64))
    expected = 2 * (rankdata(values, method="average") - 1) / (len(values) - 1) - 1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert found.dtype == torch.float32


def test_equal_values_share_a_rank() -> None:
    assert ranks(torch.tensor([5.0, 1.0, 5.0])).tolist() == [0.5, -1.0, 0.5]
    assert ranks(torch.full((4,), 2.0)).tolist() == [0.0] * 4


def test_whole_numbers_have_ranks_too() -> None:
    assert ranks(torch.tensor([3, -2, 7])).tolist() == [0.0, -1.0, 1.0]


def test_a_single_value_has_the_middle_rank() -> None:
    assert ranks(torch.tensor([9.0])).tolist() == [0.0]


@given(st.lists(st.one_of(levels, st.just(math.nan), st.just(math.inf)), min_size=2, max_size=20))
def test_nan_counts_as_highest_and_displaces_no_other(values: list[float]) -> None:
    found = ranks(torch.tensor(values, dtype=torch.float64))
    highest = [math.inf if math.isnan(value) else value for value in values]
    expected = 2 * (rankdata(highest, method="average") - 1) / (len(values) - 1) - 1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_bins_are_equal_steps_of_the_rank() -> None:
    rank = torch.tensor([-1.0, -0.51, -0.49, -0.01, 0.01, 0.49, 0.51, 1.0])
    assert cut(rank, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert cut(rank, 1).tolist() == [0] * 8


# --- features ---


@pytest.mark.parametrize("dense", [False, True])
def test_features_are_those_of_the_formulas(dense: bool) -> None:
    """Residents and candidates together, in NumPy and one image at a time."""
    residents, candidates = make_entries(9, 1, dense=dense), make_entries(4, 2, born=3, dense=dense)
    features = features_of(residents, candidates)
    assert len(features) == 13

    def joined(name: str) -> Sequence[float]:
        return np.concatenate([getattr(e, name).double().numpy() for e in (residents, candidates)])  # type: ignore[return-value]

    share = np.concatenate([e.class_share.double().numpy() for e in (residents, candidates)])
    of_buffer = residents.class_share.double().numpy().mean(axis=0)
    rarity = [1 - sum(own * common for own, common in zip(row, of_buffer, strict=True)) for row in share]
    difficulty = [1 - p for p in joined("confidence")]
    delta = [w * kl for w, kl in zip(joined("importance_weight"), joined("discrepancy"), strict=True)]

    def rank(values: Sequence[float]) -> list[float]:
        return [2 * (r - 1) / 12 - 1 for r in rankdata(np.round(values, 5), method="average")]

    expected = {
        "log_priority": [math.log(value + EPSILON) for value in delta],
        "log_diversity": [math.log(value + EPSILON) for value in rarity],
        "log_difficulty": [math.log(value + EPSILON) for value in difficulty],
        "discrepancy_rank": rank(joined("discrepancy")),
        "difficulty_rank": rank(difficulty),
        "rarity_rank": rank(rarity),
        "age_rank": rank([-born for born in joined("born")]),
    }
    assert tuple(expected) == FEATURES
    for name, values in expected.items():
        np.testing.assert_allclose(features.column(name).numpy(), values, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(features.class_share.numpy(), share)


def test_a_single_image_has_finite_features_and_a_score() -> None:
    features = features_of(make_entries(1, 0))
    assert features.matrix.isfinite().all()
    assert features.matrix[0, 3:].tolist() == [0.0] * 4
    for scorer in SCORERS.values():
        assert scorer(features).shape == (1,)


@pytest.mark.parametrize("name", SCORERS)
def test_nan_of_a_diverged_student_does_not_spread(name: str) -> None:
    """Neither into the image's own score, nor into the features of the others, which rank below it."""
    entries = make_entries(8, 3)
    sound = features_of(entries.rows(slice(1, None)))
    entries.discrepancy[0] = math.nan
    features = features_of(entries)
    assert features.matrix.isfinite().all()
    assert features.column("discrepancy_rank").abs().max() <= 1.0
    order = features.column("discrepancy_rank")[1:].argsort()
    assert torch.equal(order, sound.column("discrepancy_rank").argsort())
    assert SCORERS[name](features).isfinite().all()
    entries.discrepancy[:] = math.nan
    assert SCORERS[name](features_of(entries)).isfinite().all()


# --- scorers ---


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", SCORERS)
@given(order=st.permutations(range(11)))
def test_scores_follow_their_images_in_any_order(name: str, dense: bool, order: list[int]) -> None:
    entries, share = make_entries(11, 4, dense=dense), torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1])
    scores = SCORERS[name](sample_features([entries], share))
    mixed = SCORERS[name](sample_features([entries.rows(torch.tensor(order))], share))
    torch.testing.assert_close(mixed, scores[order], rtol=1e-5, atol=1e-6)


def test_bins_are_read_row_by_rarity_and_column_by_difficulty() -> None:
    logits = random_like(3, 4)
    features = features_of(make_entries(12, 5), make_entries(7, 6))
    expected = []
    for row in range(19):
        rarity, difficulty = float(features.column("rarity_rank")[row]), float(features.column("difficulty_rank")[row])
        place = min(int((rarity + 1) / 2 * 3), 2), min(int((difficulty + 1) / 2 * 4), 3)
        expected.append(1.3 * float(features.column("log_priority")[row]) + float(logits[place]))
    torch.testing.assert_close(BinScorer(1.3, logits)(features), torch.tensor(expected))


def test_the_first_bin_is_frequent_and_easy_the_last_one_rare_and_hard() -> None:
    entries = make_entries(4, 0)
    entries.class_share = torch.eye(CLASSES)[:4]
    entries.confidence = torch.tensor([0.9, 0.8, 0.7, 0.2])
    features = sample_features([entries], torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0]))
    scores = BinScorer(0.0, torch.arange(12.0).view(3, 4))(features)
    assert scores[0] == 0.0
    assert scores[3] == 11.0


@pytest.mark.parametrize("dense", [False, True])
def test_class_bins_are_read_row_by_class_and_column_by_difficulty(dense: bool) -> None:
    """An image of several classes takes the mean of their rows, weighed by their shares of its pixels."""
    logits = random_like(CLASSES, 4)
    entries = make_entries(12, 5, dense=dense)
    features = features_of(entries)
    assert (entries.class_share.max(dim=1).values < 1).any() == dense
    expected = []
    for row in range(12):
        column = min(int((float(features.column("difficulty_rank")[row]) + 1) / 2 * 4), 3)
        own = sum(float(entries.class_share[row, label]) * float(logits[label, column]) for label in range(CLASSES))
        expected.append(-0.4 * float(features.column("log_priority")[row]) + own)
    torch.testing.assert_close(ClassBinScorer(-0.4, logits)(features), torch.tensor(expected))


def test_the_network_is_the_sum_by_hand() -> None:
    linear, hidden, bias, output = random_like(7), random_like(3, 7, seed=1), random_like(3, seed=2), random_like(3)
    features = features_of(make_entries(6, 7))
    expected = []
    for row in features.matrix.tolist():
        units = [
            math.tanh(float(bias[unit]) + sum(float(hidden[unit, i]) * row[i] for i in range(7))) for unit in range(3)
        ]
        score = sum(float(linear[i]) * row[i] for i in range(7))
        expected.append(score + sum(float(output[unit]) * units[unit] for unit in range(3)))
    torch.testing.assert_close(NeuralScorer(linear, hidden, bias, output)(features), torch.tensor(expected))


def test_weights_of_another_precision_are_taken() -> None:
    features = features_of(make_entries(6, 7))
    doubles: list[Scorer] = [
        BinScorer(1.3, random_like(3, 4).double()),
        ClassBinScorer(-0.4, random_like(CLASSES, 4).double()),
        NeuralScorer(*(random_like(*shape).double() for shape in ((7,), (3, 7), (3,), (3,)))),
    ]
    for scorer in doubles:
        assert scorer(features).isfinite().all()
