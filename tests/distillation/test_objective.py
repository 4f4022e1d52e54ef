"""The inversion loss of every method against a sum by hand, and what is left out when its weight is 0."""

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
from ssdkd_env.distillation.methods import METHODS, Method, make_method
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.networks.convnet import ConvNet
from tests.distillation.test_inversion import (
    BATCH,
    CLASSES,
    SHAPE,
    UNIFORM,
    frozen_teacher,
    make_inversion,
    make_student,
    seeded,
)
from tests.own_networks import DropoutNet

MEAN, STD = (0.4, 0.6), (0.3, 0.2)
SHARE = (0.4, 0.3, 0.2, 0.1)
SYNTHESISING = [name for name in METHODS if name != "vanilla_kd"]

#: Weights of the terms that make up each method's loss; `parts_by_hand` says what they mean.
_FAST = {"bn": 10.0, "one_hot": 0.5, "masked_kl": -1.33}
TERMS: dict[str, dict[str, float]] = {
    "ssdkd": {"bn": 10.0, "modulated_one_hot": 0.5, "masked_kl": -1.33},
    **{f"fast{steps}{kind}": _FAST for steps in (2, 5, 10) for kind in ("", "_plain")},
    "cmi": {"bn": 1.0, "one_hot": 1.0, "masked_kl": -0.5, "contrastive": 0.8},
    "deepinversion": {"bn": 10.0, "one_hot": 1.0, "js": -1.0, "variation": 0.01, "square": 0.001},
    "dafl": {"own_one_hot": 1.0, "balance": 20.0, "activation": -1e-3},
    "zskt": {"kl": -1.0},
    "dfad": {"l1": -1.0},
    "dfq": {"kl": -1.0, "bn": 1.0, "own_one_hot": 1.0, "balance": 20.0},
    "nayer": _FAST,
}
ADVERSARIES = {"kl", "masked_kl", "js", "l1"}


def make_objective(
    method: Method, teacher: nn.Module, padding: int = 0, flip: bool = False, seed: int = 0
) -> Objective:
    normalize = Normalize(MEAN, STD, torch.device("cpu"))
    return Objective(method, teacher, normalize, padding, flip, torch.Generator().manual_seed(seed))


