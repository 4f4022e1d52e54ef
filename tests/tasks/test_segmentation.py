"""Scores of segmentation mean what the field's papers mean; void pixels are one number."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.segmentation import ConfusionMatrix, SegmentationScores
from ssdkd_env.tasks.void import MOST_CLASSES, VOID, to_classes


def scores_of(counts: list[list[int]]) -> SegmentationScores:
    matrix = ConfusionMatrix(len(counts))
    matrix.counts += torch.tensor(counts)
    return matrix.scores()


def test_scores_of_a_matrix_made_by_hand() -> None:
    """Three classes of 8, 4 and 4 pixels: unions 10, 5 and 7."""
    scores = scores_of([[6, 1, 1], [0, 4, 0], [2, 0, 2]])
    assert scores.class_iou == pytest.approx((6 / 10, 4 / 5, 2 / 5))
    assert scores.mean_iou == pytest.approx((0.6 + 0.8 + 0.4) / 3)
    assert scores.pixel_accuracy == pytest.approx(12 / 16)
    assert scores.mean_class_accuracy == pytest.approx((6 / 8 + 1 + 2 / 4) / 3)
    assert scores.absent == ()


def test_class_that_occurs_nowhere_is_left_out_and_named() -> None:
    scores = scores_of([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert math.isnan(scores.class_iou[2])
    assert scores.absent == (2,)
    assert scores.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores.mean_class_accuracy == pytest.approx((3 / 4 + 1) / 2)


def test_class_that_is_only_answered_counts_nothing() -> None:
    """It occurs in the answers, so that a network pays for it: IoU 0, where some libraries leave it out."""
    scores = scores_of([[3, 1], [0, 0]])
    assert scores.class_iou == (0.75, 0.0)
    assert scores.mean_iou == pytest.approx(0.375)
    assert scores.absent == ()
    assert scores.mean_class_accuracy == 0.75


def test_it_is_of_the_whole_set_and_no_mean_over_images() -> None:
    """One image all right with one pixel of class 1, one image with class 1 all wrong: means over images give more."""
    labels = torch.tensor([[[0, 1]], [[1, 1]]], dtype=torch.uint8)
    answers = torch.tensor([[[0, 1]], [[0, 0]]])
    matrix = ConfusionMatrix(2)
    for image in range(2):
        matrix.add(answers[[image]], labels[[image]])
    assert matrix.counts.tolist() == [[1, 0], [2, 1]]
    assert matrix.scores().mean_iou == pytest.approx((1 / 3 + 1 / 3) / 2)


def test_void_pixels_count_nowhere() -> None:
    labels = torch.tensor([[[0, VOID, 1, VOID]]], dtype=torch.uint8)
    matrix = ConfusionMatrix(2)
    matrix.add(torch.tensor([[[0, 1, 0, 0]]]), labels)
    assert matrix.counts.tolist() == [[1, 0], [1, 0]]
    nothing = ConfusionMatrix(2)
    nothing.add(torch.tensor([[[0]]]), torch.tensor([[[VOID]]], dtype=torch.uint8))
    assert nothing.scores().mean_iou == nothing.scores().pixel_accuracy == 0.0
    assert nothing.scores().absent == (0, 1)


def test_matrix_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix, jaccard_score

    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (3, 7, 9), generator=random).to(torch.uint8)
    answers = torch.randint(0, 5, (3, 7, 9), generator=random)
    labels[0, :3] = VOID
    matrix = ConfusionMatrix(5)
    matrix.add(answers, labels)
    valid = labels != VOID
    truth, given = labels[valid].numpy(), answers[valid].numpy()
    assert matrix.counts.tolist() == confusion_matrix(truth, given, labels=range(5)).tolist()
    assert matrix.scores().class_iou == pytest.approx(jaccard_score(truth, given, average=None))


# --- void ---


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16])
def test_number_beyond_the_classes_becomes_void(kind: torch.dtype) -> None:
    labels = torch.tensor([[0, 10, 11], [3, 11, 255]]).to(kind)
    made = to_classes("labels", labels[:, :2], 11, 11)
    assert made.dtype == torch.uint8
    assert made.tolist() == [[0, 10], [3, VOID]]


@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int64])
def test_minus_one_becomes_void(kind: torch.dtype) -> None:
    assert to_classes("labels", torch.tensor([-1, 0, 1]).to(kind), 2, -1).tolist() == [VOID, 0, 1]


def test_void_of_zero_means_classes_from_one() -> None:
    assert to_classes("labels", torch.tensor([0, 1, 13], dtype=torch.uint8), 13, 0).tolist() == [VOID, 0, 12]


def test_ours_stays_as_it_is() -> None:
    labels = torch.tensor([[0, 1, VOID]], dtype=torch.uint8)
    assert to_classes("labels", labels, 2, VOID).tolist() == labels.tolist()
    assert to_classes("labels", labels[:, :2], 2, None).tolist() == [[0, 1]]


def test_nothing_is_nothing() -> None:
    assert to_classes("labels", torch.zeros((0, 2, 2), dtype=torch.uint8), 2, None).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("labels", "num_classes", "void", "match"),
    [
        ([0, 1, 255], 2, None, r"values 255, the classes are 0 to 1; where that means no class, give it as void="),
        ([-1, 0], 2, None, r"values -1, the classes are 0 to 1"),
        ([0, 2], 2, 255, r"values 2, the classes are 0 to 1$"),
        ([0, 14], 13, 0, r"values 14, the classes are 1 to 13$"),
        ([0, 1], 3, 1, r"void=1 is one of the classes 0 to 2"),
        ([*range(20)], 2, None, r"values 2, 3, 4, 5, 6, 7, …, the"),
        ([0], 0, None, "0 classes"),
        ([0], MOST_CLASSES + 1, None, "255 classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], num_classes: int, void: int | None, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        to_classes("labels", torch.tensor(labels), num_classes, void)


@pytest.mark.parametrize("value", [0.5, True])
def test_labels_that_are_no_whole_numbers_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected whole numbers"):
        to_classes("labels", torch.tensor([value]), 2, None)
