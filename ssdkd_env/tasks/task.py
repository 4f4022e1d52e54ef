"""What a task is, and the networks it builds."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.costs import PassCosts, multiply_adds
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.distillation.methods import Method, make_method, of_maps
from ssdkd_env.distillation.problem import Budget
from ssdkd_env.distillation.student import StudentSettings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.folding import fold_batch_norm
from ssdkd_env.networks.head import with_exact_head
from ssdkd_env.networks.registry import build_network
from ssdkd_env.tasks.answers import PASS_ERRORS, failed_pass, pair_of_tensors
from ssdkd_env.tasks.normalization import check_normalization, check_sizes
from ssdkd_env.tasks.probe_settings import ProbeSettings
from ssdkd_env.tasks.void import VOID
from ssdkd_env.threads import one_at_a_time

ThingT = TypeVar("ThingT")

#: Real images (N, C, H, W) uint8 and labels (N,) int64, or label maps (N, H, W) uint8 with `VOID` for no class.
LabelledImages = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TaskSpec:
    """Description of a task. Networks are named as in `networks.registry` or given by import path.

    Attributes:
        name: the task's name.
        image_shape: (C, H, W).
        num_classes: number of classes.
        mean, std: per channel, what the teacher's input was normalised with.
        padding: pixels of random shift in augmentation.
        flip: whether augmentation mirrors images.
        teacher_arch, teacher_options: network and its keyword arguments; `num_classes` and `in_channels` are added.
        teacher_weights: path of the teacher's weights; empty when a task ships none.
        weights_key: key of the weights in that file; empty where it has one set, or the first is meant.
        student_arch, student_options: likewise.
        generator_arch, generator_options: likewise; `latent_dim` and `image_shape` are added.
        latent_dim: length of the generator's latent vectors.
        budget: default budget.
        budgets: other budgets by name, as settings to replace in `budget`.
        student: the student's optimiser.
        methods: settings of methods that are this task's own, by the method's name, such as `{"ssdkd": {"bn_weight":
            1.0}}`; what is not named here is the preset's, whose constants are its authors' for CIFAR.
        probe: how much work goes into the probe set, on which rewards judge a student.
        probe_sets: folder with probe sets, and references of relative rewards, that were made before; empty when a
            task ships none.
        training_set_size: images of the original data set, of which a buffer's scale is a share (for digits all 1,797,
            held-out ones included; for CIFAR the training images).
        classes: names of the classes, for pictures and tables; empty for numbers.
        dense: the networks answer for each pixel, so that files hold label maps.
        void: the number that label maps of files have for pixels without a class; see `void.to_classes`. None: that of
            the `dataset`, and without one every pixel has a class.
        dataset: name of the real data set under the user's data folder, such as `"cifar10"`; it gives `evaluation`
            and `teacher_data` where it is found.
        evaluation: loads the real evaluation data, which serve to report accuracy and nothing else; None when
            there are none.
        teacher_data: loads the real data to train a teacher on, as a train and a test part; None when there are none.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int
    flip: bool
    teacher_arch: str
    student_arch: str
    budget: Budget
    teacher_weights: str = ""
    weights_key: str = ""
    generator_arch: str = "generator"
    latent_dim: int = 64
    teacher_options: dict[str, Any] = field(default_factory=dict)
    student_options: dict[str, Any] = field(default_factory=dict)
    generator_options: dict[str, Any] = field(default_factory=dict)
    student: StudentSettings = field(default_factory=StudentSettings)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    probe_sets: str = ""
    budgets: dict[str, dict[str, int]] = field(default_factory=dict)
    training_set_size: int = 0
    classes: tuple[str, ...] = ()
    dense: bool = False
    void: int | None = None
    dataset: str = ""
    evaluation: Callable[[], LabelledImages] | None = None
    teacher_data: Callable[[], tuple[LabelledImages, LabelledImages]] | None = None

    def __post_init__(self) -> None:
        try:
            check_sizes(self.image_shape, self.num_classes, self.padding)
            for name in ("mean", "std"):
                check_normalization(name, getattr(self, name), self.image_shape[0])
        except InvalidInputError as error:
            raise InvalidInputError(f"task {self.name!r}: {error}") from error


