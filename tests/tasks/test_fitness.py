"""What is found out about networks before they are used."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.registry import NETWORKS
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.fitness import check_trains, oddities, spread_seen
from ssdkd_env.tasks.task import build_teacher
from ssdkd_env.tasks.teacher import TeacherSettings, TeacherTraining

CPU = torch.device("cpu")


class Auxiliary(ConvNet):
    """Answers with two outputs in training mode, as GoogLeNet and Inception do."""

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class Ending(nn.Module):
    """The digits teacher with something behind its logits."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.body, self.end = build_teacher(DIGITS, seed=0).eval(), end

    def forward(self, images: Tensor) -> Tensor:
        """Images to what is behind the logits."""
        found: Tensor = self.end(self.body(images))
        return found


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NETWORKS, "_entries", {**NETWORKS, "auxiliary": Auxiliary})


def test_network_that_answers_with_a_tuple_in_training_is_refused_before_the_run() -> None:
    for batch_size in (8, 1):
        with pytest.raises(InvalidInputError, match="student_arch='auxiliary' answers with a tuple in training mode"):
            load_task("digits", student_arch="auxiliary", budget={"batch_size": batch_size})


def test_teacher_that_answers_with_a_tuple_in_training_is_refused_before_the_run() -> None:
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    spec = replace(DIGITS, teacher_arch="auxiliary", teacher_options={})
    with pytest.raises(InvalidInputError, match="teacher_arch='auxiliary' answers with a tuple in training mode"):
        TeacherTraining(spec, (images, labels), TeacherSettings(), torch.device("cpu"))


def test_one_image_at_once_is_refused_where_batch_norm_needs_more() -> None:
    network = NETWORKS["vgg11"](num_classes=10, in_channels=1)
    spec = replace(DIGITS, student_arch="vgg11")
    with pytest.raises(
        InvalidInputError, match=r"student_arch='vgg11' cannot be trained on 1 image at once.*larger batch"
    ):
        check_trains("student", network, spec, 1)
    check_trains("student", network, spec, 2)
    load_task("digits", budget={"batch_size": 1})  # whose maps have more pixels than one


def test_asking_leaves_the_network_and_the_generators_as_they_are() -> None:
    network = ConvNet(10, 1, (4, 5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, training = torch.get_rng_state(), network.training
    check_trains("student", network, DIGITS, 2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and network.training is training


def test_sound_teacher_has_nothing_odd() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert oddities(load_task("digits").teacher_on(CPU), DIGITS, DIGITS.std) == []


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (nn.Softmax(dim=1), "it ends in a softmax"),
        (nn.Sigmoid(), "it ends in a sigmoid"),
        (nn.LogSoftmax(dim=1), "log_softmax"),
    ],
)
def test_teacher_that_ends_in_probabilities_is_odd(end: nn.Module, said: str) -> None:
    found, *_ = oddities(Ending(end), DIGITS, DIGITS.std)
    assert said in found


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, nn.BatchNorm1d])
def test_batch_norm_without_statistics_is_odd(layer: type[nn.Module]) -> None:
    features = (nn.Conv2d(1, 4, 3), layer(4, track_running_stats=False)) if layer is nn.BatchNorm2d else ()
    dense = (nn.LazyLinear(8), layer(8, track_running_stats=False)) if layer is nn.BatchNorm1d else ()
    teacher = nn.Sequential(*features, nn.Flatten(), *dense, nn.LazyLinear(10))
    teacher(torch.zeros(2, 1, 8, 8))
    (found,) = oddities(teacher.eval(), DIGITS, DIGITS.std)
    assert "keeps no running statistics" in found and "track_running_stats=True" in found


def test_spread_of_a_first_layers_inputs_is_that_of_the_images_that_it_was_trained_on() -> None:
    """Images of equal pixels, for which the formula is exact."""
    network = ConvNet(10, 1, (16, 5))
    images = 0.3 * torch.randn(4_000, 1, 1, 1).expand(4_000, 1, 8, 8)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first.padding = (0, 0)  # whose zeros are no equal pixels
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    norms[0].momentum = None
    with torch.no_grad():
        norms[0].train()(first(images))
    assert spread_seen(network) == pytest.approx(0.3, rel=0.05)


def test_teacher_of_images_in_0_to_1_is_odd_where_the_tasks_normalisation_is_said() -> None:
    """The most frequent mistake with public checkpoints; eight epochs on the digits as they are."""
    raw = replace(DIGITS, mean=(0.0,), std=(1.0,))
    assert DIGITS.teacher_data is not None
    training = TeacherTraining(raw, DIGITS.teacher_data()[0], TeacherSettings(epochs=8), CPU)
    while not training.done:
        training.epoch()
    assert oddities(training.network, raw, DIGITS.std) == []
    (found,) = oddities(training.network, DIGITS, DIGITS.std)
    assert "it seems to have been trained with another; --mean and --std say which" in found
    (found,) = oddities(load_task("digits").teacher_on(CPU), raw, DIGITS.std)
    assert "have 0.38" in found


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.Conv2d(1, 3, 3)), nn.Sequential(nn.Linear(3, 3)), nn.Sequential()]
)
def test_networks_without_batch_norm_behind_their_first_layer_say_nothing(network: nn.Module) -> None:
    assert spread_seen(network) is None
    assert spread_seen(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))) is None
