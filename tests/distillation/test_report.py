"""The statistics of a report against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssdkd_env.distillation.report import DIFFICULTY_BINS, QUANTILES, difficulty_histogram, quantiles


@pytest.mark.parametrize("count", [1, 2, 3, 180, 5001])
def test_quantiles_are_interpolated_linearly(count: int) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(count))
    found = quantiles(values, QUANTILES)
    assert found.tolist() == pytest.approx(np.quantile(values.numpy(), QUANTILES), rel=1e-5)


def test_quantiles_of_more_values_than_torch_takes() -> None:
    """`torch.quantile` refuses more than 16 million."""
    found = quantiles(torch.arange(16_777_217, dtype=torch.float32).flip(0), (0.0, 0.5, 1.0))
    assert found.tolist() == [0.0, 8_388_608.0, 16_777_216.0]


def test_quantiles_of_a_diverged_student_are_not_finite() -> None:
    assert quantiles(torch.full((5,), torch.nan), QUANTILES).isnan().all()


def test_difficulty_histogram_counts_one_minus_the_confidence() -> None:
    confidence = torch.tensor([1.0, 0.96, 0.94, 0.05, 0.0, 0.951])
    counts = difficulty_histogram(confidence).tolist()
    expected, _ = np.histogram(1 - confidence.numpy(), bins=DIFFICULTY_BINS, range=(0, 1))
    assert counts == expected.tolist()
    assert sum(counts) == len(confidence)