def measure(
    objective: Objective, images: Tensor, targets: Tensor, student: nn.Module | None, share: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, a scalar, and its reported parts (3,) of the batch of one run."""
    losses, parts = objective(images, targets, student, share[None])
    assert losses.shape == (1,)
    assert parts.shape == (1, 3)
    return losses[0], parts[0]


def make_images(seed: int = 6, count: int = BATCH) -> Tensor:
    dtype = torch.get_default_dtype()
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=random, dtype=torch.float64).to(dtype).requires_grad_()


def make_targets() -> Tensor:
    return (torch.arange(BATCH) + 1) % CLASSES


def lively_pair() -> tuple[ConvNet, nn.Module]:
    """A teacher that sees several classes, and a student that agrees with it on some images."""
    teacher = frozen_teacher()
    assert isinstance(teacher, ConvNet)
    with torch.no_grad():
        teacher.classifier.weight.mul_(20.0)
        teacher.classifier.bias.sub_(teacher(as_inputs(make_images(9, 64))).mean(dim=0))
        student = copy.deepcopy(teacher)
        noise = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
        student.classifier.weight.add_(2.0 * noise.to(torch.get_default_dtype()))
    return teacher, student


def as_inputs(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def anatomy(teacher: ConvNet, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits, the classifier's input, and the input of each BatchNorm layer."""
    features, seen = as_inputs(images), []
    for layer in teacher.features:
        if isinstance(layer, nn.BatchNorm2d):
            seen.append(features)
        features = layer(features.clone())
    pooled = features.mean(dim=(2, 3))
    return teacher.classifier(pooled), pooled, seen


def statistics(seen: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Mean and biased variance of every BatchNorm layer's input."""
    columns = [features.transpose(0, 1).flatten(1) for features in seen]
    return [(c.mean(1), ((c - c.mean(1, keepdim=True)) ** 2).mean(1)) for c in columns]


def bn_by_hand(teacher: ConvNet, found: list[tuple[Tensor, Tensor]]) -> Tensor:
    total = torch.zeros(())
    layers = [layer for layer in teacher.features if isinstance(layer, nn.BatchNorm2d)]
    for layer, (mean, variance) in zip(layers, found, strict=True):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        total = total + ((layer.running_mean - mean) ** 2).sum().sqrt()
        total = total + ((layer.running_var - variance) ** 2).sum().sqrt()
    return total


def entropy(p: Tensor) -> Tensor:
    return -(p * p.log()).sum(dim=1)


def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    exponentials = (logits / temperature).exp()
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def parts_by_hand(
    teacher: ConvNet, student: nn.Module, images: Tensor, targets: Tensor, head: nn.Module | None
) -> dict[str, Tensor]:
    """Every term that any method's loss may have, from its definition, as scalars."""
    logits, pooled, seen = anatomy(teacher, images)
    answers = student(as_inputs(images))
    p, q = softmax(logits), softmax(answers)
    rows = range(BATCH)
    own = p.argmax(dim=1)
    kl = (p * (p / q).log()).sum(dim=1)
    agree = (own == q.argmax(dim=1)).to(p.dtype)
    soft_p, soft_q = softmax(logits, 3.0), softmax(answers, 3.0)
    phi = ((1 - torch.tensor(SHARE)[own]) * (1 - p.max(dim=1).values)).detach()
    one_hot = -p[rows, targets].log()
    mean_answer = p.mean(dim=0, keepdim=True)
    parts = {
        "bn": bn_by_hand(teacher, statistics(seen)),
        "one_hot": one_hot.mean(),
        "own_one_hot": -p[rows, own].log().mean(),
        "modulated_one_hot": (phi * one_hot).mean(),
        "kl": kl.mean(),
        "masked_kl": (kl * agree).mean(),
        "l1": (logits - answers).abs().mean(),
        "js": (entropy((soft_p + soft_q) / 2) - (entropy(soft_p) + entropy(soft_q)) / 2).mean(),
        "balance": -entropy(mean_answer)[0],
        "activation": pooled.abs().mean(),
        "variation": images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean(),
        "square": (images**2).mean(),
    }
    if head is not None:  # both views are the images themselves, and the bank is empty
        embedded = head(torch.cat([features.mean(dim=(2, 3)) for features in seen], dim=1))
        embedded = embedded / embedded.square().sum(dim=1, keepdim=True).sqrt()
        similar = ((embedded @ embedded.T) / 0.2).exp()
        parts["contrastive"] = -(similar.diagonal() / similar.sum(dim=1)).log().mean()
    return parts


# --- the sum ---


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "adversary"),
    [(name, adversary) for name in TERMS for adversary in (True, False) if adversary or set(TERMS[name]) - ADVERSARIES],
)
def test_the_loss_of_every_method_is_the_sum_by_hand(name: str, adversary: bool) -> None:
    terms = {term: weight for term, weight in TERMS[name].items() if adversary or term not in ADVERSARIES}
    (teacher, student), images = lively_pair(), make_images()
    objective = make_objective(METHODS[name], teacher)
    contrastive = objective._contrastive
    loss, reported = measure(objective, images, make_targets(), student if adversary else None, torch.tensor(SHARE))
    parts = parts_by_hand(teacher, student, images, make_targets(), contrastive.head if contrastive else None)
    assert 0 < parts["masked_kl"] < 0.9 * parts["kl"]
    assert len(set(teacher(as_inputs(images)).argmax(dim=1).tolist())) > 1
    expected: Tensor = sum((weight * parts[term] for term, weight in terms.items()), torch.zeros(()))
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(value, images)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)

    one_hot = "own_one_hot" if name in ("dafl", "dfq") else "one_hot"
    rival = next((term for term in terms if term in ADVERSARIES), None)
    by_hand = [parts["bn"] if "bn" in terms else 0.0, parts[one_hot], -parts[rival] if rival else 0.0]
    torch.testing.assert_close(reported, torch.stack([torch.as_tensor(value) for value in by_hand]))
    assert not reported.requires_grad


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["fast5", "nayer"])
def test_statistics_are_blended_with_those_of_earlier_batches(name: str) -> None:
    teacher = frozen_teacher()
    assert isinstance(teacher, ConvNet)
    objective = make_objective(METHODS[name], teacher)
    past: list[tuple[Tensor, Tensor]] = []
    for seed in (1, 2, 3):
        images = make_images(seed)
        _, reported = measure(objective, images, make_targets(), None, UNIFORM.double())
        found = statistics(anatomy(teacher, images)[2])
        if past:
            found = [(0.9 * a + 0.1 * c, 0.9 * b + 0.1 * d) for (a, b), (c, d) in zip(past, found, strict=True)]
        torch.testing.assert_close(reported[0], bn_by_hand(teacher, found), rtol=1e-10, atol=1e-12)
        objective.end_batch()
        past = [(mean.detach(), variance.detach()) for mean, variance in found]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("settings", "power_of"),
    [
        ({"modulate_diversity": True, "modulate_difficulty": True, "gamma": 2.0}, "confidence"),
        ({"modulate_diversity": True, "modulate_difficulty": True, "gamma": 2.0, "focal": True}, "target"),
        ({"modulate_diversity": False, "modulate_difficulty": True, "gamma": 0.5, "focal": True}, "target"),
        ({"modulate_diversity": False, "modulate_difficulty": True, "gamma": 3.0}, "confidence"),
        ({"modulate_diversity": True, "modulate_difficulty": False, "focal": True}, ""),
        ({"modulate_diversity": False, "modulate_difficulty": False, "focal": True}, ""),
    ],
)
def test_the_terms_of_phi_are_those_the_method_names(settings: dict[str, Any], power_of: str) -> None:
    (teacher, _), images, targets = lively_pair(), make_images(), make_targets()
    method = make_method("ssdkd", {"bn_weight": 0.0, "one_hot_weight": 0.7} | settings)
    loss, _ = measure(make_objective(method, teacher), images, targets, None, torch.tensor(SHARE))
    p = softmax(anatomy(teacher, images)[0])
    own, of_target = p.argmax(dim=1), p[range(BATCH), targets]
    assert (own != targets).any()
    phi = torch.ones(BATCH)
    if settings["modulate_diversity"]:
        phi = phi * (1 - torch.tensor(SHARE)[own])
    if power_of:
        phi = phi * (1 - (of_target if power_of == "target" else p.max(dim=1).values)) ** settings["gamma"]
    expected = -0.7 * (phi.detach() * of_target.log()).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, images)[0], torch.autograd.grad(expected, images)[0])


