"""The losses against NumPy, and the BatchNorm statistics against a calculation by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation.batch_norm import BatchNormStatistics, batch_norm_layers
from ssdkd_env.distillation.losses import (
    activation_loss,
    adversarial_loss,
    class_balance,
    distillation_loss,
    jensen_shannon,
    l1_distance,
    one_hot_loss,
    squared_norm,
    total_variation,
)
from tests.distillation.reference import LOGIT_SHAPES, argmax, close, kl, make_logits, mean, pixels, softmax

Pairs = list[list[tuple[list[float], list[float]]]]


def pixel_pairs(teacher: Tensor, student: Tensor) -> Pairs:
    """Image → pixel → (teacher's scores, student's scores)."""
    return [list(zip(*pair, strict=True)) for pair in zip(pixels(teacher), pixels(student), strict=True)]


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_one_hot_loss_is_the_cross_entropy_with_the_target(shape: tuple[int, ...]) -> None:
    logits = make_logits(shape, seed=1)
    targets = torch.randint(shape[1], (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(2))
    flat_targets = targets.view(shape[0], -1).tolist()
    expected = [
        mean([-math.log(softmax(s)[t]) for s, t in zip(image, target, strict=True)])
        for image, target in zip(pixels(logits), flat_targets, strict=True)
    ]
    close(one_hot_loss(logits, targets), expected)


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_distillation_loss_is_t_squared_times_the_tempered_kl(shape: tuple[int, ...], temperature: float) -> None:
    teacher, student = make_logits(shape, seed=3), make_logits(shape, seed=4)
    expected = [
        temperature**2 * mean([kl(t, s, temperature) for t, s in image]) for image in pixel_pairs(teacher, student)
    ]
    close(distillation_loss(teacher, student, temperature), expected, rtol=1e-4, atol=1e-4)
    assert distillation_loss(teacher, teacher, temperature).abs().max() == 0


def test_distillation_loss_is_differentiated_right() -> None:
    teacher, student = make_logits((3, 4), seed=5).double(), make_logits((3, 4), seed=6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: distillation_loss(teacher, s, 3.0), student)


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
@pytest.mark.parametrize("masked", [True, False])
def test_adversarial_loss_is_the_negative_kl_where_arg_maxes_agree(shape: tuple[int, ...], masked: bool) -> None:
    teacher, student = make_logits(shape, seed=7), make_logits(shape, seed=8)
    student[0] = teacher[0] * 0.5  # agrees, and differs in certainty
    expected = [
        -mean([kl(t, s) if not masked or argmax(t) == argmax(s) else 0.0 for t, s in image])
        for image in pixel_pairs(teacher, student)
    ]
    close(adversarial_loss(teacher, student, masked), expected)
    assert expected[0] < 0


def test_the_mask_lets_no_gradient_through_where_arg_maxes_differ() -> None:
    teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]], requires_grad=True)
    student = torch.tensor([[0.0, 5.0, 1.0], [0.0, 0.0, 1.0]], requires_grad=True)
    torch.autograd.backward(adversarial_loss(teacher, student).sum())
    for logits in (teacher, student):
        assert logits.grad is not None
        assert logits.grad[0].abs().sum() == 0
        assert logits.grad[1].abs().min() > 0


def test_the_mask_works_pixel_by_pixel() -> None:
    teacher = torch.tensor([[[[2.0, 2.0]], [[0.0, 0.0]]]])
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]], requires_grad=True)
    torch.autograd.backward(adversarial_loss(teacher, student).sum())
    assert student.grad is not None
    assert student.grad[0, :, 0, 0].abs().min() > 0
    assert student.grad[0, :, 0, 1].abs().sum() == 0


def test_total_variation_averages_neighbouring_differences() -> None:
    images = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(9))
    expected = []
    for image in images.double().numpy():
        down = [abs(c[y + 1, x] - c[y, x]) for c in image for y in range(3) for x in range(5)]
        right = [abs(c[y, x + 1] - c[y, x]) for c in image for y in range(4) for x in range(4)]
        expected.append(mean(down) + mean(right))
    close(total_variation(images), expected)
    close(total_variation(torch.full((2, 1, 4, 4), 0.7)), [0, 0])


def test_squared_norm_averages_squared_pixels() -> None:
    images = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(10))
    close(squared_norm(images), (images.double().numpy() ** 2).mean(axis=(1, 2, 3)))


# --- other distances than KL ---


def js(teacher: list[float], student: list[float], temperature: float = 3.0) -> float:
    """Jensen-Shannon divergence of one pixel's logits: H(middle) minus the mean of both entropies, in nats."""

    def entropy(p: list[float]) -> float:
        return -math.fsum(x * math.log(x) for x in p if x > 0)

    p, q = softmax(teacher, temperature), softmax(student, temperature)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return entropy(middle) - (entropy(p) + entropy(q)) / 2


