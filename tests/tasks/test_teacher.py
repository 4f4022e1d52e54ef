"""Training small teachers on some real digits, against loops and formulas written out by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation.augmentation import Normalize, random_crop_flip
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.tasks import Task
from ssdkd_env.tasks.digits import DIGITS, split_digits
from ssdkd_env.tasks.scores import real_scores
from ssdkd_env.tasks.task import LabelledImages, build_teacher
from ssdkd_env.tasks.teacher import (
    TeacherSettings,
    TeacherTraining,
    learning_rate,
    train_teacher,
    update_average,
)
from ssdkd_env.tasks.void import VOID
from tests.own_networks import DENSE_TASK

CPU = torch.device("cpu")
SMALL = replace(DIGITS, teacher_options={"channels": (8, 16)})
DROPOUT = replace(DIGITS, teacher_arch="tests.own_networks:DropoutNet", teacher_options={})


def some_digits(count: int) -> LabelledImages:
    (images, labels), _ = split_digits()
    return images[:count], labels[:count]


def weights(network: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(network.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def always() -> bool:
    return True


def finish(training: TeacherTraining, stop: Callable[[], bool]) -> None:
    while not training.done:
        training.epoch(stop)


# --- training ---


def test_a_teacher_learns_and_reports_its_epochs() -> None:
    seen: list[tuple[int, float]] = []
    teacher = train_teacher(
        SMALL,
        some_digits(600),
        TeacherSettings(epochs=8, batch_size=16),
        CPU,
        lambda epoch, loss: seen.append((epoch, loss)),
    )
    assert [epoch for epoch, _ in seen] == list(range(1, 9))
    assert all(math.isfinite(loss) for _, loss in seen)
    assert seen[-1][1] < 0.5 * seen[0][1]
    assert not teacher.training
    accuracy = Task(SMALL, teacher).accuracy(teacher, CPU)
    assert accuracy is not None
    assert accuracy > 0.6


def test_default_settings_are_the_loop_that_made_the_shipped_teacher() -> None:
    """Bit for bit: PyTorch's own schedule and Nesterov momentum, and the same draws in the same order.

    The shipped teacher's loop had the contiguous layout, which rounds otherwise.
    """
    images, labels = some_digits(300)
    settings = TeacherSettings(epochs=3)
    network = build_teacher(DIGITS, seed=0).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    random = torch.Generator().manual_seed(0)
    normalize = Normalize(DIGITS.mean, DIGITS.std, CPU)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * 4)
    losses = []
    for _ in range(3):
        total = 0.0
        order = torch.randperm(300, generator=random)
        for start in (0, 64, 128, 192):  # the 44 images that are left over are skipped
            index = order[start : start + 64]
            inputs = normalize(random_crop_flip(images[index], DIGITS.padding, DIGITS.flip, random))
            loss = nn.functional.cross_entropy(network(inputs), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() / 4
        losses.append(total)

    seen: list[float] = []
    teacher = train_teacher(DIGITS, (images, labels), settings, CPU, lambda epoch, loss: seen.append(loss))
    assert same(weights(teacher), weights(network))
    assert seen == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("count", [200, 20])  # fewer images than a minibatch holds, too
def test_one_seed_gives_one_teacher(count: int) -> None:
    teachers = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(global_seed)
        teachers.append(weights(train_teacher(SMALL, some_digits(count), TeacherSettings(epochs=1, seed=seed), CPU)))
    assert same(teachers[0], teachers[1])
    assert not same(teachers[0], teachers[2])


def test_dropout_draws_from_the_training_alone() -> None:
    teachers = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        teachers.append(weights(train_teacher(DROPOUT, some_digits(100), TeacherSettings(epochs=1), CPU)))
        assert torch.equal(torch.get_rng_state(), before)
    assert same(*teachers)


def test_what_is_left_over_after_the_last_whole_minibatch_is_skipped() -> None:
    for count, batches in ((50, 3), (48, 3), (47, 2), (5, 1)):
        training = TeacherTraining(SMALL, some_digits(count), TeacherSettings(batch_size=16), CPU)
        assert training.batches == batches


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    """(1 − ε) · −log p_y + ε · mean over classes of −log p (Szegedy et al. 2016, section 7)."""
    images, labels = some_digits(16)
    spec = replace(SMALL, padding=0)
    log_p = build_teacher(spec, seed=0).train()(Normalize(spec.mean, spec.std, CPU)(images)).log_softmax(dim=1)
    expected = -(1 - smoothing) * log_p[range(16), labels] - smoothing * log_p.mean(dim=1)
    settings = TeacherSettings(epochs=1, batch_size=16, label_smoothing=smoothing)
    assert TeacherTraining(spec, (images, labels), settings, CPU).epoch() == pytest.approx(expected.mean().item())


def label_maps(count: int = 8) -> LabelledImages:
    """Pixels whose class is how bright their first channel is; a quarter of them void."""
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = images[:, 0] // 64
    labels[:, ::2, ::2] = VOID
    return images, labels


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_moves_label_maps_with_their_images(flip: bool) -> None:
    """Each pixel keeps its label, and what padding brings has none."""
    spec = replace(DENSE_TASK, padding=2, flip=flip)
    training = TeacherTraining(spec, label_maps(), TeacherSettings(batch_size=8), CPU)
    images, labels = training._augmented(*training.data)
    assert not torch.equal(images, training.data[0])
    known = labels != VOID
    assert torch.equal(labels[known], images[:, 0][known] // 64)
    padded = (images == 0).all(dim=1)
    assert padded.any()
    assert (labels[padded] == VOID).all()
    assert known.sum() < (training.data[1] != VOID).sum()


def test_void_pixels_teach_nothing() -> None:
    images, labels = label_maps()
    spec, settings = replace(DENSE_TASK, padding=0, flip=False), TeacherSettings(epochs=1, batch_size=8)
    network = build_teacher(spec, seed=0).train()
    log_p = network(Normalize(spec.mean, spec.std, CPU)(images)).log_softmax(dim=1)
    known = labels != VOID
    expected = -log_p.gather(1, labels.long().clamp_max(3)[:, None]).squeeze(1)[known].mean()
    assert TeacherTraining(spec, (images, labels), settings, CPU).epoch() == pytest.approx(expected.item())
    nothing = torch.full_like(labels, VOID)
    training = TeacherTraining(spec, (images, nothing), settings, CPU)
    before = weights(training.network)
    assert training.epoch() == 0.0
    assert all(torch.isfinite(value).all() for value in weights(training.network).values())
    assert before.keys() == weights(training.network).keys()


def test_dense_teacher_learns() -> None:
    data = label_maps(32)
    spec = replace(DENSE_TASK, padding=1, flip=True)
    untrained, trained = build_teacher(spec, seed=0).eval(), None
    trained = train_teacher(spec, data, TeacherSettings(epochs=40, batch_size=8), CPU)
    scores = [real_scores(network, data, spec) for network in (untrained, trained)]
    assert list(scores[0]) == ["mean_iou", "pixel_accuracy", "mean_class_accuracy"]
    assert scores[1]["mean_iou"] > scores[0]["mean_iou"] + 0.2


# --- schedule ---


def rates(settings: TeacherSettings, batches: int) -> list[float]:
    return [learning_rate(settings, step, batches) for step in range(settings.epochs * batches)]


def test_cosine_is_the_closed_form_and_pytorchs() -> None:
    settings = TeacherSettings(epochs=5, lr=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for step, rate in enumerate(rates(settings, batches=4)):
        assert rate == pytest.approx(0.3 * (1 + math.cos(math.pi * step / 20)) / 2, rel=1e-12)
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_warm_up_rises_linearly_and_the_cosine_takes_what_is_left() -> None:
    settings = TeacherSettings(epochs=4, lr=0.4, warmup_epochs=2)
    cosine = [0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5))]
    assert rates(settings, batches=2) == pytest.approx([0.1, 0.2, 0.3, 0.4, *cosine])


def test_steps_fall_at_the_epochs_of_the_milestones() -> None:
    settings = TeacherSettings(epochs=8, lr=1.0, schedule="step", warmup_epochs=1)
    by_epoch = [1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    assert rates(settings, batches=2) == pytest.approx([0.5, 1.0] + [rate for rate in by_epoch for _ in range(2)])


@pytest.mark.parametrize(
    ("epochs", "milestone", "first"), [(100, 0.07, 7), (100, 0.29, 29), (3, 0.5, 2), (200, 0.5, 100)]
)
def test_milestone_is_the_first_epoch_not_before_its_share(epochs: int, milestone: float, first: int) -> None:
    settings = TeacherSettings(epochs=epochs, lr=1.0, schedule="step", milestones=(milestone,), step_factor=0.5)
    assert rates(settings, batches=1) == [1.0] * first + [0.5] * (epochs - first)


def test_the_optimiser_follows_the_schedule_minibatch_by_minibatch() -> None:
    settings = TeacherSettings(epochs=2, batch_size=16, warmup_epochs=1)
    training = TeacherTraining(SMALL, some_digits(48), settings, CPU)
    seen = [training.learning_rate]
    while not training.done:
        training.epoch(always)
        seen.append(training.learning_rate)
    assert seen[1:] == rates(settings, batches=3)
    assert seen[0] == seen[1]


# --- average of the weights ---


def test_average_weighs_every_minibatch_exponentially_and_forgets_the_untrained_weights() -> None:
    plain = TeacherSettings(epochs=2, batch_size=16)
    data = some_digits(48)
    training = TeacherTraining(SMALL, data, plain, CPU)
    history = []
    while not training.done:
        training.epoch(always)
        history.append(weights(training.network))
    assert len(history) == 6

    decay = 0.7
    averaged = weights(train_teacher(SMALL, data, replace(plain, ema_decay=decay), CPU))
    shares = [decay ** (6 - step) for step in range(1, 7)]
    for name, value in averaged.items():
        if value.is_floating_point():
            mean = sum(share * past[name].double() for share, past in zip(shares, history, strict=True)) / sum(shares)
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
        else:
            assert value == 6
    assert not same(averaged, history[-1])


def test_average_of_no_length_is_the_last_weights() -> None:
    source, average = build_teacher(SMALL, seed=0), build_teacher(SMALL, seed=1)
    update_average(average, source, decay=0.0, steps=3)
    assert same(weights(average), weights(source))


# --- pause and resume ---

RESUMED: dict[str, tuple[Any, dict[str, Any]]] = {
    "defaults": (SMALL, {}),
    "average, warm-up and steps": (SMALL, {"ema_decay": 0.9, "schedule": "step", "warmup_epochs": 1}),
    "bfloat16": (SMALL, {"precision": "bfloat16"}),
    "bfloat16 with average": (SMALL, {"precision": "bfloat16", "ema_decay": 0.5}),
    "dropout": (DROPOUT, {}),
    "flip": (replace(SMALL, flip=True), {"nesterov": False, "label_smoothing": 0.1}),
}


@pytest.mark.parametrize(("spec", "options"), RESUMED.values(), ids=RESUMED)
def test_resumed_training_is_bit_identical(spec: Any, options: dict[str, Any], tmp_path: Path) -> None:
    """From a file, at the end of an epoch and in the middle of one; with losses, rates and averages."""
    data, settings = some_digits(80), TeacherSettings(epochs=3, batch_size=16, **options)
    losses: list[float] = []
    expected = weights(train_teacher(spec, data, settings, CPU, lambda epoch, loss: losses.append(loss)))

    asked = 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        return asked % 3 == 0

    training = TeacherTraining(spec, data, settings, CPU)
    seen, pauses = [], 0
    while not training.done:
        loss = training.epoch(third_time)
        seen += [] if loss is None else [loss]
        pauses += loss is None
        save_state(tmp_path / "state.safetensors", training.state_dict())
        torch.manual_seed(pauses)
        training = TeacherTraining(spec, data, settings, CPU)
        training.load_state_dict(load_state(tmp_path / "state.safetensors"))
    assert pauses == 4
    assert same(weights(training.network), expected)
    assert seen == losses


def test_state_is_a_copy() -> None:
    settings = TeacherSettings(epochs=3, batch_size=16)
    training = TeacherTraining(SMALL, some_digits(64), settings, CPU)
    training.epoch()
    state = training.state_dict()
    training.epoch()
    expected = weights(training.network)
    for _ in range(2):  # nor does loading tie the state to the training
        training.load_state_dict(state)
        assert training.epochs_done == 1
        training.epoch()
        assert same(weights(training.network), expected)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs_done", "x", "expected int, got str"),
        ("batch", -1, "expected int >= 0"),
        ("order", torch.arange(3), "the order is no torch.int64 of shape"),
        ("order", torch.zeros(64, dtype=torch.int64), "the order is none of 64 things"),
        ("total", torch.ones(2), "the sum of losses is no"),
    ],
)
def test_state_of_another_kind_is_refused(name: str, value: Any, said: str) -> None:
    training = TeacherTraining(SMALL, some_digits(64), TeacherSettings(epochs=3, batch_size=16), CPU)
    with pytest.raises(ValueError, match=said):
        training.load_state_dict(training.state_dict() | {name: value})


def test_stop_is_asked_between_the_minibatches_of_an_epoch() -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return False

    training = TeacherTraining(SMALL, some_digits(64), TeacherSettings(epochs=1, batch_size=16), CPU)
    assert training.epoch(stop) is not None
    assert asked == 3


def test_finished_training_does_no_more() -> None:
    training = TeacherTraining(SMALL, some_digits(16), TeacherSettings(epochs=1), CPU)
    training.epoch()
    assert training.done
    assert not training.network.training
    with pytest.raises(RuntimeError, match="all 1 epochs are done"):
        training.epoch()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state["settings"].update(lr=0.2), "lr=0.1: the training to be resumed has lr=0.2"),
        (lambda state: state["settings"].update(milestones=(0.1,)), r"milestones=\(0.5, 0.75\)"),
        (lambda state: state.update(device="cuda"), "device='cpu': the training to be resumed has device='cuda'"),
        (lambda state: state.update(images=17), "images=16: the training to be resumed has images=17"),
    ],
)
def test_state_of_another_training_is_refused(change: Callable[[dict[str, Any]], None], match: str) -> None:
    training = TeacherTraining(SMALL, some_digits(16), TeacherSettings(epochs=1), CPU)
    state = training.state_dict()
    change(state)
    with pytest.raises(InvalidInputError, match=match):
        training.load_state_dict(state)


# --- precision ---


def test_bfloat16_computes_coarsely_and_keeps_its_weights_in_float32() -> None:
    data, settings = some_digits(64), TeacherSettings(epochs=1, batch_size=16)
    seen, trained = {}, {}
    for precision in ("auto", "float32", "bfloat16"):
        training = TeacherTraining(SMALL, data, replace(settings, precision=precision), CPU)
        training.network.register_forward_hook(lambda *call, name=precision: seen.update({name: call[2].dtype}))
        training.epoch()
        trained[precision] = weights(training.network)
    assert seen == {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    assert same(trained["auto"], trained["float32"])
    for name, value in trained["bfloat16"].items():
        assert value.dtype == trained["float32"][name].dtype
        torch.testing.assert_close(value, trained["float32"][name], rtol=0.1, atol=0.1)


def test_auto_is_what_it_is_for_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the device and the size of the images."""
    monkeypatch.setattr("ssdkd_env.distillation.execution.computes_bfloat16", lambda device: True)
    assert TeacherTraining(SMALL, some_digits(4), TeacherSettings(), CPU).precision == "float32"
    spec = replace(SMALL, image_shape=(1, 20, 20))
    images = torch.zeros(4, 1, 20, 20, dtype=torch.uint8)
    assert TeacherTraining(spec, (images, torch.arange(4)), TeacherSettings(), CPU).precision == "bfloat16"