def test_targets_are_the_arg_max_where_none_is_drawn() -> None:
    teacher, images = frozen_teacher(), make_images()
    objective = make_objective(METHODS["dafl"], teacher)
    losses = [
        measure(objective, images, targets, None, UNIFORM)[0] for targets in (make_targets(), make_targets().flip(0))
    ]
    assert torch.equal(*losses)


def test_dense_prediction_is_sharpened_pixel_by_pixel() -> None:
    teacher, images = frozen_teacher(dense=True), make_images()
    method = make_method("fast5", {"bn_weight": 0.0, "one_hot_weight": 1.0})
    loss, reported = measure(make_objective(method, teacher), images, make_targets(), make_student(dense=True), UNIFORM)
    p = softmax(teacher(as_inputs(images)))
    torch.testing.assert_close(reported[1], -p.max(dim=1).values.log().mean().detach())
    q = softmax(make_student(dense=True)(as_inputs(images)))
    kl = (p * (p / q).log()).sum(dim=1) * (p.argmax(dim=1) == q.argmax(dim=1))
    torch.testing.assert_close(loss, reported[1] - 1.33 * kl.mean())


@pytest.mark.parametrize("name", TERMS)
def test_dense_networks_give_every_method_a_finite_loss(name: str) -> None:
    objective = make_objective(METHODS[name], frozen_teacher(dense=True), padding=1, flip=True)
    images = make_images()
    loss, reported = measure(objective, images, make_targets(), make_student(dense=True), UNIFORM)
    (gradient,) = torch.autograd.grad(loss, images)
    assert reported.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


