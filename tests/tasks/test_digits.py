"""The embedded task: its data, and the teacher that ships with it."""

from __future__ import annotations

import json

import pytest
import torch
from sklearn.datasets import load_digits

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.batch_norm import batch_norm_layers
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.data.imbalance import ImbalanceSettings, with_imbalance
from ssdkd_env.tasks.digits import ASSETS, TEACHER_TEST_IMAGES, load_digits_data, split_digits
from ssdkd_env.tasks.task import check_images

CPU = torch.device("cpu")


def test_the_data_are_scikit_learns_digits_as_uint8() -> None:
    images, labels = load_digits_data()
    digits = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert set(labels.tolist()) == set(range(10))
    assert abs(images.squeeze(1).double() / 255 - torch.from_numpy(digits.images) / 16).max() <= 0.5 / 255 + 1e-12
    assert labels.tolist() == digits.target.tolist()
    check_images("digits", images, labels, load_task("digits").spec)


def test_the_split_is_a_partition_and_repeats_exactly() -> None:
    (train, train_labels), (test, test_labels) = split_digits()
    images, labels = load_digits_data()
    assert (len(test), len(train)) == (TEACHER_TEST_IMAGES, 1797 - TEACHER_TEST_IMAGES)
    rows = torch.cat(
        [torch.cat([x.flatten(1), y[:, None]], dim=1) for x, y in ((train, train_labels), (test, test_labels))]
    )
    every = torch.cat([images.flatten(1), labels[:, None]], dim=1)
    assert sorted(rows.tolist()) == sorted(every.tolist())
    assert torch.equal(split_digits()[1][0], test)


def test_the_normalisation_is_that_of_the_training_data() -> None:
    spec = load_task("digits").spec
    (images, _), _ = split_digits()
    normalized = Normalize(spec.mean, spec.std, CPU)(images)
    assert abs(normalized.mean().item()) < 0.02
    assert abs(normalized.std().item() - 1) < 0.02


def test_the_shipped_teacher_knows_98_percent_of_the_held_out_digits() -> None:
    task = load_task("digits")
    _, (images, labels) = split_digits()
    teacher, normalize = task.teacher_on(CPU), Normalize(task.spec.mean, task.spec.std, CPU)
    with torch.no_grad():
        accuracy = (teacher(normalize(images)).argmax(dim=1) == labels).double().mean().item()
    assert accuracy >= 0.98
    assert batch_norm_layers(teacher), "inversion needs the statistics of BatchNorm layers"


#: Teachers of unequal classes, by the ends of their names.
UNEQUAL = ("tail", "step", "narrow_tail", "narrow_step", "far_tail", "far_step")


@pytest.mark.parametrize("end", ["", "_b", "_wide", "_narrow", "_far", *(f"_{name}" for name in UNEQUAL)])
def test_cards_of_the_shipped_teachers_tell_the_truth(end: str) -> None:
    name = f"digits_teacher{end}"
    card = json.loads((ASSETS / f"{name}.json").read_text())
    assert card["weights"] == f"{name}.safetensors"
    train, test = split_digits()
    train = with_imbalance(train, ImbalanceSettings(**card.get("imbalance", {})), 10)
    assert card["top1"].get("train_images", 1300) == len(train[0])
    task = load_task("digits", str(ASSETS / card["weights"]))
    teacher, spec = task.teacher_on(CPU), task.spec
    mean, std = card["normalization"]["mean"][0], card["normalization"]["std"][0]
    assert (spec.mean, spec.std) == ((mean,), (std,))
    for part, (images, labels) in (("train", train), ("test", test)):
        with torch.no_grad():
            right = teacher((images.float() / 255 - mean) / std).argmax(dim=1) == labels
        assert card["top1"][part] == pytest.approx(right.double().mean().item(), abs=1e-7)
    assert card["top1"]["test_images"] == TEACHER_TEST_IMAGES
    parameters = sum(parameter.numel() for parameter in teacher.parameters())
    if "arch" in card:
        assert card["parameters"] == parameters
        assert card["arch"] == spec.teacher_arch
        assert f"--teacher-arch {card['arch']} --settings.seed {card['settings']['seed']}" in card["command"]
    else:
        assert f"{parameters:,} parameters" in card["architecture"]


def test_shipped_teachers_are_eleven_different_ones() -> None:
    files = sorted(ASSETS.glob("digits_teacher*.safetensors"))
    assert len({load_task("digits", str(file)).teacher_digest() for file in files}) == len(files) == 11


@pytest.mark.parametrize("name", UNEQUAL)
def test_teachers_of_unequal_classes_miss_the_rare_ones(name: str) -> None:
    path = ASSETS / f"digits_teacher_{name}.safetensors"
    settings = ImbalanceSettings(**json.loads(path.with_suffix(".json").read_text())["imbalance"])
    train, (images, labels) = split_digits()
    order = torch.bincount(with_imbalance(train, settings, 10)[1], minlength=10).argsort(descending=True)
    task = load_task("digits", str(path))
    answers = logits_of(task.teacher_on(CPU), images, Normalize(task.spec.mean, task.spec.std, CPU)).argmax(dim=1)
    right = torch.stack([(answers == label)[labels == label].double().mean() for label in range(10)])
    assert right[order[:3]].mean() > right[order[-3:]].mean() + 0.05
