"""The card beside a teacher's weights: what it settles, and what is refused."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.cards import with_card
from ssdkd_env.tasks.cifar import CIFAR10
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import build_teacher
from tests.own_networks import DropoutNet

CPU = torch.device("cpu")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """Weights of the digits task's own teacher architecture; the card would be teacher.json."""
    save_weights(tmp_path / "teacher.safetensors", build_teacher(DIGITS, seed=0))
    return tmp_path / "teacher.safetensors"


def write_card(teacher: Path, card: Any) -> None:
    teacher.with_suffix(".json").write_text(card if isinstance(card, str) else json.dumps(card))


# --- what a card settles ---


def test_without_a_card_the_task_is_unchanged(teacher: Path) -> None:
    assert with_card(DIGITS, str(teacher), None) == DIGITS


@pytest.mark.parametrize("card", [{}, {"top1": {"test": 0.99}, "command": "python train.py"}])
def test_a_card_that_says_nothing_of_the_network_changes_nothing(card: Any, teacher: Path) -> None:
    write_card(teacher, card)
    assert with_card(DIGITS, str(teacher), None) == DIGITS


def test_a_card_gives_network_and_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_weights(path, ConvNet(10, 1, channels=(4, 6)))
    card = {
        "arch": "convnet",
        "options": {"channels": [4, 6]},
        "num_classes": 10,
        "image_shape": [1, 8, 8],
        "normalization": {"mean": [0.25], "std": [1]},
    }
    write_card(path, card)
    spec = load_task("digits", teacher=str(path)).spec
    assert (spec.teacher_arch, spec.teacher_options) == ("convnet", {"channels": [4, 6]})
    assert (spec.mean, spec.std) == ((0.25,), (1.0,))
    assert spec.teacher_weights == str(path)
    assert (spec.student_arch, spec.budget) == (DIGITS.student_arch, DIGITS.budget)


def test_a_network_without_options_has_none_of_the_tasks(tmp_path: Path) -> None:
    path = tmp_path / "default.safetensors"
    save_weights(path, ConvNet(10, 1))
    write_card(path, {"arch": "convnet"})
    assert load_task("digits", teacher=str(path)).spec.teacher_options == {}


