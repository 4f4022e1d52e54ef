"""Fast-Datafree (Fang et al. 2022), from a checkout of the user's, and our engine beside it at the same work.

Nothing of https://github.com/zju-vipa/Fast-Datafree is part of this project. Its own synthesizer, generator, image
pool and training function are imported from the checkout and run as they are; what has to be otherwise is named in
`Checkout.changes`, with what it does to its time: nothing, or in its favour, but for a few milliseconds a fork.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from laboratory.common import timed
from laboratory.equal_work import OurSide, Round, Seconds, WorkCounter, filler_images
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.errors import InvalidInputError, one_line

ADDRESS = "https://github.com/zju-vipa/Fast-Datafree"
#: What a checkout must hold.
FILES = ("datafree_kd.py", "datafree/synthesis/fast_meta.py", "datafree/models/generator.py")
#: Largest difference of two copies of one network, relative to their largest output.
TOLERANCE = 1e-4
#: What is otherwise than in the checkout's own runs, and what it does to its time.
CHANGES = (
    "its packages, and torchvision, are imported piece by piece, without their __init__, because others of its modules "
    "need packages that a round does not, and torchvision's operators may not fit PyTorch's build (no effect)",
    "teacher and student are copies of this project's networks, the teacher in a shell that answers "
    "return_features=True (no effect)",
    "warmup=0: the adversarial loss counts from the first round, as after its own warm-up (the same work)",
    "the pool is filled with smooth random images through its own ImagePool, and after each round the round's files "
    "are deleted outside the timed block, so that it keeps its size (no effect)",
    "loader workers are ended after each round outside the timed block, and start by fork (in its favour)",
    "pictures, logging and evaluation between its rounds are left out (in its favour)",
    "it shares a process with ours, so that each loader worker forks from a larger one (against it, by some "
    "milliseconds a worker and epoch of the loader; nothing with 0 workers)",
)
CHANGES_ON_CPU = (
    ".cuda() of a network or tensor gives it back (no effect)",
    "pin_memory=True of its loader has no effect without CUDA, and its warning is not shown (no effect)",
)


class Checkout(NamedTuple):
    """A checkout whose modules can be imported: its main script, its commit, and what is otherwise than there."""

    main: ModuleType
    commit: str
    changes: list[str]

    def note(self, *changes: str) -> None:
        """Name changes, each once."""
        self.changes.extend(change for change in changes if change not in self.changes)


def load_checkout(path: str | Path) -> Checkout:
    """Import from a checkout what a round needs, and no more: of its networks only the generator, and no data set.

    Raises:
        InvalidInputError: when `path` is no checkout, or kornia or torchvision is missing.
    """
    root = Path(path).resolve()
    missing = [name for name in FILES if not (root / name).is_file()]
    if missing:
        what = f"has no {missing[0]}" if root.is_dir() else "is no folder"
        raise InvalidInputError(
            f"--checkout {path} {what}; give the folder of a checkout of Fast-Datafree: git clone {ADDRESS}"
        )
    try:
        importlib.import_module("kornia.augmentation")
        vision = importlib.util.find_spec("torchvision")
        _package("torchvision", (vision and vision.submodule_search_locations) or ())
        importlib.import_module("torchvision.transforms")
    except ImportError as error:
        raise InvalidInputError(
            f"--checkout {path}: Fast-Datafree augments with kornia and torchvision, of which one does not import "
            f"({one_line(error)}); pip install kornia torchvision"
        ) from error
    for name in ("datafree", "datafree.utils", "datafree.synthesis", "datafree.models"):
        _package(name, [str(root.joinpath(*name.split(".")))])
    public = vars(importlib.import_module("datafree.utils._utils")).items()
    vars(sys.modules["datafree.utils"]).update({name: value for name, value in public if not name.startswith("_")})
    for name in ("criterions", "hooks", "metrics"):
        importlib.import_module(f"datafree.{name}")
    spec = importlib.util.spec_from_file_location("datafree_kd", root / FILES[0])
    assert spec is not None
    assert spec.loader is not None
    main = importlib.util.module_from_spec(spec)
    # The registry of networks and data, and torchvision's, are imported there and not needed here.
    needless = ("registry", "torchvision.datasets", "torchvision.models")
    with mock.patch.dict(sys.modules, {name: ModuleType(name) for name in needless}):
        spec.loader.exec_module(main)
    git = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    return Checkout(main, git.stdout.strip(), [])


def _package(name: str, folders: Iterable[str]) -> None:
    """A package whose modules can be imported, without its `__init__`."""
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = list(folders)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, sys.modules[name])


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

    def __init__(self, checkout: Checkout, size: Round, ours: OurSide, pool: int, folder: Path) -> None:
        from datafree.criterions import KLDiv

        self._checkout, self.device = checkout, ours.device
        # Copies of its own, because its hooks stay on the teacher, and in the memory layout that its networks have.
        self.teacher = _plain_copy(ours.task.teacher_on(self.device)).requires_grad_(True)
        self.student = _plain_copy(ours.first_student)
        self.generator = self._make_generator(ours, size)
        answering = _WithFeatures(self.teacher).eval()
        self._synthesizer = self._make_synthesizer(ours, size, answering, folder)
        student = ours.task.spec.student
        optimizer = torch.optim.SGD(
            self.student.parameters(), student.lr, momentum=student.momentum, weight_decay=student.weight_decay
        )
        arguments = SimpleNamespace(
            kd_steps=size.student_steps,
            method="fast_meta",
            gpu=(self.device.index or 0) if self.device.type == "cuda" else None,
            autocast=importlib.import_module("datafree.utils").dummy_ctx,
            fp16=False,
            print_freq=0,
            current_epoch=0,
        )
        networks = [self.student, answering]
        self._training = self._synthesizer, networks, KLDiv(T=student.temperature), optimizer, arguments
        for images in filler_images(pool - size.candidates).split(size.candidates):
            self._synthesizer.data_pool.add(images / 255.0)
        self._folder, self.memory = folder, 0
        self._kept = {path.name for path in folder.iterdir()}
        checkout.note(*CHANGES, *(() if self.device.type == "cuda" else CHANGES_ON_CPU))

    def _make_synthesizer(self, ours: OurSide, size: Round, teacher: nn.Module, folder: Path) -> Any:
        """Its synthesizer, with its augmentation for CIFAR and the constants of ours."""
        from datafree.synthesis.fast_meta import FastMetaSynthesizer
        from datafree.utils import Normalizer
        from torchvision import transforms

        spec, method = ours.task.spec, ours.run.method
        normalization = {"mean": spec.mean, "std": spec.std}
        crop_flip = [
            transforms.RandomCrop(spec.image_shape[1], padding=spec.padding),
            transforms.RandomHorizontalFlip(),
        ]
        return FastMetaSynthesizer(
            teacher,
            self.student,
            self.generator,
            nz=spec.latent_dim,
            num_classes=spec.num_classes,
            img_size=spec.image_shape,
            save_dir=str(folder),
            device=self.device,
            transform=transforms.Compose([*crop_flip, transforms.ToTensor(), transforms.Normalize(**normalization)]),
            normalizer=Normalizer(**normalization),
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

    def _make_generator(self, ours: OurSide, size: Round) -> nn.Module:
        """Its standard generator with the weights of ours: the same layers in the same order."""
        from datafree.models.generator import Generator

        spec = ours.task.spec
        channels, side, _ = spec.image_shape
        generator: nn.Module = Generator(
            nz=spec.latent_dim, ngf=size.generator_channels // 2, img_size=side, nc=channels
        )
        own, theirs = ours.task.build_generator(0).state_dict(), generator.state_dict()
        if [t.shape for t in own.values()] != [t.shape for t in theirs.values()]:
            raise InvalidInputError(
                "--generator-channels: the checkout's generator has other layers than ours; give an even number, and "
                f"a checkout of {ADDRESS}"
            )
        generator.load_state_dict({name: t.clone() for name, t in zip(theirs, own.values(), strict=True)})
        return generator.to(self.device)

    @property
    def diverged(self) -> bool:
        """Whether the student holds NaN or infinite numbers."""
        return not all(bool(parameter.isfinite().all()) for parameter in self.student.parameters())

    def counter(self) -> WorkCounter:
        """Of this side's networks."""
        return WorkCounter([self.teacher], [self.student], type(self.generator))

    def round(self, workers: int, autocast: bool = False) -> Seconds:
        """One round, with so many processes that load images, under bfloat16 autocast if wanted."""
        with warnings.catch_warnings(), self._adapted(workers), self._rounded(autocast):
            warnings.simplefilter("ignore")
            _, synthesis = timed(self.device, self._synthesizer.synthesize)
            _, student = timed(self.device, lambda: self._checkout.main.train(*self._training))
            self.memory = len(self._synthesizer.data_iter.dataloader.dataset)
            self._synthesizer.data_iter = None
        for path in self._folder.iterdir():
            if path.name not in self._kept:
                path.unlink()
        return Seconds(synthesis, student)

    @contextmanager
    def _rounded(self, autocast: bool) -> Iterator[None]:
        """Its best case where a device computes bfloat16: everything under autocast, but for the images it saves."""
        if not autocast:
            yield
            return
        self._checkout.note(
            "in bfloat16: its round under autocast without a cache of weights, which would repeat the first step's, "
            "and its images in float32, because its PNG files want them (in its favour)"
        )
        generator = type(self.generator)
        plain = generator.forward
        exact = mock.patch.object(generator, "forward", lambda it, latents: plain(it, latents).float())
        with exact, torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            yield

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
            # Its modules, which only this process knows, are found by processes that are forked from it.
            context = "fork" if workers else None
            return plain(*arguments, **options | {"num_workers": workers, "multiprocessing_context": context})

        with ExitStack() as undo:
            undo.enter_context(mock.patch.object(torch.utils.data, "DataLoader", loader))
            for owner in (nn.Module, Tensor) if self.device.type != "cuda" else ():
                undo.enter_context(mock.patch.object(owner, "cuda", lambda it, *_, **__: it))
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


def _plain_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]
