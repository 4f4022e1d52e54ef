"""Inversion on tiny teachers, and its meta-step against one written by hand."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation import objective as objective_module
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.inversion import Inversion
from ssdkd_env.distillation.losses import one_hot_loss
from ssdkd_env.distillation.methods import Method, make_method
from ssdkd_env.distillation.sources import ADAM_BETAS, MetaGenerator
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.generators import Generator
from tests.own_networks import DenseNet

CLASSES, LATENT, BATCH = 4, 6, 8
SHAPE = (2, 8, 8)
UNIFORM = torch.full((CLASSES,), 1 / CLASSES)
MODULATED: dict[str, Any] = {"modulate_diversity": True, "modulate_difficulty": True}


def seeded(build: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def frozen_teacher(batch_norm: bool = True, dense: bool = False) -> nn.Module:
    """A teacher whose running statistics come from a few random batches."""

    def build() -> nn.Module:
        network: nn.Module = (
            DenseNet(CLASSES, SHAPE[0]) if dense else ConvNet(CLASSES, SHAPE[0], (5, 6), batch_norm=batch_norm)
        )
        for _ in range(20):
            network(torch.randn(32, *SHAPE) * 0.7)
        return network

    network: nn.Module = seeded(build, 1)
    return network.eval().requires_grad_(False)


def make_student(dense: bool = False) -> nn.Module:
    build = (lambda: DenseNet(CLASSES, SHAPE[0])) if dense else (lambda: ConvNet(CLASSES, SHAPE[0], (4,)))
    student: nn.Module = seeded(build, 2)
    return student.eval()


def plain_method(**options: Any) -> Method:
    """A preset with the settings that a test leaves open switched off."""
    chosen = {"modulate_diversity": False, "modulate_difficulty": False, "statistics_momentum": 0.0} | options
    return replace(make_method("ssdkd"), **chosen)


def make_inversion(
    method: Method,
    teacher: nn.Module,
    steps: int = 2,
    padding: int = 0,
    flip: bool = False,
    seed: int = 0,
    generator: nn.Module | None = None,
) -> Inversion:
    return Inversion(
        method,
        teacher,
        generator or seeded(lambda: Generator(LATENT, SHAPE, channels=8), 3),
        num_classes=CLASSES,
        image_shape=SHAPE,
        latent_dim=LATENT,
        batch_size=BATCH,
        steps=steps,
        normalize=Normalize((0.4, 0.6), (0.3, 0.2), torch.device("cpu")),
        padding=padding,
        flip=flip,
        random=torch.Generator().manual_seed(seed),
    )


def generator_of(engine: Inversion) -> nn.Module:
    assert isinstance(engine.source, MetaGenerator)
    return engine.source.generator


def test_images_have_the_teachers_shape_and_lie_in_the_unit_interval() -> None:
    images, losses = make_inversion(plain_method(), frozen_teacher()).synthesize(make_student(), UNIFORM)
    assert images.shape == (BATCH, *SHAPE)
    assert not images.requires_grad
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0
    assert losses.shape == (3,)
    assert losses.isfinite().all()


@pytest.mark.parametrize(("part", "weights"), [(0, (1.0, 0.0)), (1, (0.0, 1.0))])
def test_a_call_lowers_the_loss_it_minimises(part: int, weights: tuple[float, float]) -> None:
    method, teacher = plain_method(bn_weight=weights[0], one_hot_weight=weights[1]), frozen_teacher()
    _, first = make_inversion(method, teacher, steps=1).synthesize(None, UNIFORM)
    _, last = make_inversion(method, teacher, steps=40).synthesize(None, UNIFORM)
    assert last[part] < 0.9 * first[part]
    assert first[2] == last[2] == 0


def test_the_meta_step_makes_the_generator_a_better_start() -> None:
    method, teacher = plain_method(), frozen_teacher()
    engine = make_inversion(method, teacher, steps=3)
    losses = torch.stack([engine.synthesize(None, UNIFORM)[1] for _ in range(12)])
    assert losses[-3:, 0].mean() < 0.9 * losses[:3, 0].mean()


def test_the_adversary_seeks_disagreement_with_the_student() -> None:
    teacher, student = frozen_teacher(), make_student()
    method = plain_method(bn_weight=0.0, one_hot_weight=0.0, adversarial_weight=1.0, masked=False, warm_up=False)
    _, first = make_inversion(method, teacher, steps=1).synthesize(student, UNIFORM)
    _, last = make_inversion(method, teacher, steps=30).synthesize(student, UNIFORM)
    assert last[2] < first[2] < 0


def test_teacher_and_student_are_left_as_they_were() -> None:
    teacher, student = frozen_teacher(), make_student()
    before = copy.deepcopy([teacher.state_dict(), student.state_dict()])
    engine = make_inversion(plain_method(**MODULATED), teacher, padding=1, flip=True)
    for _ in range(2):
        engine.synthesize(student, UNIFORM)
    for network, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not network.training
        assert sum(len(m._forward_pre_hooks) for m in network.modules()) == 0
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_generator_moves() -> None:
    engine = make_inversion(plain_method(), frozen_teacher())
    before = [p.clone() for p in generator_of(engine).parameters()]
    engine.synthesize(None, UNIFORM)
    assert any(not torch.equal(b, p) for b, p in zip(before, generator_of(engine).parameters(), strict=True))


def test_batches_differ_from_call_to_call() -> None:
    engine = make_inversion(plain_method(generator_lr=1e-12, latent_lr=1e-12), frozen_teacher())
    first, second = engine.synthesize(None, UNIFORM)[0], engine.synthesize(None, UNIFORM)[0]
    assert not torch.equal(first, second)


def test_every_class_is_asked_for_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def record(logits: Tensor, targets: Tensor) -> Tensor:
        asked.append(targets.clone())
        return one_hot_loss(logits, targets)

    monkeypatch.setattr(objective_module, "one_hot_loss", record)
    engine = make_inversion(plain_method(), frozen_teacher(), steps=2)
    for _ in range(10):
        engine.synthesize(None, UNIFORM)
    assert all(torch.bincount(t, minlength=CLASSES).tolist() == [BATCH // CLASSES] * CLASSES for t in asked)
    calls = [tuple(t.tolist()) for t in asked]
    assert calls[0] == calls[1], "the targets of a batch change between its steps"
    assert len(set(calls)) > 5, "the order of the targets is not random"


def test_classes_differ_by_one_at_most_when_the_batch_does_not_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[Tensor] = []

    def record(logits: Tensor, targets: Tensor) -> Tensor:
        counts.append(torch.bincount(targets, minlength=CLASSES))
        return one_hot_loss(logits, targets)

    monkeypatch.setattr(objective_module, "one_hot_loss", record)
    engine = make_inversion(plain_method(), frozen_teacher(), steps=1)
    engine.batch_size = 7
    for _ in range(12):
        engine.synthesize(None, UNIFORM)
    assert all(sorted(c.tolist()) == [1, 2, 2, 2] for c in counts)
    assert len({int(c.argmin()) for c in counts}) == CLASSES, "one class is always the one left out"


def test_modulation_weighs_the_one_hot_loss_by_rarity_in_the_buffer() -> None:
    """A buffer that holds one class only switches the pull towards that class off."""
    teacher = frozen_teacher()
    method = plain_method(
        bn_weight=0.0, one_hot_weight=1.0, modulate_diversity=True, modulate_difficulty=True, gamma=0.0
    )
    engine = make_inversion(method, teacher)
    logits = teacher(torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(5)))
    predicted = int(logits.argmax(dim=1).mode().values)
    images = torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(6)).requires_grad_()
    inputs = engine.objective._normalize(images)
    classes = teacher(inputs).argmax(dim=1)
    full_of_one = torch.eye(CLASSES)[predicted]
    losses, _ = engine.objective(images, torch.zeros(BATCH, dtype=torch.int64), None, full_of_one[None])
    (gradient,) = torch.autograd.grad(losses[0], images)
    silent = gradient.flatten(1).abs().sum(dim=1) == 0
    assert torch.equal(silent, classes == predicted)


def test_modulation_is_a_weight_and_passes_no_gradient() -> None:
    teacher = frozen_teacher()
    method = plain_method(
        bn_weight=0.0, one_hot_weight=1.5, modulate_diversity=True, modulate_difficulty=True, gamma=2.0
    )
    engine = make_inversion(method, teacher)
    images = torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(6)).requires_grad_()
    targets, share = torch.arange(BATCH) % CLASSES, torch.tensor([0.4, 0.3, 0.2, 0.1])
    (loss,), _ = engine.objective(images, targets, None, share[None])
    log_p = teacher(engine.objective._normalize(images)).log_softmax(dim=1)
    p = log_p.detach().exp()
    phi = (1 - share[p.argmax(dim=1)]) * (1 - p.amax(dim=1)) ** 2
    expected = -1.5 * (phi * log_p[range(BATCH), targets]).mean()
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, images)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_a_teacher_without_batch_norm_falls_back_to_image_priors_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="BatchNorm"):
        engine = make_inversion(plain_method(), frozen_teacher(batch_norm=False))
    images, losses = engine.synthesize(make_student(), UNIFORM)
    assert images.isfinite().all()
    assert losses.isfinite().all()
    assert losses[0] > 0


def test_a_teacher_with_batch_norm_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_inversion(plain_method(), frozen_teacher())


@pytest.mark.parametrize("modulated", [True, False])
def test_a_dense_teacher_is_inverted_too(modulated: bool) -> None:
    engine = make_inversion(
        plain_method(modulate_diversity=modulated, modulate_difficulty=modulated),
        frozen_teacher(dense=True),
        padding=1,
        flip=True,
    )
    images, losses = engine.synthesize(make_student(dense=True), UNIFORM)
    assert images.shape == (BATCH, *SHAPE)
    assert losses.isfinite().all()


class SpareParameter(nn.Module):
    """A generator with one parameter that the images do not depend on, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Generator(LATENT, SHAPE, channels=8)
        self.spare = nn.Parameter(torch.ones(2))
        self.inner.project.bias.requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.inner(latents)
        return images