def l1(teacher: list[float], student: list[float]) -> float:
    return mean([abs(a - b) for a, b in zip(teacher, student, strict=True)])


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_distances_have_one_value_a_prediction(shape: tuple[int, ...]) -> None:
    teacher, student = make_logits(shape, seed=20), make_logits(shape, seed=21)
    pairs = pixel_pairs(teacher, student)
    for distance_of, by_hand in ((jensen_shannon, js), (l1_distance, l1)):
        values = distance_of(teacher, student)
        assert values.shape == (shape[0], *shape[2:])
        close(values.flatten(1) if values.dim() > 1 else values[:, None], [[by_hand(*p) for p in i] for i in pairs])


@pytest.mark.parametrize("temperature", [1.0, 3.0, 10.0])
def test_jensen_shannon_softens_both_answers(temperature: float) -> None:
    teacher, student = make_logits((6, 5), seed=22), make_logits((6, 5), seed=23)
    expected = [js(t, s, temperature) for ((t, s),) in pixel_pairs(teacher, student)]
    close(jensen_shannon(teacher, student, temperature), expected)


def test_jensen_shannon_lies_between_0_and_log_2() -> None:
    teacher, student = make_logits((500, 4), seed=24, scale=20.0), make_logits((500, 4), seed=25, scale=20.0)
    values = jensen_shannon(teacher, student)
    assert values.min() >= 0
    assert values.max() <= math.log(2) + 1e-6
    assert values.max() > 0.6
    close(jensen_shannon(student, teacher), values.double().numpy())
    assert jensen_shannon(teacher, teacher).abs().max() == 0
    opposite = torch.tensor([[1e4, -1e4]])
    close(jensen_shannon(opposite, -opposite), [math.log(2)])


@pytest.mark.parametrize("distance_of", [jensen_shannon, l1_distance])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 2)])
def test_distances_are_differentiated_right_in_both_arguments(distance_of: Any, shape: tuple[int, ...]) -> None:
    logits = [make_logits(shape, seed).double().requires_grad_() for seed in (26, 27)]
    assert torch.autograd.gradcheck(distance_of, logits)


def test_jensen_shannon_of_certain_answers_has_a_finite_gradient() -> None:
    teacher = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    student = torch.tensor([[-1e4, 0.0, 1e4]], requires_grad=True)
    torch.autograd.backward(jensen_shannon(teacher, student).sum())
    for logits in (teacher, student):
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("name", "by_hand"), [("l1", l1), ("js", js)])
def test_adversarial_loss_maximises_the_chosen_distance(
    shape: tuple[int, ...], masked: bool, name: str, by_hand: Any
) -> None:
    teacher, student = make_logits(shape, seed=28), make_logits(shape, seed=29)
    student[0] = teacher[0] * 0.5
    expected = [
        -mean([by_hand(t, s) if not masked or argmax(t) == argmax(s) else 0.0 for t, s in image])
        for image in pixel_pairs(teacher, student)
    ]
    close(adversarial_loss(teacher, student, masked, name), expected)


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_logarithm_is_of_the_whole_images_distance(shape: tuple[int, ...]) -> None:
    """−log(1 + L1), with which DFAD segments; the logarithm of a mean is no mean of logarithms."""
    teacher, student = make_logits(shape, seed=33), make_logits(shape, seed=34)
    expected = [-math.log(1 + mean([l1(t, s) for t, s in image])) for image in pixel_pairs(teacher, student)]
    close(adversarial_loss(teacher, student, masked=False, distance="log_l1"), expected)


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_distillation_by_l1_knows_no_temperature(shape: tuple[int, ...]) -> None:
    teacher, student = make_logits(shape, seed=30), make_logits(shape, seed=31)
    expected = [mean([l1(t, s) for t, s in image]) for image in pixel_pairs(teacher, student)]
    for temperature in (1.0, 20.0):
        close(distillation_loss(teacher, student, temperature, "l1"), expected)


# --- class balance and activation ---