# --- several runs at once ---


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("name", "adversary"),
    [(name, True) for name in TERMS if name not in ("cmi", "fast2", "fast2_plain", "fast10", "fast10_plain")]
    + [("ssdkd", False), ("fast5", False)],
)
def test_several_runs_get_the_losses_that_each_gets_alone(name: str, dense: bool, adversary: bool) -> None:
    """Two rounds with other images, targets, buffers and augmentation in each of three runs."""
    teacher, student = frozen_teacher(dense=dense), make_student(dense=dense) if adversary else None
    members, twins = (
        [make_objective(METHODS[name], teacher, padding=1, flip=True, seed=seed) for seed in range(3)] for _ in range(2)
    )
    shares = torch.rand(3, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    for round_index in range(2):
        joined = Objective.joined(members)
        images = [make_images(10 * round_index + seed) for seed in range(3)]
        targets = [make_targets().roll(seed) for seed in range(3)]
        losses, parts = joined(torch.cat(images), torch.cat(targets), student, shares)
        joined.end_batch()
        joined.part(dict(enumerate(members)))
        batches = zip(twins, images, targets, shares, strict=True)
        alone = [measure(twin, each, wanted, student, share) for twin, each, wanted, share in batches]
        for twin in twins:
            twin.end_batch()
        torch.testing.assert_close(losses, torch.stack([loss for loss, _ in alone]), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(parts, torch.stack([reported for _, reported in alone]), rtol=1e-10, atol=1e-12)
        totals = losses.sum(), torch.stack([loss for loss, _ in alone]).sum()
        torch.testing.assert_close(*(torch.autograd.grad(total, images) for total in totals), rtol=1e-8, atol=1e-12)
    for member, twin in zip(members, twins, strict=True):
        assert torch.equal(member._random[0].get_state(), twin._random[0].get_state())


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:The teacher has no BatchNorm")
def test_several_runs_get_their_own_image_priors() -> None:
    objective = make_objective(METHODS["ssdkd"], frozen_teacher(batch_norm=False))
    images = [make_images(seed) * (seed + 1) / 3 for seed in range(3)]
    joined = Objective.joined([objective] * 3)
    share, student = UNIFORM.double(), make_student()
    losses, parts = joined(torch.cat(images), torch.cat([make_targets()] * 3), student, share.expand(3, -1))
    joined.end_batch()
    alone = [measure(objective, each, make_targets(), student, share) for each in images]
    torch.testing.assert_close(losses, torch.stack([loss for loss, _ in alone]))
    torch.testing.assert_close(parts, torch.stack([reported for _, reported in alone]))


# --- features for the activation loss ---


def activation_part(teacher: nn.Module, images: Tensor) -> Tensor:
    method = replace(METHODS["dafl"], one_hot_weight=0.0, balance_weight=0.0, activation_weight=1.0)
    loss, _ = measure(make_objective(method, teacher), images, make_targets(), None, UNIFORM)
    return loss


def test_the_activation_is_that_before_the_last_linear_layer() -> None:
    teacher = seeded(lambda: DropoutNet(CLASSES, SHAPE[0]), 4).eval().requires_grad_(False)
    images = make_images()
    hidden = teacher.layers[:3](as_inputs(images))
    torch.testing.assert_close(activation_part(teacher, images), -hidden.abs().mean())


def pixel_teacher(last: int) -> nn.Sequential:
    """Its last convolution is of that size."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(SHAPE[0], 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(6, CLASSES, last, padding=last // 2)).eval().requires_grad_(False)


def test_of_pixels_the_activation_is_that_before_the_last_convolution() -> None:
    teacher, images = pixel_teacher(last=1), make_images()
    torch.testing.assert_close(activation_part(teacher, images), -teacher[:3](as_inputs(images)).abs().mean())


def test_without_such_a_layer_the_activation_is_that_of_the_logits() -> None:
    teacher, images = pixel_teacher(last=3), make_images()
    torch.testing.assert_close(activation_part(teacher, images), -teacher(as_inputs(images)).abs().mean())


# --- what has weight 0 ---


class Silent(nn.Module):
    """A student that is not to be asked."""

    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("the student was asked")


@pytest.mark.parametrize("method", [METHODS["dafl"], make_method("ssdkd", {"adversarial_weight": 0.0})])
def test_without_adversarial_weight_the_student_is_not_asked(method: Method) -> None:
    _, reported = measure(make_objective(method, frozen_teacher()), make_images(), make_targets(), Silent(), UNIFORM)
    assert reported[2] == 0


@pytest.mark.parametrize("name", TERMS)
def test_a_loss_without_weight_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed without a weight")

    functions = {
        "adversarial_loss": {*ADVERSARIES},
        "class_balance": {"balance"},
        "activation_loss": {"activation"},
        "total_variation": {"variation"},
        "squared_norm": {"square"},
        "modulation": {"modulated_one_hot"},
    }
    for function, terms in functions.items():
        if not terms & set(TERMS[name]):
            monkeypatch.setattr(objective_module, function, refuse)
    objective = make_objective(METHODS[name], frozen_teacher())
    loss, _ = measure(objective, make_images(), make_targets(), make_student(), UNIFORM)
    assert math.isfinite(loss.item())


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


class Watched(ConvNet):
    """Counts the hooks on its layers in every pass."""

    def __init__(self) -> None:
        super().__init__(CLASSES, SHAPE[0], (5, 6))
        self.counts: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.counts.append(hooks(self))
        return super().forward(images)


@pytest.mark.parametrize("name", TERMS)
def test_hooks_are_those_the_method_needs_and_gone_afterwards(name: str) -> None:
    teacher: Watched = seeded(Watched, 1).eval().requires_grad_(False)
    measure(make_objective(METHODS[name], teacher), make_images(), make_targets(), make_student(), UNIFORM)
    expected = {"zskt": [0], "dfad": [0], "dafl": [1], "cmi": [2, 2]}  # two BatchNorm layers, one linear
    assert teacher.counts == expected.get(name, [2])
    assert hooks(teacher) == 0


@pytest.mark.parametrize("name", TERMS)
def test_no_hook_outlives_a_failed_pass(name: str) -> None:
    teacher = frozen_teacher()
    with pytest.raises(RuntimeError):
        measure(make_objective(METHODS[name], teacher), torch.zeros(2, 2, 0, 8), make_targets()[:2], None, UNIFORM)
    assert hooks(teacher) == 0


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", SYNTHESISING)
def test_teacher_and_student_are_left_as_they_were(name: str, dense: bool) -> None:
    teacher, student = frozen_teacher(dense=dense), make_student(dense=dense)
    before = copy.deepcopy([teacher.state_dict(), student.state_dict()])
    engine = make_inversion(METHODS[name], teacher, padding=1, flip=True)
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            engine.synthesize(student, UNIFORM, 5)
    for network, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not network.training
        assert hooks(network) == 0
    assert all(parameter.requires_grad for parameter in student.parameters())


# --- augmentation ---


def views(method: Method, images: Tensor) -> list[Tensor]:
    """What the teacher saw."""
    teacher = frozen_teacher()
    seen: list[Tensor] = []
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    measure(make_objective(method, teacher, padding=2, flip=True), images, make_targets(), None, UNIFORM)
    return seen


def test_the_teacher_sees_augmented_images_where_the_method_says_so() -> None:
    images = make_images()
    (view,) = views(METHODS["ssdkd"], images)
    assert not torch.equal(view, as_inputs(images))
    for method in (METHODS["dafl"], make_method("ssdkd", {"augment": False})):
        (view,) = views(method, images)
        torch.testing.assert_close(view, as_inputs(images).detach())


def test_the_contrastive_loss_compares_an_augmented_view_with_the_image_itself() -> None:
    images = make_images()
    first, second = views(METHODS["cmi"], images)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, as_inputs(images).detach())


# --- teachers without BatchNorm ---


@pytest.mark.parametrize("name", [name for name, terms in TERMS.items() if "bn" in terms])
def test_image_priors_take_the_place_of_missing_statistics(name: str) -> None:
    method, images = METHODS[name], make_images()
    teacher = frozen_teacher(batch_norm=False)
    with pytest.warns(UserWarning, match="BatchNorm") as warned:
        objective = make_objective(method, teacher)
    messages = " ".join(str(warning.message) for warning in warned)
    assert "image priors" in messages
    assert ("contrastive" in messages) == (method.contrastive_weight > 0)
    loss, reported = measure(objective, images, make_targets(), None, UNIFORM)
    tv, square = (images.diff(dim=d).abs().mean() for d in (2, 3)), (images**2).mean()
    expected = method.tv_weight * sum(tv) + method.l2_weight * square
    torch.testing.assert_close(reported[0], expected.detach())
    (pull,) = torch.autograd.grad(loss, images)
    assert pull.isfinite().all()
    assert objective.state_dict()["statistics"] == {"past": None}
    objective.end_batch()


@pytest.mark.parametrize("name", ["dafl", "zskt", "dfad"])
def test_a_method_that_matches_no_statistics_does_without_batch_norm(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective = make_objective(METHODS[name], frozen_teacher(batch_norm=False))
    loss, reported = measure(objective, make_images(), make_targets(), make_student(), UNIFORM)
    assert loss.isfinite()
    assert reported[0] == 0


# --- what is trained along, and state ---


def test_only_a_contrastive_method_trains_something_along() -> None:
    for name in SYNTHESISING:
        parameters = make_objective(METHODS[name], frozen_teacher()).parameters()
        assert [tuple(p.shape) for p in parameters] == (
            [(128, 11), (128,), (128, 128), (128,)] if name == "cmi" else []  # 5 + 6 channels
        )


@pytest.mark.parametrize("name", ["cmi", "fast5", "dafl"])
def test_a_state_dict_continues_with_the_same_loss(name: str) -> None:
    teacher = frozen_teacher()
    original, restored = (make_objective(METHODS[name], teacher) for _ in range(2))
    for seed in (1, 2):
        measure(original, make_images(seed), make_targets(), None, UNIFORM)
        original.end_batch()
    fresh, _ = measure(restored, make_images(3), make_targets(), None, UNIFORM)
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    losses = [measure(o, make_images(3), make_targets(), None, UNIFORM)[0].item() for o in (original, restored)]
    assert losses[0] == losses[1]
    assert (losses[0] != fresh.item()) == (name != "dafl")