# --- bad input ---


def test_a_teacher_that_views_feature_maps_is_refused_before_it_is_trained() -> None:
    spec = replace(SMALL, teacher_arch="tests.own_networks:ViewNet", teacher_options={})
    with pytest.raises(InvalidInputError, match=r"ViewNet' calls \.view on feature maps.*call \.flatten\(1\)"):
        TeacherTraining(spec, some_digits(4), TeacherSettings(), CPU)


@pytest.mark.parametrize("stop", [lambda: False, always], ids=["whole epochs", "paused"])
def test_a_learning_rate_that_diverges_is_named(stop: Callable[[], bool]) -> None:
    training = TeacherTraining(SMALL, some_digits(200), TeacherSettings(epochs=3, lr=1e30), CPU)
    with pytest.raises(InvalidInputError, match=r"lr=1e\+30: the loss is not finite in epoch 1"):
        finish(training, stop)


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0},
        {"epochs": -1},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"momentum": 1.0},
        {"momentum": 0.0},  # with Nesterov's
        {"weight_decay": -1e-4},
        {"schedule": "linear"},
        {"milestones": (0.75, 0.5)},
        {"milestones": (0.5, 1.0)},
        {"step_factor": 0.0},
        {"warmup_epochs": 60},
        {"warmup_epochs": -1},
        {"label_smoothing": 1.0},
        {"ema_decay": 1.0},
        {"precision": "fp16"},
        {"seed": -1},
        {"seed": 2**63},
    ],
    ids=str,
)
def test_unusable_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"^{next(iter(setting))}|, {next(iter(setting))}="):
        TeacherSettings(**setting)


def test_momentum_may_be_left_out() -> None:
    assert TeacherSettings(momentum=0.0, nesterov=False).momentum == 0


def test_data_that_do_not_fit_are_refused() -> None:
    images, labels = some_digits(10)
    with pytest.raises(InvalidInputError, match="training data"):
        train_teacher(SMALL, (images, labels + 1), TeacherSettings(epochs=1), CPU)
