"""Training data of unequal classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data.imbalance import ImbalanceSettings, with_imbalance
from ssdkd_env.tasks.task import LabelledImages

CLASSES, IMAGES = 5, 200


@pytest.fixture
def data() -> LabelledImages:
    """200 images of each of five classes in no order, each with its own number in its pixels."""
    labels = torch.arange(CLASSES).repeat(IMAGES)
    numbers = torch.arange(CLASSES * IMAGES)
    images = torch.stack([numbers // 256, numbers % 256], dim=1).to(torch.uint8)
    return images.view(-1, 2, 1, 1), labels


def counts(data: LabelledImages) -> list[int]:
    return sorted(torch.bincount(data[1], minlength=CLASSES).tolist(), reverse=True)


def test_long_tail_falls_by_one_factor_from_class_to_class(data: LabelledImages) -> None:
    """200 · 16^(−r/4) for r = 0 … 4."""
    kept = with_imbalance(data, ImbalanceSettings("long_tailed", ratio=16.0), CLASSES)
    assert counts(kept) == [200, 100, 50, 25, 12]  # 12.5, rounded to even


def test_step_keeps_some_classes_whole(data: LabelledImages) -> None:
    """⌈0.3 · 5⌉ = 2 classes keep their 200 images, the others a tenth."""
    assert counts(with_imbalance(data, ImbalanceSettings("step", ratio=10.0), CLASSES)) == [200, 200, 20, 20, 20]


def test_images_keep_their_labels_and_their_order(data: LabelledImages) -> None:
    images, labels = with_imbalance(data, ImbalanceSettings("long_tailed"), CLASSES)
    numbers = images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0].long()
    assert bool((numbers.diff() > 0).all())
    assert labels.tolist() == (numbers % CLASSES).tolist()


def test_seed_draws_ranks_and_images(data: LabelledImages) -> None:
    first, again, other = (with_imbalance(data, ImbalanceSettings("step", seed=seed), CLASSES) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert torch.bincount(first[1]).tolist() != torch.bincount(other[1]).tolist()


def test_none_leaves_the_data_alone(data: LabelledImages) -> None:
    assert with_imbalance(data, ImbalanceSettings(), CLASSES) is data


def test_no_class_loses_all_its_images(data: LabelledImages) -> None:
    assert counts(with_imbalance(data, ImbalanceSettings("step", ratio=1e6), CLASSES)) == [200, 200, 1, 1, 1]


def test_a_class_without_images_stays_without(data: LabelledImages) -> None:
    assert counts(with_imbalance(data, ImbalanceSettings("step", ratio=2.0), CLASSES + 1))[-1:] != [0]
    assert 5 not in with_imbalance(data, ImbalanceSettings("step", ratio=2.0), CLASSES + 1)[1]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"profile": "zipf"}, "imbalance.profile"),
        ({"ratio": 0.5}, "imbalance.ratio"),
        ({"ratio": float("nan")}, "imbalance.ratio"),
        ({"ratio": float("inf")}, "imbalance.ratio"),
        ({"majority": 0.0}, "imbalance.majority"),
        ({"majority": 1.0}, "imbalance.majority"),
        ({"seed": -1}, "imbalance.seed"),
        ({"seed": 2**64}, "imbalance.seed"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        ImbalanceSettings(**settings)


def test_labels_of_pixels_are_refused(data: LabelledImages) -> None:
    with pytest.raises(InvalidInputError, match=r"imbalance\.profile='step'.*pixels"):
        with_imbalance((data[0], data[1].view(-1, 1, 1)), ImbalanceSettings("step"), CLASSES)
