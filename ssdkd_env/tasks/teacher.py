"""Training a teacher on real images, for those who still have them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssdkd_env.distillation.augmentation import Normalize, random_crop_flip
from ssdkd_env.distillation.execution import PRECISION_CHOICES, choose_precision
from ssdkd_env.distillation.restoring import load_optimizer_state, permutation, restore
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.reading import Count, fitted
from ssdkd_env.settings import check_seed, essence
from ssdkd_env.tasks.fitness import check_trains
from ssdkd_env.tasks.task import LabelledImages, TaskSpec, build_teacher, check_classifier, check_images
from ssdkd_env.tasks.teacher_augmentation import enlarged, jittered
from ssdkd_env.tasks.teacher_loss import class_weights, cross_entropy
from ssdkd_env.threads import one_at_a_time

SCHEDULES = ("cosine", "step")


@dataclass(frozen=True)
class TeacherSettings:
    """How a teacher is optimised: SGD with a schedule that is set anew for each minibatch.

    The defaults train the digits teacher. The standard protocol on CIFAR is epochs=200, batch_size=256, lr=0.1,
    weight_decay between 1e-4 and 5e-4.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a minibatch.
        lr: learning rate at the start, after the warm-up.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: L2 penalty.
        schedule: cosine (from lr to 0) or step (times step_factor at each milestone).
        milestones: of the step schedule, as shares of the epochs, in ascending order.
        step_factor: of the step schedule.
        warmup_epochs: epochs in which the learning rate rises linearly to lr, before the schedule.
        label_smoothing: share of a label's mass that is spread over all classes.
        max_scale: largest factor by which images are enlarged at random before they are cropped; 1 enlarges none.
        colour_jitter: how far brightness, contrast and colours are changed at random, as a share; 0 changes none.
        class_balance: exponent of the weights that rare classes have in the loss (median frequency balancing); 0
            weighs all alike.
        ema_decay: decay of the average of the weights, for each minibatch; 0 averages nothing. With an average, its
            weights and BatchNorm statistics are the teacher.
        precision: float32, bfloat16 (autocast; weights and loss stay float32), or auto, which is bfloat16 where that is
            faster; see `ssdkd_env.distillation.execution.choose_precision`.
        seed: of initial weights, order and augmentation.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    step_factor: float = 0.1
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    max_scale: float = 1.0
    colour_jitter: float = 0.0
    class_balance: float = 0.0
    ema_decay: float = 0.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISION_CHOICES)
        if self.epochs < 1 or self.batch_size < 1:
            raise InvalidInputError(
                f"epochs={self.epochs}, batch_size={self.batch_size}: expected whole numbers of at least 1"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise InvalidInputError(
                f"warmup_epochs={self.warmup_epochs}: expected a whole number of at least 0 and below "
                f"epochs={self.epochs}"
            )
        check_seed("seed", self.seed)
        if self.nesterov and self.momentum == 0:
            raise InvalidInputError("momentum=0.0: Nesterov's needs more than 0; or choose nesterov=False")
        for name, fits, expected in (
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "of at least 0 and below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "of at least 0"),
            ("step_factor", 0 < self.step_factor <= 1, "above 0 and at most 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "of at least 0 and below 1"),
            ("max_scale", 1 <= self.max_scale <= 10, "of at least 1 and at most 10"),
            ("colour_jitter", 0 <= self.colour_jitter < 1, "of at least 0 and below 1"),
            ("class_balance", 0 <= self.class_balance <= 1, "of at least 0 and at most 1"),
            ("ema_decay", 0 <= self.ema_decay < 1, "of at least 0 and below 1; 0 averages nothing"),
        ):
            if not fits:
                raise InvalidInputError(f"{name}={getattr(self, name)}: expected a number {expected}")
        ascending = all(a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
        if not ascending or not all(0 < milestone < 1 for milestone in self.milestones):
            raise InvalidInputError(
                f"milestones={self.milestones}: expected shares of the epochs between 0 and 1 in ascending order, "
                "such as (0.5, 0.75)"
            )


def learning_rate(settings: TeacherSettings, step: int, batches: int) -> float:
    """Learning rate of one minibatch.

    With t = `step`, n = epochs · `batches` and a warm-up of w = warmup_epochs · `batches` minibatches: lr · (t + 1) / w
    during the warm-up; then, for the cosine, lr · ½ (1 + cos(π (t − w) / (n − w))) (Loshchilov & Hutter 2017, eq. 5,
    without restarts); for steps, lr · step_factor^k after the k-th milestone m, which is the start of the first epoch
    that is not before m · epochs.

    Args:
        settings: the optimiser's.
        step: minibatches done before this one, in all epochs.
        batches: minibatches an epoch.
    """
    warmup, total = settings.warmup_epochs * batches, settings.epochs * batches
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "step":
        epoch = step // batches
        # The hair keeps 0.07 · 100 at 7.
        passed = sum(epoch >= milestone * settings.epochs - 1e-9 for milestone in settings.milestones)
        return settings.lr * settings.step_factor**passed
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@one_at_a_time
class TeacherTraining:
    """The training of a teacher as a resumable state machine: `epoch()` does one epoch, or a part of it.

    The images stay on the device as uint8 and are augmented there; the host waits for the device at the end of an
    epoch and nowhere else. Each epoch goes through the images in a new order; what is left over after the last whole
    minibatch is skipped (fewer images than one minibatch holds are one minibatch). All randomness comes from
    generators of the training's own, all seeded from `settings.seed`; PyTorch's global generators are put back as they
    were after every call. On the CPU two trainings of one seed are bit-identical, paused and resumed or not.

    Args:
        spec: architecture, augmentation and normalisation.
        train: images (N, C, H, W) uint8 and labels (N,) int64, or label maps (N, H, W) uint8 of classes and `VOID`.
        settings: the optimiser's.
        device: where to train.

    Attributes:
        epochs_done: whole epochs behind this training.
        precision: `"float32"` or `"bfloat16"`, as chosen for the device and the size of the images.
        data: the training images and labels, on the device.

    Raises:
        InvalidInputError: when the data do not fit the task.
    """

    def __init__(self, spec: TaskSpec, train: LabelledImages, settings: TeacherSettings, device: torch.device) -> None:
        network: nn.Module = build_teacher(spec, settings.seed).eval()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        label_dims = check_classifier("teacher", network, spec) - 1
        check_images("training data", *train, spec, label_dims=label_dims)
        check_trains("teacher", network, spec, min(settings.batch_size, len(train[0])))
        self.settings = settings
        self.device = device
        self.precision = choose_precision(settings.precision, device, spec.image_shape).name
        self.epochs_done = 0
        self.data: LabelledImages = (train[0].to(device), train[1].to(device))
        self._padding, self._flip = spec.padding, spec.flip
        self._network_of = {"teacher_arch": spec.teacher_arch, "teacher_options": repr(essence(spec.teacher_options))}
        self._class_weights = class_weights(self.data[1], spec.num_classes, settings.class_balance)
        self._normalize = Normalize(spec.mean, spec.std, device)
        self._network = network.to(device)
        self._average = copy.deepcopy(self._network) if settings.ema_decay else None
        self._optimizer = torch.optim.SGD(
            self._network.parameters(),
            lr=learning_rate(settings, 0, self.batches),
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
            fused=device.type == "cuda",
        )
        self._random = torch.Generator(device).manual_seed(settings.seed)
        # Layers of the user's own, such as dropout, draw from the global generators: they get a stream, too.
        self._layers = torch.Generator().manual_seed(settings.seed)
        self._order: Tensor | None = None  # of the images in the epoch that is under way
        self._batch = 0  # minibatches done in that epoch
        self._total = torch.zeros((), device=device)  # sum of their losses

    @property
    def batches(self) -> int:
        """Minibatches an epoch."""
        return max(len(self.data[0]) // self.settings.batch_size, 1)

    @property
    def done(self) -> bool:
        """Whether all epochs are behind this training."""
        return self.epochs_done >= self.settings.epochs

    @property
    def learning_rate(self) -> float:
        """Learning rate of the latest minibatch; before the first, of the first."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def network(self) -> nn.Module:
        """The teacher as it is now, on the device, in evaluation mode: the average of the weights if there is one.

        It goes on learning with the training; copy it to keep it.
        """
        return self._network if self._average is None else self._average

    def epoch(self, stop: Callable[[], bool] = lambda: False) -> float | None:
        """Do the next epoch, or what a pause has left of it.

        Args:
            stop: asked after each minibatch but the epoch's last; true pauses.

        Returns:
            The epoch's mean loss over its minibatches, or None when paused.

        Raises:
            RuntimeError: when all epochs are done.
            InvalidInputError: when the loss is not finite; this training is then of no use.
        """
        if self.done:
            raise RuntimeError(f"all {self.settings.epochs} epochs are done; make a new training")
        images = self.data[0]
        if self._order is None:
            self._order = torch.randperm(len(images), device=self.device, generator=self._random)
        self._network.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for index in self._order.split(self.settings.batch_size)[self._batch : self.batches]:
                self._minibatch(index)
                if self._batch < self.batches and stop():
                    break
        self._network.eval()
        mean_loss = float(self._total / self._batch)
        if not math.isfinite(mean_loss):
            raise InvalidInputError(
                f"lr={self.settings.lr}: the loss is not finite in epoch {self.epochs_done + 1}; choose a smaller one"
            )
        if self._batch < self.batches:
            return None
        self._order, self._batch = None, 0
        self._total.zero_()
        self.epochs_done += 1
        return mean_loss

    def _minibatch(self, index: Tensor) -> None:
        """Learn from the images of rows `index`; nothing here waits for the device."""
        step = self.epochs_done * self.batches + self._batch
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, step, self.batches)
        self._seed_layers()
        images, labels = self.data
        seen, targets = self._augmented(images[index], labels[index])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self._network(self._normalize(seen))
        loss = cross_entropy(logits.float(), targets, self.settings.label_smoothing, self._class_weights)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._total += loss.detach()
        self._batch += 1
        if self._average is not None:
            update_average(self._average, self._network, self.settings.ema_decay, step + 1)

    def _augmented(self, images: Tensor, labels: Tensor) -> LabelledImages:
        """Images and labels after augmentation, which moves label maps as it moves their images."""
        is_dense = labels.dim() > 1
        if self.settings.colour_jitter:
            images = jittered(images, self.settings.colour_jitter, self._random)
        # One number up, in a byte, VOID is the 0 that padding brings.
        packed = torch.cat([images, (labels.to(torch.uint8) + 1)[:, None]], dim=1) if is_dense else images
        if self.settings.max_scale > 1:
            packed = enlarged(packed, int(is_dense), self.settings.max_scale, self._random)
        moved = random_crop_flip(packed, self._padding, self._flip, self._random)
        return (moved[:, :-1], moved[:, -1] - 1) if is_dense else (moved, labels)

    def _seed_layers(self) -> None:
        """Before each minibatch, so that a pause between two changes nothing."""
        seed = int(torch.randint(2**62, (1,), generator=self._layers))
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `epoch` depends on, copied, also in the middle of an epoch; `files.save_state` writes it."""
        return copy.deepcopy(
            {
                "settings": asdict(self.settings),
                "device": self.device.type,
                "images": len(self.data[0]),
                **self._network_of,
                "epochs_done": self.epochs_done,
                "batch": self._batch,
                "order": self._order,
                "total": self._total,
                "network": self._network.state_dict(),
                "average": None if self._average is None else self._average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "random": self._random.get_state(),
                "layers": self._layers.get_state(),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the `state_dict()` of a training of the same task and data; bit-identically on the CPU.

        Raises:
            InvalidInputError: when a setting, the network, the kind of device or the number of images is another.
            LookupError, TypeError, ValueError, RuntimeError: when something in it is of another kind or size.
        """
        here = asdict(self.settings) | {"device": self.device.type, "images": len(self.data[0])} | self._network_of
        # Settings that came later had their default.
        saved = asdict(TeacherSettings()) | self._network_of | state["settings"]
        saved |= {name: state[name] for name in ("device", "images", *self._network_of) if name in state}
        for name, value in here.items():
            if value != saved.get(name):
                raise InvalidInputError(
                    f"{name}={value!r}: the training to be resumed has {name}={saved[name]!r}; resume it with that"
                )
        state = copy.deepcopy(state)
        self._network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        load_optimizer_state(self._optimizer, state["optimizer"])
        self._random.set_state(state["random"])
        self._layers.set_state(state["layers"])
        self._order = None if state["order"] is None else permutation(state["order"], len(self.data[0]), self.device)
        restore(self._total, state["total"], "the sum of losses")
        self.epochs_done, self._batch = (fitted(state[name], Count) for name in ("epochs_done", "batch"))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, steps: int) -> None:
    """Move `average` towards `network` after the `steps`-th minibatch.

    After n minibatches each average is Σᵢ dⁿ⁻ⁱ wᵢ / Σᵢ dⁿ⁻ⁱ over i = 1…n: exponential, and corrected for its start as
    Adam's moments are (Kingma & Ba 2015, section 3), so that nothing of the untrained weights w₀ remains. BatchNorm's
    statistics are averaged alike; whole numbers, such as its counter, are copied.

    Args:
        average: network of the same architecture, changed in place.
        network: what was just trained.
        decay: d, of at least 0 and below 1.
        steps: n, at least 1.
    """
    pairs = [
        (mean, value)
        for own, other in ((average.parameters(), network.parameters()), (average.buffers(), network.buffers()))
        for mean, value in zip(own, other, strict=True)
    ]
    weight = (1 - decay) / (1 - decay**steps)
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    # One kernel for all tensors, as in torch.optim; a loop would launch some hundred a minibatch.
    torch._foreach_lerp_([mean for mean, _ in floating], [value for _, value in floating], weight)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)


def train_teacher(
    spec: TaskSpec,
    train: LabelledImages,
    settings: TeacherSettings,
    device: torch.device,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> nn.Module:
    """Train the task's teacher architecture from scratch, in one go.

    Args:
        spec: architecture, augmentation and normalisation.
        train: see `TeacherTraining`.
        settings: the optimiser's.
        device: where to train.
        on_epoch: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        InvalidInputError: as `TeacherTraining`.
    """
    training = TeacherTraining(spec, train, settings, device)
    while not training.done:
        loss = training.epoch()
        assert loss is not None
        on_epoch(training.epochs_done, loss)
    return training.network.cpu()
