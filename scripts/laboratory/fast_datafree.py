"""Fast-Datafree (Fang et al. 2022), from a checkout of the user's, and our engine beside it at the same work.

Nothing of https://github.com/zju-vipa/Fast-Datafree is part of this project. Its own synthesizer, generator, image
pool and training function are imported from the checkout and run as they are; what has to be otherwise is named in
`FastDatafree.changes`, with what it does to its time: nothing, or in its favour, but for a few milliseconds a fork.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import multiprocessing
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from laboratory.equal_work import OurSide, Round, Seconds, WorkCounter, filler_images
from laboratory.machine import timed
from laboratory.standins import torchvision_modules
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.tasks import Task

ADDRESS = "https://github.com/zju-vipa/Fast-Datafree"
#: What a checkout must hold.
FILES = ("datafree_kd.py", "datafree/synthesis/fast_meta.py", "datafree/models/generator.py")
#: Largest difference of two copies of one network, relative to their largest output.
TOLERANCE = 1e-4
#: What is otherwise than in the checkout's own runs, and what it does to its time.
CHANGES = [
    "its packages are imported piece by piece, without their __init__, because others of its modules need packages "
    "that a round does not (no effect)",
    "teacher and student are copies of this project's networks, the teacher in a shell that answers "
    "return_features=True (no effect)",
    "warmup=0: the adversarial loss counts from the first round, as after its own warm-up (the same work)",
    "the pool is filled with smooth random images through its own ImagePool, and after each round the round's files "
    "are deleted outside the timed block, so that it keeps its size (no effect)",
    "loader workers are ended after each round outside the timed block (in its favour)",
    "pictures, logging and evaluation between its rounds are left out (in its favour)",
    "it shares a process with ours, so that each loader worker forks from a larger one (against it, by some "
    "milliseconds a worker and epoch of the loader; nothing with 0 workers)",
]
CHANGES_ON_CPU = [
    ".cuda() of a network or tensor gives it back (no effect)",
    "pin_memory=True of its loader has no effect without CUDA, and its warning is not shown (no effect)",
]


@dataclass
class FastDatafree:
    """What is used of a checkout.

    Attributes:
        commit: of the checkout, where git knows it.
        synthesizer: its class of the meta-generator's synthesis.
        generator: its generator's class.
        train: its function of a round's minibatches.
        distance: its distillation loss's class.
        normalizer: its class that normalises batches.
        no_autocast: its context that does nothing.
        transforms: torchvision's, or what stands in for them.
        changes: all that is otherwise than in the checkout's own runs.
    """

    commit: str | None
    synthesizer: Callable[..., Any]
    generator: type[Any]
    train: Callable[..., None]
    distance: Callable[..., nn.Module]
    normalizer: Callable[..., Any]
    no_autocast: Callable[..., Any]
    transforms: Any
    changes: list[str] = field(default_factory=list)

    def note(self, change: str) -> None:
        """Name a change, once."""
        if change not in self.changes:
            self.changes.append(change)


def load_checkout(path: str | Path) -> FastDatafree:
    """Import from a checkout what a round needs, and no more: of its networks only the generator, and no data set.

    Raises:
        InvalidInputError: when `path` is no checkout, or kornia is missing.
    """
    root = Path(path).resolve()
    missing = [name for name in FILES if not (root / name).is_file()]
    if missing:
        what = f"has no {missing[0]}" if root.is_dir() else "is no folder"
        raise InvalidInputError(
            f"--checkout {path} {what}; give the folder of a checkout of Fast-Datafree: git clone {ADDRESS}"
        )
    changes: list[str] = []
    try:
        importlib.import_module("kornia.augmentation")
    except ImportError as error:
        raise InvalidInputError(
            f"--checkout {path}: Fast-Datafree augments with kornia, which does not import ({one_line(error)}); "
            "pip install kornia"
        ) from error
    transforms = _torchvision_transforms(changes)
    for name in ("datafree", "datafree.utils", "datafree.synthesis", "datafree.models"):
        _package(name, root.joinpath(*name.split(".")))
    tools = importlib.import_module("datafree.utils._utils")
    public = {name: value for name, value in vars(tools).items() if not name.startswith("_")}
    vars(sys.modules["datafree.utils"]).update(public)
    for name in ("criterions", "hooks", "metrics"):
        importlib.import_module(f"datafree.{name}")
    return FastDatafree(
        commit=_commit(root),
        synthesizer=importlib.import_module("datafree.synthesis.fast_meta").FastMetaSynthesizer,
        generator=importlib.import_module("datafree.models.generator").Generator,
        train=_main_script(root / "datafree_kd.py").train,
        distance=sys.modules["datafree.criterions"].KLDiv,
        normalizer=tools.Normalizer,
        no_autocast=tools.dummy_ctx,
        transforms=transforms,
        changes=changes,
    )


def _torchvision_transforms(changes: list[str]) -> ModuleType:
    """The transforms of torchvision; or stand-ins for what of them is used, where it does not import."""
    names = ("torchvision.transforms", "torchvision.datasets", "torchvision.models")
    try:
        transforms, *_ = [importlib.import_module(name) for name in names]
    except Exception as error:  # a build that does not fit PyTorch's fails with a RuntimeError
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules.update(torchvision_modules())
        changes.append(
            f"torchvision does not import here ({one_line(error)}): Compose, RandomCrop, RandomHorizontalFlip, "
            "ToTensor and Normalize of ours stand in for its own, and do less for an image (in its favour)"
        )
        return sys.modules["torchvision.transforms"]
    return transforms


def _package(name: str, folder: Path) -> None:
    """A package whose modules can be imported, without its `__init__`."""
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, sys.modules[name])


def _main_script(path: Path) -> ModuleType:
    """The main script as a module; what it imports of the checkout's registry of networks and data is not needed."""
    before = sys.modules.get("registry")
    sys.modules["registry"] = ModuleType("registry")
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        del sys.modules["registry"]
        if before is not None:
            sys.modules["registry"] = before
    return module