@one_at_a_time
class Task:
    """A `TaskSpec` with its frozen teacher in memory.

    Args:
        spec: the description.
        teacher: network with its weights loaded, on the CPU. It is frozen and put into evaluation mode.

    Raises:
        InvalidInputError: when the teacher's output does not fit the task.
    """

    def __init__(self, spec: TaskSpec, teacher: nn.Module) -> None:
        self.spec = spec
        teacher = _channels_last(with_exact_head(teacher.eval()).requires_grad_(False))
        self._teachers: dict[torch.device, nn.Module] = {torch.device("cpu"): teacher}
        self._folded: dict[torch.device, nn.Module] = {}
        self._things: dict[Hashable, Any] = {}  # what `once` has made, of all tasks that differ in the budget alone
        self._like: Task | None = None  # which this was made of: held, so that the registry still finds it
        self._output_dims = check_classifier("teacher", teacher, spec)
        if spec.dense and not self.dense:
            raise InvalidInputError(
                f"teacher_arch={spec.teacher_arch!r} answers once an image, task {spec.name!r} is dense; give one that "
                "answers (N, classes, H, W), or leave dense out of the task"
            )

    @property
    def dense(self) -> bool:
        """Whether the networks answer for each pixel."""
        return self._output_dims == 4

    def make_method(self, name: str, options: Mapping[str, Any] | None = None) -> Method:
        """The preset `name` with the task's own settings of it, then the user's `options`.

        Raises:
            InvalidInputError: when the name or a setting is unknown, or a value does not fit.
        """
        return make_method(name, options, of_maps(self.spec.methods) if self.dense else self.spec.methods)

    def with_budget(self, budget: Budget) -> Task:
        """The same task with another budget; both share what is in memory, or will be: networks, data, probe set."""
        task = copy.copy(self)
        task.spec, task._like = replace(self.spec, budget=budget), self
        return task

    def with_spec(self, spec: TaskSpec) -> Task:
        """Another task with the same teacher, which both then share, on every device."""
        task = copy.copy(self)
        task.spec, task._things, task._like = spec, {}, self
        return task

    def once(self, key: Hashable, make: Callable[[], ThingT]) -> ThingT:
        """A thing that does not depend on the budget, made when it is first asked for, then kept as long as the task.

        Args:
            key: of the thing.
            make: makes it; what it raises is raised, and nothing is kept then.
        """
        if key not in self._things:
            self._things[key] = make()
        thing: ThingT = self._things[key]
        return thing

    def teacher_on(self, device: torch.device, folded: bool = False) -> nn.Module:
        """The frozen teacher on `device`; moved once, then shared by all runs of the process.

        Args:
            device: where.
            folded: with BatchNorm folded into the convolutions, which answers faster but shows no statistics.
        """
        if device not in self._teachers:
            self._teachers[device] = copy.deepcopy(self._teachers[torch.device("cpu")]).to(device)
        if not folded:
            return self._teachers[device]
        if device not in self._folded:
            # Noise, because zeros would not show a wrong scale.
            random = torch.Generator().manual_seed(0)
            example = torch.randn(2, *self.spec.image_shape, generator=random)
            self._folded[device] = fold_batch_norm(self._teachers[torch.device("cpu")], example).to(device)
        return self._folded[device]

    def teacher_digest(self) -> str:
        """Hash of the teacher's weights."""
        digest = hashlib.sha256()
        for name, tensor in self.teacher_on(torch.device("cpu")).state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def identity(self) -> TaskSpec:
        """The spec without what differs between processes and folders: functions, and where files lie."""
        spec = replace(self.spec, evaluation=None, teacher_data=None, probe_sets="", weights_key="")
        return replace(spec, teacher_weights=self.teacher_digest())

    def build_student(self, seed: int) -> nn.Module:
        """A fresh student, on the CPU, with initial weights that depend on `seed` alone."""
        spec = self.spec
        options = classifier_options(spec) | spec.student_options
        student = _channels_last(with_exact_head(build_network("student_arch", spec.student_arch, options, seed)))
        check_classifier("student", student.eval(), spec, self._output_dims)
        return student

    def build_generator(self, seed: int) -> nn.Module:
        """A fresh generator, on the CPU, with initial weights that depend on `seed` alone."""
        spec = self.spec
        options = {"latent_dim": spec.latent_dim, "image_shape": spec.image_shape} | spec.generator_options
        generator = _channels_last(build_network("generator_arch", spec.generator_arch, options, seed))
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                shape = tuple(generator(torch.zeros(2, spec.latent_dim)).shape)
        except PASS_ERRORS as error:
            latents = f"latents of shape (N, {spec.latent_dim})"
            raise failed_pass(f"generator_arch={spec.generator_arch!r}", latents, error) from error
        if shape != (2, *spec.image_shape):
            raise InvalidInputError(
                f"generator_arch={spec.generator_arch!r} makes images of shape {shape[1:]}, task {spec.name!r} needs "
                f"{spec.image_shape}"
            )
        return generator

    @property
    def pass_costs(self) -> PassCosts:
        """Multiply-adds of one image's forward pass through teacher, student and generator."""
        return self.once("pass costs", self._count_pass_costs)

    def _count_pass_costs(self) -> PassCosts:
        images, latents = torch.zeros(2, *self.spec.image_shape), torch.zeros(2, self.spec.latent_dim)
        networks = self.teacher_on(torch.device("cpu")), self.build_student(0), self.build_generator(0)
        pairs = zip(networks, (images, images, latents), strict=True)
        return PassCosts(*(multiply_adds(network, inputs) for network, inputs in pairs))

    def evaluation(self, device: torch.device) -> LabelledImages | None:
        """Real images and labels on `device`, or None. For reported accuracy only: never for training."""
        load = self.spec.evaluation
        return None if load is None else self.once(("evaluation", device), lambda: self._evaluation_on(device, load))

    def _evaluation_on(self, device: torch.device, load: Callable[[], LabelledImages]) -> LabelledImages:
        if device.type != "cpu":  # which has been asked already, by `load_task`
            on_cpu = self.evaluation(torch.device("cpu"))
            assert on_cpu is not None
            return on_cpu[0].to(device), on_cpu[1].to(device)
        images, labels = pair_of_tensors("evaluation", load())
        check_images("evaluation data", images, labels, self.spec, self._output_dims - 1)
        return images, labels

    def training_images(self) -> Tensor:
        """Real training images (N, C, H, W) uint8 on the CPU, for the upper reference `vanilla_kd` alone.

        Raises:
            InvalidInputError: when the task has none.
        """
        return self._real_data()[0][0]

    def held_out_accuracy(self, network: nn.Module, device: torch.device) -> float | None:
        """Accuracy on real images that neither teacher nor any student was trained on; None without such data."""
        if self.spec.teacher_data is None:
            return None
        images, labels = self._real_data()[1]
        return top1_accuracy(network, (images.to(device), labels.to(device)), self.spec)

    def _real_data(self) -> tuple[LabelledImages, LabelledImages]:
        load = self.spec.teacher_data
        if load is None:
            remedy = (
                f"data_root='folder with {self.spec.dataset}' (or set SSDKD_DATA)"
                if self.spec.dataset
                else "its TaskSpec a teacher_data, or choose another method"
            )
            raise InvalidInputError(
                f"task {self.spec.name!r} has no real training images, on which method 'vanilla_kd' distils; give "
                + remedy
            )
        return self.once("real data", lambda: self._checked(*load()))

    def _checked(self, train: LabelledImages, test: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
        for name, part in (("training data", train), ("test data", test)):
            images, labels = pair_of_tensors("teacher_data", part)
            check_images(name, images, labels, self.spec, self._output_dims - 1)
        return train, test

    def accuracy(self, network: nn.Module, device: torch.device | str) -> float | None:
        """Accuracy of `network` on the real evaluation data; None without such data."""
        data = self.evaluation(torch.device(device))
        return None if data is None else top1_accuracy(network, data, self.spec)


def top1_accuracy(network: nn.Module, data: LabelledImages, spec: TaskSpec) -> float:
    """Share of labelled images (or pixels) that `network` gets right, all on one device.

    The network is used as it is: put it into evaluation mode first.
    """
    images, labels = data
    return share_right(logits_of(network, images, Normalize(spec.mean, spec.std, images.device)), labels)


def share_right(logits: Tensor, labels: Tensor) -> float:
    """Share of labelled images (or pixels) whose arg-max is the label, on one device; void pixels do not count."""
    right = logits.argmax(dim=1) == labels
    if labels.dim() == 1:
        return float(right.sum() / labels.numel())
    valid = labels != VOID
    return float((right & valid).sum() / valid.sum().clamp_min(1))


def check_images(argument: str, images: Tensor, labels: Tensor, spec: TaskSpec, label_dims: int = 1) -> None:
    """Check real images against the task; labels have 1 dimension, or are label maps of classes and `VOID`.

    Raises:
        InvalidInputError: when there are none, or shape, type or labels do not fit.
    """
    if len(images) == 0:
        raise InvalidInputError(f"{argument}: there are no images; give a file with at least one")
    if tuple(images.shape[1:]) != spec.image_shape or images.dtype != torch.uint8:
        raise InvalidInputError(
            f"{argument}: images are {tuple(images.shape)} {images.dtype}, task {spec.name!r} needs (N, "
            f"{', '.join(map(str, spec.image_shape))}) torch.uint8"
        )
    expected = (len(labels), *(spec.image_shape[1:] if label_dims == 3 else ()))
    if tuple(labels.shape) != expected:
        raise InvalidInputError(
            f"{argument}: labels have shape {tuple(labels.shape)}, expected {('N', *expected[1:])}: one class number "
            + ("a pixel" if label_dims == 3 else "an image, not one-hot vectors")
        )
    if len(labels) != len(images):
        raise InvalidInputError(f"{argument}: {len(images)} images but {len(labels)} labels; give one label an image")
    known = labels if label_dims == 1 else labels[labels != VOID]
    if known.numel() and (known.min() < 0 or known.max() >= spec.num_classes):
        raise InvalidInputError(
            f"{argument}: labels run from {int(known.min())} to {int(known.max())}, task {spec.name!r} has classes 0 "
            f"to {spec.num_classes - 1}; number them so"
        )


def _channels_last(network: nn.Module) -> nn.Module:
    """The same network with weights in the layout that oneDNN and cuDNN convolve fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def classifier_options(spec: TaskSpec) -> dict[str, Any]:
    """What every classifier of the task is made with."""
    return {"num_classes": spec.num_classes, "in_channels": spec.image_shape[0]}


def build_teacher(spec: TaskSpec, seed: int) -> nn.Module:
    """An untrained teacher of the task's architecture, on the CPU."""
    return build_network("teacher_arch", spec.teacher_arch, classifier_options(spec) | spec.teacher_options, seed)


def check_classifier(role: str, network: nn.Module, spec: TaskSpec, dims: int | None = None) -> int:
    """Check a teacher's or student's output: (N, classes) or (N, classes, H, W); returns its number of dimensions.

    Args:
        role: `"teacher"` or `"student"`, for the error message.
        network: on the CPU, in evaluation mode.
        spec: of the task.
        dims: that a student must answer with, as its teacher does; None for either number.

    Raises:
        InvalidInputError: when the network cannot take the task's images, or answers with something else, or with
            numbers that are not finite.
    """
    arch = spec.teacher_arch if role == "teacher" else spec.student_arch
    try:
        with torch.no_grad():
            logits = network(torch.zeros(2, *spec.image_shape).contiguous(memory_format=torch.channels_last))
    except PASS_ERRORS as error:
        raise failed_pass(f"{role}_arch={arch!r}", f"images of shape {spec.image_shape}", error) from error
    if not isinstance(logits, Tensor):
        raise InvalidInputError(
            f"{role}_arch={arch!r} answers with a {type(logits).__name__}, expected logits as a tensor; have its "
            "forward return them alone"
        )
    if logits.dim() not in ((2, 4) if dims is None else (dims,)) or logits.shape[1] != spec.num_classes:
        raise InvalidInputError(
            f"{role}_arch={arch!r} gives outputs of shape {tuple(logits.shape)}, task {spec.name!r} needs "
            f"(N, {spec.num_classes}) or (N, {spec.num_classes}, H, W): the number of classes must match"
        )
    if not logits.isfinite().all():
        raise InvalidInputError(
            f"{role}_arch={arch!r} answers with NaN or infinite numbers to images of zeros; its weights are damaged "
            "(is a running_var below 0?) or too large: get another copy, or train it again"
        )
    return logits.dim()