@pytest.mark.parametrize("shape", LOGIT_SHAPES)
def test_class_balance_is_the_negative_entropy_of_the_mean_answer(shape: tuple[int, ...]) -> None:
    logits = make_logits(shape, seed=32)
    answers = [softmax(scores) for image in pixels(logits) for scores in image]
    mean_answer = [mean(list(column)) for column in zip(*answers, strict=True)]
    close(class_balance(logits), math.fsum(p * math.log(p) for p in mean_answer))


def test_class_balance_ranges_from_all_classes_alike_to_one_alone() -> None:
    certain = 100.0 * torch.eye(5)
    close(class_balance(certain), -math.log(5))
    close(class_balance(torch.zeros(3, 5)), -math.log(5))
    close(class_balance(certain[:1].repeat(4, 1)), 0.0)
    close(class_balance(certain[[0, 0, 1, 1]]), -math.log(2))
    dense = certain[:4].T.reshape(1, 5, 2, 2)  # one image of four pixels, each of another class
    close(class_balance(dense), -math.log(4))


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)])
def test_class_balance_is_differentiated_right(shape: tuple[int, ...]) -> None:
    assert torch.autograd.gradcheck(class_balance, make_logits(shape, seed=33).double().requires_grad_())


def test_class_balance_of_a_single_class_has_a_finite_gradient() -> None:
    logits = (1e4 * torch.eye(3)[:1]).requires_grad_()
    torch.autograd.backward(class_balance(logits))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_activation_loss_is_the_negative_mean_size_of_the_features() -> None:
    features = make_logits((4, 6), seed=34)
    close(activation_loss(features), -np.abs(features.double().numpy()).mean())
    assert torch.autograd.gradcheck(activation_loss, features.double().requires_grad_())


# --- L_BN ---


def two_layers(seed: int = 0) -> nn.Sequential:
    """Convolutions with two BatchNorm layers whose statistics fit nothing in particular."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        )
        for layer in batch_norm_layers(network):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    return network.eval().requires_grad_(False)


def batch(seed: int, count: int = 6) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def statistics_by_hand(network: nn.Sequential, images: Tensor) -> list[np.ndarray]:
    """Mean and biased variance of every BatchNorm layer's input, in float64."""
    found: list[np.ndarray] = []
    features = images.double()
    for layer in copy.deepcopy(network).double():
        if isinstance(layer, nn.BatchNorm2d):
            columns = features.numpy().transpose(1, 0, 2, 3).reshape(features.shape[1], -1)
            found += [columns.mean(axis=1), columns.var(axis=1)]
        features = layer(features)
    return found


def remembered(network: nn.Sequential) -> list[np.ndarray]:
    values: list[np.ndarray] = []
    for layer in batch_norm_layers(network):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        values += [layer.running_mean.double().numpy(), layer.running_var.double().numpy()]
    return values


def distance(network: nn.Sequential, statistics: list[np.ndarray]) -> float:
    return sum(float(np.linalg.norm(r - s)) for r, s in zip(remembered(network), statistics, strict=True))


def captured_loss(matcher: BatchNormStatistics, network: nn.Module, images: Tensor) -> Tensor:
    with matcher.capture():
        network(images)
    return matcher.loss()


def test_statistics_loss_sums_the_distances_of_mean_and_variance() -> None:
    network, images = two_layers(), batch(1)
    loss = captured_loss(BatchNormStatistics(network), network, images)
    close(loss, distance(network, statistics_by_hand(network, images)))


def test_statistics_loss_serves_flat_features_too() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    features = network[0](inputs).detach().double().numpy()
    expected = np.linalg.norm(features.mean(axis=0)) + np.linalg.norm(1 - features.var(axis=0))
    close(captured_loss(BatchNormStatistics(network), network, inputs), expected)


def test_statistics_loss_is_zero_when_the_batch_is_what_the_teacher_remembers() -> None:
    network, images = two_layers(), batch(2)
    for index, layer in enumerate(batch_norm_layers(network)):  # a layer's statistics move those of the next
        mean_, variance = statistics_by_hand(network, images)[2 * index : 2 * index + 2]
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(torch.from_numpy(mean_))
        layer.running_var.copy_(torch.from_numpy(variance))
    loss = captured_loss(BatchNormStatistics(network), network, images)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)


def test_statistics_loss_is_differentiated_right() -> None:
    network = two_layers().double()
    matcher = BatchNormStatistics(network)
    images = batch(3, count=2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: captured_loss(matcher, network, x), images)