def test_a_generator_may_have_parameters_that_take_no_part() -> None:
    generator: SpareParameter = seeded(SpareParameter, 3)
    engine = make_inversion(plain_method(), frozen_teacher(), generator=generator)
    frozen, moving = generator.inner.project.bias.clone(), generator.inner.project.weight.clone()
    engine.synthesize(None, UNIFORM)
    assert torch.equal(generator.spare, torch.ones(2))
    assert torch.equal(generator.inner.project.bias, frozen)
    assert not torch.equal(generator.inner.project.weight, moving)


# --- first-order MAML, by hand ---


class HandAdam:
    """Adam as in Kingma & Ba 2015, algorithm 1."""

    def __init__(self, learning_rates: list[float], betas: tuple[float, float]) -> None:
        self.learning_rates, self.betas, self.t = learning_rates, betas, 0
        self.m: list[Any] = [0.0] * len(learning_rates)
        self.v: list[Any] = [0.0] * len(learning_rates)

    def step(self, parameters: list[Tensor], gradients: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
        self.t += 1
        b1, b2 = self.betas
        moved = []
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            self.m[i] = b1 * self.m[i] + (1 - b1) * gradient
            self.v[i] = b2 * self.v[i] + (1 - b2) * gradient**2
            m_hat, v_hat = self.m[i] / (1 - b1**self.t), self.v[i] / (1 - b2**self.t)
            moved.append((parameter - self.learning_rates[i] * m_hat / (v_hat.sqrt() + 1e-8)).detach())
        return moved


def loss_by_hand(method: Method, teacher: ConvNet, student: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """L_inv from its definition, with the statistics taken layer by layer."""
    inputs = (images - torch.tensor([0.4, 0.6]).view(1, 2, 1, 1)) / torch.tensor([0.3, 0.2]).view(1, 2, 1, 1)
    statistics = torch.zeros(())
    features = inputs
    for layer in teacher.features:
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            columns = features.transpose(0, 1).flatten(1)
            statistics = statistics + (layer.running_mean - columns.mean(1)).square().sum().sqrt()
            statistics = statistics + (layer.running_var - columns.var(1, unbiased=False)).square().sum().sqrt()
        features = layer(features.clone())
    logits = teacher.classifier(features.mean(dim=(2, 3)))
    log_p, log_q = logits.log_softmax(1), student(inputs).log_softmax(1)
    one_hot = -log_p[range(BATCH), targets].mean()
    agree = (log_p.argmax(1) == log_q.argmax(1)).double()
    adversarial = -((log_p.exp() * (log_p - log_q)).sum(1) * agree).mean()
    loss: Tensor = method.bn_weight * statistics
    loss = loss + method.one_hot_weight * one_hot + method.adversarial_weight * adversarial
    return loss


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_meta_step_equals_first_order_maml_by_hand(layout: torch.memory_format) -> None:
    steps, rounds, seed = 2, 3, 11
    method = plain_method(bn_weight=0.7, one_hot_weight=1.3, adversarial_weight=0.9, generator_lr=3e-3, latent_lr=2e-2)
    teacher, student = frozen_teacher(), make_student()
    assert isinstance(teacher, ConvNet)
    made_of = seeded(lambda: Generator(LATENT, SHAPE, channels=8), 3)
    generator = copy.deepcopy(made_of)
    engine = make_inversion(method, teacher, steps, seed=seed, generator=made_of.to(memory_format=layout))
    share = UNIFORM.double()
    images = [engine.synthesize(student, share)[0] for _ in range(rounds)]

    random = torch.Generator().manual_seed(seed)
    names = [name for name, _ in generator.named_parameters()]
    theta = [p.detach().clone() for p in generator.parameters()]
    betas = ADAM_BETAS
    outer = HandAdam([steps * method.generator_lr] * len(theta), betas)
    for expected in images:
        order = torch.randperm(BATCH, generator=random)
        targets = (order + torch.randint(CLASSES, (1,), generator=random)) % CLASSES
        z = torch.randn(BATCH, LATENT, generator=random)
        inner = HandAdam([method.generator_lr] * len(theta) + [method.latent_lr], betas)
        point, total = [*theta, z], [torch.zeros_like(p) for p in theta]
        for _ in range(steps):
            point = [p.detach().requires_grad_() for p in point]
            made = torch.func.functional_call(generator, dict(zip(names, point[:-1], strict=True)), (point[-1],))
            gradients = torch.autograd.grad(loss_by_hand(method, teacher, student, made, targets), point)
            point = inner.step(point, gradients)
            total = [t + g for t, g in zip(total, gradients[:-1], strict=True)]
        made = torch.func.functional_call(generator, dict(zip(names, point[:-1], strict=True)), (point[-1],))
        torch.testing.assert_close(expected, made.detach(), rtol=1e-9, atol=1e-9)
        theta = outer.step(theta, total)
    for parameter, by_hand in zip(generator_of(engine).parameters(), theta, strict=True):
        torch.testing.assert_close(parameter.detach(), by_hand, rtol=1e-8, atol=1e-10)
    assert math.isfinite(float(theta[0].sum()))


# --- state ---


def test_a_state_dict_continues_bit_identically() -> None:
    method = plain_method(statistics_momentum=0.9, **MODULATED)
    teacher, student = frozen_teacher(), make_student()
    original = make_inversion(method, teacher, padding=1, flip=True, seed=1)
    for _ in range(2):
        original.synthesize(student, UNIFORM)
    state, random_state = copy.deepcopy(original.state_dict()), original.random.get_state()
    restored = make_inversion(method, teacher, padding=1, flip=True, seed=2)
    restored.load_state_dict(state)
    restored.random.set_state(random_state)
    for _ in range(2):
        expected, expected_losses = original.synthesize(student, UNIFORM)
        images, losses = restored.synthesize(student, UNIFORM)
        assert torch.equal(images, expected)
        assert torch.equal(losses, expected_losses)
