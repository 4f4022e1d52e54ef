"""The student's loop against one written plainly."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.methods import make_method
from ssdkd_env.distillation.student import FINAL_LR_SHARE, StudentSettings, StudentTrainer
from ssdkd_env.networks.convnet import ConvNet
from tests.own_networks import DenseNet

CLASSES = 4
MEAN, STD = 0.4, 0.3


def seeded_net(seed: int, channels: tuple[int, ...] = (4, 6), dense: bool = False) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DenseNet(CLASSES) if dense else ConvNet(CLASSES, 1, channels)


def make_trainer(
    student: nn.Module,
    teacher: nn.Module,
    settings: StudentSettings | None = None,
    padding: int = 0,
    seed: int = 0,
) -> StudentTrainer:
    return StudentTrainer(
        student,
        teacher.eval().requires_grad_(False),
        settings or StudentSettings(),
        replace(make_method("ssdkd"), temperature=4.0),
        normalize=Normalize((MEAN,), (STD,), torch.device("cpu")),
        padding=padding,
        flip=False,
        random=torch.Generator().manual_seed(seed),
    )


def training_data(seed: int, minibatches: int = 3, size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Images (12, 1, 8, 8), draws and weights."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (12, 1, 8, 8), generator=random).to(torch.uint8)
    return images, torch.randint(12, (minibatches, size), generator=random), torch.rand(12, generator=random)


def test_the_learning_rate_falls_as_a_cosine_from_first_to_last_round() -> None:
    rounds, lr = 9, 0.2
    trainer = make_trainer(seeded_net(0), seeded_net(1), StudentSettings(lr=lr))
    rates = [trainer.learning_rate(r / (rounds - 1)) for r in range(rounds)]
    low = lr * FINAL_LR_SHARE
    expected = [low + (lr - low) * (1 + math.cos(math.pi * r / (rounds - 1))) / 2 for r in range(rounds)]
    assert rates == pytest.approx(expected)
    assert rates[0] == pytest.approx(lr)
    assert rates[-1] == pytest.approx(low)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("teacher_chunk", [1, 10, 1024])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_equals_a_plain_loop(
    dense: bool, teacher_chunk: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssdkd_env.distillation.forward.FORWARD_CHUNK", teacher_chunk)
    settings = StudentSettings(lr=0.05, momentum=0.8, weight_decay=1e-2)
    teacher, student = seeded_net(1, (6, 8), dense), seeded_net(2, dense=dense)
    reference = copy.deepcopy(student)
    student.to(memory_format=layout)  # type: ignore[call-overload]
    trainer = make_trainer(student, teacher, settings)
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    reference.train()
    for seed, learning_rate in enumerate((0.05, 0.02)):
        images, draws, weights = training_data(seed)
        loss = trainer.train(images, draws, weights, learning_rate)

        losses = []
        for rows in draws.tolist():
            inputs = (images[rows].float() / 255 - MEAN) / STD
            p = F.softmax(teacher(inputs) / 4.0, dim=1)
            log_q = F.log_softmax(reference(inputs) / 4.0, dim=1)
            divergence = F.kl_div(log_q, p, reduction="none").sum(dim=1)
            per_image = divergence.flatten(1).mean(dim=1) if dense else divergence
            weighted = sum(weights[row] * 16.0 * d for row, d in zip(rows, per_image, strict=True)) / len(rows)
            assert isinstance(weighted, Tensor)
            gradients = torch.autograd.grad(weighted, list(reference.parameters()))
            with torch.no_grad():
                for parameter, gradient, v in zip(reference.parameters(), gradients, velocity, strict=True):
                    v.mul_(settings.momentum).add_(gradient + settings.weight_decay * parameter)
                    parameter.sub_(learning_rate * v)
            losses.append(weighted.item())
        assert loss.item() == pytest.approx(sum(losses), rel=1e-4)
    for (name, value), expected in zip(student.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-5, msg=name)


def test_the_student_is_in_evaluation_mode_outside_training() -> None:
    student = seeded_net(2)
    trainer = make_trainer(student.train(), seeded_net(1))
    assert not student.training
    trainer.train(*training_data(0), learning_rate=0.2)
    assert not student.training


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = seeded_net(1)
    before = copy.deepcopy(teacher.state_dict())
    make_trainer(seeded_net(2), teacher).train(*training_data(0), learning_rate=0.2)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_images_without_weight_teach_nothing() -> None:
    settings = StudentSettings(lr=0.5, momentum=0.0, weight_decay=0.0)
    student = seeded_net(2)
    before = [p.detach().clone() for p in student.parameters()]
    images, draws, weights = training_data(0)
    loss = make_trainer(student, seeded_net(1), settings).train(images, draws, torch.zeros_like(weights), 0.5)
    assert loss.item() == 0
    assert all(torch.equal(b, p) for b, p in zip(before, student.parameters(), strict=True))


def test_training_lowers_the_loss() -> None:
    trainer = make_trainer(seeded_net(2), seeded_net(1), padding=1)
    images, draws, weights = training_data(0, minibatches=8, size=12)
    losses = [trainer.train(images, draws, torch.ones_like(weights), 0.1).item() for _ in range(6)]
    assert losses[-1] < 0.5 * losses[0]


def test_nan_weights_give_a_nan_loss_and_no_exception() -> None:
    images, draws, weights = training_data(0)
    trainer = make_trainer(seeded_net(2), seeded_net(1))
    assert math.isnan(trainer.train(images, draws, weights * math.nan, 0.2).item())
    assert math.isnan(trainer.train(images, draws, weights, 0.2).item())


def test_a_state_dict_continues_bit_identically() -> None:
    teacher = seeded_net(1)
    original = make_trainer(seeded_net(2), teacher)
    original.train(*training_data(0), learning_rate=0.2)
    restored = make_trainer(seeded_net(3), teacher)
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    losses = [trainer.train(*training_data(1), learning_rate=0.1).item() for trainer in (original, restored)]
    assert losses[0] == losses[1]
    pairs = zip(original.student.state_dict().values(), restored.student.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
