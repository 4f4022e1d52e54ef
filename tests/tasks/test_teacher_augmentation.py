"""Images of a teacher's training in other light and size, and the weights of rare classes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.teacher import TeacherSettings, TeacherTraining
from ssdkd_env.tasks.teacher_augmentation import enlarged, jittered
from ssdkd_env.tasks.teacher_loss import class_weights, cross_entropy
from ssdkd_env.tasks.void import VOID
from tests.own_networks import DENSE_TASK
from tests.tasks.test_teacher import CPU, label_maps


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- light ---


def test_light_is_a_straight_line_for_each_channel_of_each_image() -> None:
    """v → f_channel · (f_contrast · (v − mean) + f_brightness · mean), with factors within their bounds."""
    strength = 0.2
    images = torch.randint(80, 140, (200, 3, 6, 5), dtype=torch.uint8, generator=generator(1))
    made, values = jittered(images, strength, generator()).double(), images.double()
    centred = values - values.mean(dim=(2, 3), keepdim=True)
    slopes = (centred * made).sum(dim=(2, 3)) / centred.square().sum(dim=(2, 3))
    offsets = made.mean(dim=(2, 3)) - slopes * values.mean(dim=(2, 3))
    line = slopes[:, :, None, None] * values + offsets[:, :, None, None]
    assert float((line - made).abs().max()) < 1.0, "rounded"
    least, most = (1 - strength) * (1 - strength / 2), (1 + strength) * (1 + strength / 2)
    assert least - 0.01 < float(slopes.min()) < least + 0.06 and most - 0.06 < float(slopes.max()) < most + 0.01
    assert float(slopes.std(dim=0).min()) > 0.05, "each image by itself"
    assert float(slopes.std(dim=1).min()) > 0.0, "each channel by itself"


def test_light_is_clipped_and_of_the_seed() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(50, 3, 4, 4)
    made = jittered(images, 0.9, generator())
    assert torch.equal(made, jittered(images, 0.9, generator()))
    assert not torch.equal(made, jittered(images, 0.9, generator(1)))
    assert int(made.min()) == 0 and int(made.max()) == 255


# --- size ---


def columns(count: int, width: int = 40) -> Tensor:
    """Images whose pixels say which column, and which row, they are of."""
    column = (4 * torch.arange(width)).expand(count, 1, width, width)
    return torch.cat([column, column.transpose(2, 3)], dim=1).to(torch.uint8)


def test_images_are_enlarged_by_factors_that_are_log_uniform() -> None:
    largest, count = 3.0, 600
    seen = enlarged(columns(count), 0, largest, generator()).double()
    shares = [(seen[:, 0, 0, -1] - seen[:, 0, 0, 0]) / 156, (seen[:, 1, -1, 0] - seen[:, 1, 0, 0]) / 156]
    torch.testing.assert_close(*shares, rtol=0.0, atol=0.04)
    logs = -shares[0].log() / math.log(largest)
    assert logs.mean().item() == pytest.approx(0.5, abs=0.05)
    assert logs.std().item() == pytest.approx(1 / math.sqrt(12), abs=0.03)
    assert float(logs.min()) > -0.01 and float(logs.max()) < 1.03
    corners = seen[:, 0, 0, 0] / 156 / (1 - shares[0]).clamp_min(1e-3)
    wide = shares[0] < 0.7
    assert float(corners[wide].min()) < 0.1 and float(corners[wide].max()) > 0.9, "from one side to the other"
    assert float((seen[wide, 0, 0, 0] - seen[wide, 1, 0, 0]).abs().max()) > 20, "rows and columns by themselves"


def test_a_factor_of_one_changes_nothing() -> None:
    packed = torch.randint(0, 256, (4, 4, 7, 9), dtype=torch.uint8, generator=generator(3))
    assert torch.equal(enlarged(packed, 1, 1.0, generator()), packed)


def test_labels_are_those_of_the_nearest_pixels() -> None:
    """Where the image says a class without doubt, it is the label; no label lies between two classes."""
    labels = torch.randint(0, 4, (50, 1, 6, 6), dtype=torch.uint8, generator=generator(2)) * 60
    labels = labels.repeat_interleave(5, dim=2).repeat_interleave(5, dim=3)
    made = enlarged(torch.cat([labels, labels], dim=1), 1, 2.0, generator())
    assert set(made[:, 1].unique().tolist()) <= {0, 60, 120, 180}
    inside = F.max_pool2d(made[:, :1].float(), 5, 1, 2) == -F.max_pool2d(-made[:, :1].float(), 5, 1, 2)
    assert inside.float().mean() > 0.1
    assert torch.equal(made[:, :1][inside], made[:, 1:][inside])
    assert float((made[:, 0].float() - made[:, 1].float()).abs().mean()) < 20


@pytest.mark.parametrize("settings", [{"max_scale": 2.0}, {"colour_jitter": 0.3}, {"class_balance": 1.0}])
def test_a_training_does_what_its_settings_say(settings: dict[str, Any]) -> None:
    """Each of them makes another teacher, the same for one seed."""
    found = []
    for given in ({}, settings, settings):
        training = TeacherTraining(DENSE_TASK, label_maps(), TeacherSettings(epochs=1, batch_size=8, **given), CPU)
        training.epoch()
        found.append(torch.cat([p.flatten() for p in training.network.parameters()]))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_a_training_from_before_these_settings_goes_on() -> None:
    settings = TeacherSettings(epochs=2, batch_size=8)
    first = TeacherTraining(DENSE_TASK, label_maps(), settings, CPU)
    first.epoch()
    state = first.state_dict()
    for name in ("max_scale", "colour_jitter", "class_balance"):
        del state["settings"][name]
    for name in ("teacher_arch", "teacher_options"):
        del state[name]
    second = TeacherTraining(DENSE_TASK, label_maps(), settings, CPU)
    second.load_state_dict(state)
    assert second.epoch() == first.epoch()
    other = TeacherTraining(DENSE_TASK, label_maps(), replace(settings, colour_jitter=0.2), CPU)
    with pytest.raises(InvalidInputError, match=r"colour_jitter=0\.2: .* resumed has colour_jitter=0\.0"):
        other.load_state_dict(state)


def test_a_training_of_a_network_of_the_same_tensors_does_not_go_on() -> None:
    small = replace(DENSE_TASK, teacher_arch="deeplab_small12", teacher_options={})
    fine = replace(small, teacher_options={"output_stride": 4})
    settings = TeacherSettings(epochs=1, batch_size=8)
    state = TeacherTraining(small, label_maps(), settings, CPU).state_dict()
    TeacherTraining(small, label_maps(), settings, CPU).load_state_dict(state)
    with pytest.raises(InvalidInputError, match=r"teacher_options=.*output_stride.*the training to be resumed has"):
        TeacherTraining(fine, label_maps(), settings, CPU).load_state_dict(state)


def test_larger_images_keep_their_labels() -> None:
    """Of images of one colour each pixel's class is still how bright it is; padding alone has none."""
    spec = replace(DENSE_TASK, padding=2, flip=True)
    training = TeacherTraining(spec, label_maps(), TeacherSettings(batch_size=8, max_scale=3.0), CPU)
    bright = torch.arange(8, dtype=torch.uint8).mul(32)[:, None, None, None].expand(8, 3, 8, 8).contiguous()
    seen, labels = training._augmented(bright, bright[:, 0] // 64)
    known = labels != VOID
    assert torch.equal(labels[known], (seen[:, 0] // 64)[known])
    assert not seen[:, 0][~known].any()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_scale", 0.5, "at least 1 and at most 10"),
        ("max_scale", math.inf, "at least 1 and at most 10"),
        ("colour_jitter", 1.0, "at least 0 and below 1"),
        ("colour_jitter", math.nan, "at least 0 and below 1"),
        ("class_balance", -0.1, "at least 0 and at most 1"),
    ],
)
def test_other_numbers_are_refused(name: str, value: float, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name}={value}: expected a number of {expected}"):
        TeacherSettings(**{name: value})  # type: ignore[arg-type]


# --- classes ---


def test_weights_are_those_of_median_frequency_balancing() -> None:
    """By hand: class 0 has 6 of 11 known pixels, class 1 4 of 11, class 2 1 of the 5 of the one image that has it."""
    labels = torch.tensor([[[0, 0, 0], [0, 1, 1]], [[0, 0, 1], [1, 2, VOID]]], dtype=torch.uint8)
    shares = torch.tensor([6 / 11, 4 / 11, 1 / 5])
    made = class_weights(labels, 4, 1.0)
    assert made is not None
    torch.testing.assert_close(made[:3], (4 / 11) / shares)
    assert made[3] == 1.0, "nobody has it"
    half = class_weights(labels, 4, 0.5)
    assert half is not None
    torch.testing.assert_close(half, made.sqrt())
    assert class_weights(labels, 4, 0.0) is None


def test_images_with_a_class_each_weigh_by_their_number() -> None:
    made = class_weights(torch.tensor([0] * 6 + [1] * 3 + [2]), 3, 1.0)
    assert made is not None
    assert made.tolist() == pytest.approx([0.5, 1.0, 3.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_loss_is_pytorchs_mean_over_what_has_a_class(smoothing: float) -> None:
    logits = torch.randn(2, 4, 3, 5, generator=generator())
    labels = torch.randint(0, 4, (2, 3, 5), dtype=torch.uint8, generator=generator(1))
    labels[0, :2] = VOID
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    given = {"weight": weights, "ignore_index": VOID, "label_smoothing": smoothing}
    expected = F.cross_entropy(logits, labels.long(), **given)  # type: ignore[arg-type]
    torch.testing.assert_close(cross_entropy(logits, labels, smoothing, weights), expected)
    empty = torch.full_like(labels, VOID)
    assert float(cross_entropy(logits, empty, smoothing, weights)) == 0.0