def _commit(root: Path) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


class _WithFeatures(nn.Module):
    """A teacher that answers as Fast-Datafree asks: with features beside the logits, which it does not use."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, None]:
        """Logits (N, classes)."""
        logits: Tensor = self.network(images)
        return (logits, None) if return_features else logits


class TheirSide:
    """Fast-Datafree's synthesizer with a pool of a fixed number of images, in PNG files as it keeps them.

    Args:
        checkout: from `load_checkout`.
        size: the work of a round.
        ours: the other side, whose networks and constants it gets.
        pool: images in the folder when the student studies.
        folder: new, for the images.

    Attributes:
        memory: images that the student studied in the last round.
    """

    def __init__(self, checkout: FastDatafree, size: Round, ours: OurSide, pool: int, folder: Path) -> None:
        self._checkout, self.device = checkout, ours.device
        # Copies of its own, because its hooks stay on the teacher, and in the memory layout that its networks have.
        self.teacher = _plain_copy(ours.task.teacher_on(self.device)).requires_grad_(True)
        self.student = _plain_copy(ours.first_student)
        self.generator = self._make_generator(ours.task, size)
        answering = _WithFeatures(self.teacher).eval()
        self._networks = [self.student, answering]
        self._synthesizer = self._make_synthesizer(ours, size, answering, folder)
        student = ours.task.spec.student
        self._distance = checkout.distance(T=student.temperature)
        self._optimizer = torch.optim.SGD(
            self.student.parameters(), student.lr, momentum=student.momentum, weight_decay=student.weight_decay
        )
        self._arguments = SimpleNamespace(
            kd_steps=size.student_steps,
            method="fast_meta",
            gpu=(self.device.index or 0) if self.device.type == "cuda" else None,
            autocast=checkout.no_autocast,
            fp16=False,
            print_freq=0,
            current_epoch=0,
        )
        for images in filler_images(pool - size.candidates).split(size.candidates):
            self._synthesizer.data_pool.add(images / 255.0)
        self._folder, self.memory = folder, 0
        self._kept = {path.name for path in folder.iterdir()}
        for change in CHANGES + ([] if self.device.type == "cuda" else CHANGES_ON_CPU):
            checkout.note(change)

    def _make_synthesizer(self, ours: OurSide, size: Round, teacher: nn.Module, folder: Path) -> Any:
        """Its synthesizer, with its augmentation for CIFAR and the constants of ours."""
        spec, method, transforms = ours.task.spec, ours.run.method, self._checkout.transforms
        normalization = {"mean": spec.mean, "std": spec.std}
        return self._checkout.synthesizer(
            teacher,
            self.student,
            self.generator,
            nz=spec.latent_dim,
            num_classes=spec.num_classes,
            img_size=spec.image_shape,
            save_dir=str(folder),
            device=self.device,
            transform=transforms.Compose(
                [
                    transforms.RandomCrop(spec.image_shape[1], padding=spec.padding),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(**normalization),
                ]
            ),
            normalizer=self._checkout.normalizer(**normalization),
            synthesis_batch_size=size.candidates,
            sample_batch_size=size.batch_size,
            iterations=size.inversion_steps,
            warmup=0,
            lr_g=method.generator_lr,
            lr_z=method.latent_lr,
            adv=method.adversarial_weight,
            bn=method.bn_weight,
            oh=method.one_hot_weight,
            reset_l0=1,
            reset_bn=0,
            bn_mmt=method.statistics_momentum,
            is_maml=1,
        )

    def _make_generator(self, task: Task, size: Round) -> nn.Module:
        """Its standard generator with the weights of ours: the same layers in the same order."""
        spec = task.spec
        generator: nn.Module = self._checkout.generator(
            nz=spec.latent_dim,
            ngf=size.generator_channels // 2,
            img_size=spec.image_shape[1],
            nc=spec.image_shape[0],
        )
        ours, theirs = task.build_generator(0).state_dict(), generator.state_dict()
        if [t.shape for t in ours.values()] != [t.shape for t in theirs.values()]:
            raise InvalidInputError(
                "--generator-channels: the checkout's generator has other layers than ours; give an even number, and "
                f"a checkout of {ADDRESS}"
            )
        generator.load_state_dict({name: t.clone() for name, t in zip(theirs, ours.values(), strict=True)})
        return generator.to(self.device)

    @property
    def diverged(self) -> bool:
        """Whether the student holds NaN or infinite numbers."""
        return not all(bool(parameter.isfinite().all()) for parameter in self.student.parameters())

    def counter(self) -> WorkCounter:
        """Of this side's networks."""
        return WorkCounter([self.teacher], self.student, self._checkout.generator)

    def round(self, workers: int) -> Seconds:
        """One round, with so many processes that load images."""
        with warnings.catch_warnings(), self._adapted(workers):
            warnings.simplefilter("ignore")
            _, synthesis = timed(self.device, self._synthesizer.synthesize)
            _, student = timed(self.device, self._train)
            self.memory = len(self._synthesizer.data_iter.dataloader.dataset)
            self._synthesizer.data_iter = None
        for path in self._folder.iterdir():
            if path.name not in self._kept:
                path.unlink()
        return Seconds(synthesis, student)

    def _train(self) -> None:
        self._checkout.train(self._synthesizer, self._networks, self._distance, self._optimizer, self._arguments)

    @contextmanager
    def _adapted(self, workers: int) -> Iterator[None]:
        """What its code finds in PyTorch: a loader with `workers` processes and, on the CPU, `.cuda()` that stays."""
        plain = torch.utils.data.DataLoader

        def loader(*arguments: Any, **options: Any) -> Any:
            if options["num_workers"] != workers:
                self._checkout.note(
                    f"with {workers} loader workers where it writes {options['num_workers']} (its own number is "
                    "measured too, unless --workers leaves it out)"
                )
            return plain(*arguments, **options | {"num_workers": workers})

        def stay(it: Any, *_: object, **__: object) -> Any:
            return it

        with ExitStack() as undo:
            undo.enter_context(mock.patch.object(torch.utils.data, "DataLoader", loader))
            if self.device.type != "cuda":
                for owner in (nn.Module, Tensor):
                    undo.enter_context(mock.patch.object(owner, "cuda", stay))
            yield