def test_momentum_blends_rounds_as_by_hand() -> None:
    network, momentum = two_layers(), 0.7
    matcher = BatchNormStatistics(network, momentum)
    past: list[np.ndarray] | None = None
    for round_index in range(3):
        for step in range(2):  # only the last step of a round is remembered
            images = batch(10 * round_index + step)
            current = statistics_by_hand(network, images)
            blended = (
                current
                if past is None
                else [momentum * p + (1 - momentum) * c for p, c in zip(past, current, strict=True)]
            )
            close(captured_loss(matcher, network, images), distance(network, blended))
        matcher.end_round()
        past = blended


def test_without_momentum_rounds_do_not_touch_one_another() -> None:
    network, images = two_layers(), batch(4)
    matcher = BatchNormStatistics(network)
    captured_loss(matcher, network, batch(5))
    matcher.end_round()
    close(captured_loss(matcher, network, images), distance(network, statistics_by_hand(network, images)))


def test_no_gradient_reaches_an_earlier_round() -> None:
    network = two_layers()
    matcher = BatchNormStatistics(network, momentum=0.5)
    earlier, later = batch(6).requires_grad_(), batch(7).requires_grad_()
    captured_loss(matcher, network, earlier)
    matcher.end_round()
    torch.autograd.backward(captured_loss(matcher, network, later))
    assert earlier.grad is None
    assert later.grad is not None


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


def test_hooks_are_there_during_capture_only() -> None:
    network = two_layers()
    matcher = BatchNormStatistics(network)
    assert hooks(network) == 0
    with matcher.capture():
        assert hooks(network) == 2
    assert hooks(network) == 0


def test_hooks_are_gone_after_an_exception() -> None:
    network = two_layers()
    matcher = BatchNormStatistics(network)
    with pytest.raises(RuntimeError), matcher.capture():
        network(torch.zeros(2, 5, 6, 6))
    assert hooks(network) == 0


def test_a_forward_pass_that_failed_midway_leaves_nothing_behind() -> None:
    network, images = two_layers(), batch(8)
    matcher = BatchNormStatistics(network)
    with pytest.raises(RuntimeError), matcher.capture():
        network(torch.zeros(2, 2, 1, 1))  # passes the first BatchNorm layer, fails in the second convolution
    close(captured_loss(matcher, network, images), distance(network, statistics_by_hand(network, images)))


def test_blended_statistics_survive_a_state_dict() -> None:
    network = two_layers()
    original, restored = BatchNormStatistics(network, 0.9), BatchNormStatistics(network, 0.9)
    captured_loss(original, network, batch(11))
    original.end_round()
    restored.load_state_dict(original.state_dict())
    for matcher in (original, restored):  # what the one does next must not reach the other
        captured_loss(matcher, network, batch(12))
        matcher.end_round()
    losses = [captured_loss(matcher, network, batch(13)).item() for matcher in (original, restored)]
    assert losses[0] == losses[1]
    fresh = captured_loss(BatchNormStatistics(network, 0.9), network, batch(13)).item()
    assert losses[0] != fresh


def test_only_layers_with_running_statistics_count() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False), nn.InstanceNorm2d(3))
    assert batch_norm_layers(network) == [network[0]]


# --- features of each image ---


def test_instance_features_are_each_images_channel_means_side_by_side() -> None:
    network, images = two_layers(), batch(14)
    matcher = BatchNormStatistics(network, instances=True)
    captured_loss(matcher, network, images)
    expected = [
        np.concatenate([statistics_by_hand(network, image[None])[index] for index in (0, 2)]) for image in images
    ]
    close(matcher.instance_features(), np.stack(expected))


def test_flat_features_of_an_image_are_themselves() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(15))
    matcher = BatchNormStatistics(network, instances=True)
    with matcher.capture():
        network(inputs)
    assert torch.equal(matcher.instance_features(), network[0](inputs))


def test_instance_features_are_those_of_the_last_pass_and_differentiable() -> None:
    network, earlier, later = two_layers(), batch(16).requires_grad_(), batch(17).requires_grad_()
    matcher = BatchNormStatistics(network, instances=True)
    for images in (earlier, later):
        captured_loss(matcher, network, images)
    features = matcher.instance_features()
    assert features.shape == (6, 7)
    gradient, none = torch.autograd.grad(features[0].sum(), (later, earlier), allow_unused=True)
    assert none is None
    assert gradient[0].abs().max() > 0
    assert gradient[1:].abs().max() == 0


def test_what_is_not_wanted_is_not_captured() -> None:
    network = two_layers()
    matcher = BatchNormStatistics(network)
    with matcher.capture(wanted=False):
        assert hooks(network) == 0