def test_a_network_that_the_user_names_goes_before_the_cards(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_weights(path, DropoutNet(10))
    write_card(path, {"arch": "convnet", "options": {"channels": [4]}, "normalization": {"mean": [0.5], "std": [0.2]}})
    task = load_task("digits", teacher=str(path), teacher_arch="tests.own_networks:DropoutNet")
    assert isinstance(task.teacher_on(CPU), DropoutNet)
    assert task.spec.teacher_options == {}
    assert (task.spec.mean, task.spec.std) == ((0.5,), (0.2,)), "the normalisation still belongs to the weights"


@pytest.mark.parametrize(("options", "expected"), [({"channels": [4, 6]}, [4, 6]), ({}, [32, 64, 128])])
def test_a_network_that_both_user_and_card_name_has_the_cards_options(
    options: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    """Weights of one shape may be of two networks: where the map is not halved is in no tensor."""
    path = tmp_path / "same.safetensors"
    save_weights(path, ConvNet(10, 1, **options))
    write_card(path, {"arch": "convnet", "options": options})
    task = load_task("digits", teacher=str(path), teacher_arch="convnet")
    assert task.spec.teacher_options == options
    convolutions = [each.out_channels for each in task.teacher_on(CPU).modules() if isinstance(each, nn.Conv2d)]
    assert convolutions == expected


def test_half_a_normalisation_keeps_the_tasks_other_half(teacher: Path) -> None:
    write_card(teacher, {"normalization": {"mean": [0.5]}})
    spec = with_card(DIGITS, str(teacher), None)
    assert (spec.mean, spec.std) == ((0.5,), DIGITS.std)


def test_a_card_that_changed_is_read_again(teacher: Path) -> None:
    tasks = []
    for mean in (0.4, 0.6):
        write_card(teacher, {"normalization": {"mean": [mean]}})
        tasks.append(load_task("digits", teacher=str(teacher)))
    assert [task.spec.mean for task in tasks] == [(0.4,), (0.6,)]


def test_the_tasks_own_teacher_needs_no_card() -> None:
    own = load_task("digits")
    named = load_task("digits", teacher=DIGITS.teacher_weights)
    assert (named.spec.mean, named.spec.std, named.spec.teacher_arch) == (own.spec.mean, own.spec.std, "convnet")
    assert named.teacher_digest() == own.teacher_digest()


# --- what is refused ---


def refused(teacher: Path, card: Any, match: str) -> None:
    write_card(teacher, card)
    with pytest.raises(InvalidInputError, match=match) as error:
        load_task("digits", teacher=str(teacher))
    assert teacher.stem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_teacher_of_other_classes_or_images_is_refused(teacher: Path) -> None:
    refused(teacher, {"num_classes": 7}, "trained with num_classes 7, task 'digits' has 10; choose")
    refused(teacher, {"image_shape": [3, 8, 8]}, r"trained with image_shape \[3, 8, 8\], task 'digits' has \[1, 8, 8\]")


@pytest.mark.parametrize("text", ["", "{", '{"num_classes": 10', "\x00\x01"])
def test_a_card_that_was_cut_short_is_refused(text: str, teacher: Path) -> None:
    refused(teacher, text, "not valid JSON")


def test_a_card_that_is_no_text_is_refused(teacher: Path) -> None:
    teacher.with_suffix(".json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInputError, match="not valid JSON"):
        load_task("digits", teacher=str(teacher))


@pytest.mark.parametrize("card", [[1, 2], 3, "text", None])
def test_json_that_is_no_card_is_refused(card: Any, teacher: Path) -> None:
    refused(teacher, json.dumps(card), "no teacher's card: expected object, got .*; remove it")


@pytest.mark.parametrize(
    "card",
    [
        {"normalization": [0.5, 0.5]},
        {"normalization": None},
        {"arch": "convnet", "options": [16, 32]},
        {"arch": "convnet", "options": None},
    ],
)
def test_a_part_of_another_kind_is_refused(card: Any, teacher: Path) -> None:
    refused(teacher, card, "normalization|options")


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize(
    "values",
    [
        *([0.5, 0.5], [], ["a"], [None], "0.5", 0.5, {"0": 0.5}),
        [math.nan],
        [math.inf],
        [True],
    ],
)
def test_a_normalisation_that_does_not_fit_the_channels_is_refused(name: str, values: Any, teacher: Path) -> None:
    refused(teacher, {"normalization": {name: values}}, f"normalization {name}=.*1 finite numbers.*one a")


@pytest.mark.parametrize("value", [0.0, -0.2])
def test_a_deviation_that_is_not_above_0_is_refused(value: float, teacher: Path) -> None:
    refused(teacher, {"normalization": {"std": [value]}}, "normalization std=")


def test_the_number_of_channels_is_the_tasks(teacher: Path) -> None:
    write_card(teacher, {"normalization": {"mean": [0.1, 0.2, 0.3]}})
    assert with_card(CIFAR10, str(teacher), None).mean == (0.1, 0.2, 0.3)
    with pytest.raises(InvalidInputError, match="expected 1 finite numbers"):
        with_card(DIGITS, str(teacher), None)


@pytest.mark.parametrize(
    ("card", "match"),
    [
        ({"arch": "resnet99"}, "names the network 'resnet99'.*give teacher_arch="),
        ({"arch": "torch.hub:load", "options": {"source": "local"}}, "names the network 'torch.hub:load'"),
        ({"arch": "convnet", "options": {"depth": 3}}, "teacher_arch='convnet' was called with.*depth.*refused"),
        ({"arch": "resnet8"}, "teacher=.*does not fit ResNet"),
    ],
)
def test_a_network_that_cannot_be_built_or_filled_is_refused(card: Any, match: str, teacher: Path) -> None:
    write_card(teacher, card)
    with pytest.raises(InvalidInputError, match=match):
        load_task("digits", teacher=str(teacher))


# --- strangers' cards ---


def test_a_network_much_larger_than_its_weights_is_refused_before_it_takes_memory(teacher: Path) -> None:
    """A billion channels would be asked of the system in the first layer."""
    card = {"arch": "convnet", "options": {"channels": [10**6, 10**6]}}
    refused(teacher, json.dumps(card), "describes a network of .* bytes, and .* has .*; they do not belong together")
    card["options"] = {"channels": [10**9]}
    refused(teacher, json.dumps(card), "'channels' has 1000000000")


def test_a_network_of_far_fewer_bytes_than_its_weights_is_read(teacher: Path) -> None:
    """Weights may hold an optimiser's state as well; what is there is never too much for a card."""
    write_card(teacher, {"arch": DIGITS.teacher_arch, "options": dict(DIGITS.teacher_options)})
    assert with_card(DIGITS, str(teacher), None).teacher_arch == DIGITS.teacher_arch


def test_a_pipe_in_place_of_a_card_is_refused_and_not_waited_for(teacher: Path) -> None:
    os.mkfifo(teacher.with_suffix(".json"))
    with pytest.raises(InvalidInputError, match=r"teacher\.json: it is a named pipe"):
        with_card(DIGITS, str(teacher), None)