def different_networks(ours: OurSide, theirs: TheirSide) -> list[str]:
    """Which networks of the two sides, that have trained nothing yet, answer differently; empty when none does."""
    spec, device = ours.task.spec, ours.device
    images = Normalize(spec.mean, spec.std, device)(filler_images(8, seed=1).to(device))
    latents = torch.randn(8, spec.latent_dim, generator=torch.Generator().manual_seed(0)).to(device)
    pairs: dict[str, tuple[nn.Module, nn.Module, Tensor]] = {
        "teacher": (ours.task.teacher_on(device, folded=True), theirs.teacher, images),
        "student": (ours.first_student, theirs.student, images),
        "generator": (ours.task.build_generator(0).to(device), theirs.generator, latents),
    }
    problems = []
    for name, (our, their, inputs) in pairs.items():
        with torch.no_grad():
            # Copies, because a forward pass in training mode moves BatchNorm's statistics.
            expected, answer = (copy.deepcopy(network).eval()(inputs) for network in (our, their))
        difference = float((answer - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE:
            problems.append(f"{name}: the answers of the two sides differ by {difference:.1e} of the largest")
    return problems


def use_fork(checkout: FastDatafree) -> None:
    """Let loader workers start by fork, as where the checkout was written; its modules cannot be found otherwise.

    Raises:
        InvalidInputError: where the system cannot fork.
    """
    if multiprocessing.get_start_method() == "fork":
        return
    if "fork" not in multiprocessing.get_all_start_methods():
        raise InvalidInputError("--workers: loader processes need a system that forks; give --workers 0")
    multiprocessing.set_start_method("fork", force=True)
    checkout.note("loader workers start by fork, which is not this Python's default (in its favour: the fastest way)")


def _plain_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]
