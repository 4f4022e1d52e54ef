"""The probe set: images synthesised from the teacher alone, on which a student can be judged without data. Ours."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ssdkd_env.distillation import priority
from ssdkd_env.distillation.answering import answer
from ssdkd_env.distillation.augmentation import Normalize, to_uint8
from ssdkd_env.distillation.inversion import Inversion
from ssdkd_env.distillation.methods import Method
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import cache_folder, load_state, save_state

if TYPE_CHECKING:
    from ssdkd_env.tasks.task import Task

#: How the probe set is made: by statistics and drawn classes alone. Its own, so that no preset changes the rewards.
PROBE_METHOD = Method(
    name="probe",
    source="Ours: the meta-generator of Fast (Fang et al. 2022) without adversary and without φ.",
    generator_lr=4e-3,
    latent_lr=1e-2,
    bn_weight=1.0,
    one_hot_weight=1.0,
    adversarial_weight=0.0,
)
#: To be raised when the engine makes other images of the same settings, so that no cache judges by the old ones.
PROBE_FORMAT = 2
#: Seed of the first generator; the probe set belongs to the teacher, not to the run.
PROBE_SEED = 20240617


@dataclass(frozen=True)
class ProbeSettings:
    """How much work goes into a probe set.

    Attributes:
        generators: trained from scratch; several, because one sees only part of what the teacher knows.
        batches: batches that each is trained on.
        kept: the last of them, which make the probe set.
        batch_size: images a batch.
        steps: optimiser steps a batch.
    """

    generators: int = 4
    batches: int = 12
    kept: int = 2
    batch_size: int = 64
    steps: int = 20

    def __post_init__(self) -> None:
        for setting in fields(self):
            if getattr(self, setting.name) < 1:
                raise InvalidInputError(
                    f"probe[{setting.name!r}]={getattr(self, setting.name)}: expected a whole number of at least 1"
                )
        if self.kept > self.batches:
            raise InvalidInputError(f"probe['kept']={self.kept}: only {self.batches} batches are made; keep fewer")


@dataclass(frozen=True)
class ProbeScore:
    """How near a student is to the teacher on the probe set.

    Attributes:
        agreement: share of the images (or pixels) on which the arg-maxes agree.
        discrepancy: mean KL(f_T ‖ f_S), in nats.
    """

    agreement: float
    discrepancy: float


class ProbeSet:
    """Images from the teacher alone, made before any student exists and never trained on.

    Made by the inversion engine without adversary and without φ, from several generators, so that it depends on
    the teacher and nothing else. It is kept in the cache folder (`SSDKD_CACHE`, else `~/.cache/ssdkd_env`), so that
    every process of a machine judges by the same images and only the first one pays for them.

    Args:
        task: whose teacher is inverted.
        device: where the images are made and kept.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.teacher = task.teacher_on(device)
        normalize = Normalize(task.spec.mean, task.spec.std, device)
        path = cache_folder() / f"probe-{_fingerprint(task, device)}.safetensors"
        try:
            images = load_state(path)["images"].to(device)
        except (InvalidInputError, KeyError, TypeError):  # missing, or damaged: make it anew
            # Layers such as dropout draw from the global generators.
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                images = _synthesize(task, device)
            try:
                save_state(path, {"images": images})
            except InvalidInputError as error:
                warnings.warn(
                    f"the probe set is made anew in every process: {error} (set SSDKD_CACHE to such a folder)",
                    stacklevel=2,
                )
        self.images: Tensor = images
        self._normalize = normalize
        self._teacher_logits = answer(self.teacher, images, normalize)

    def score(self, student: nn.Module) -> ProbeScore:
        """Judge a student, which must be in evaluation mode and on the probe set's device."""
        return self.judge(answer(student, self.images, self._normalize))

    def judge(self, student_logits: Tensor) -> ProbeScore:
        """Judge a student by its logits for `images`."""
        agreement = priority.agreement(self._teacher_logits, student_logits).mean()
        discrepancy = priority.discrepancy(self._teacher_logits, student_logits).mean()
        agreement_value, discrepancy_value = torch.stack([agreement, discrepancy]).tolist()
        return ProbeScore(agreement_value, discrepancy_value)


def _fingerprint(task: Task, device: torch.device) -> str:
    """Hash of everything that the probe set depends on."""
    spec = task.spec
    settings = (
        (spec.image_shape, spec.num_classes, spec.mean, spec.std, spec.padding, spec.flip, spec.latent_dim),
        (spec.teacher_arch, spec.generator_arch, sorted(spec.generator_options.items())),
        (sorted(asdict(spec.probe).items()), PROBE_SEED),
        (PROBE_FORMAT, sorted(asdict(PROBE_METHOD).items()), task.teacher_digest(), torch.__version__, device.type),
    )
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def _synthesize(task: Task, device: torch.device) -> Tensor:
    """Images (generators · kept · batch_size, C, H, W) uint8, on `device`."""
    spec, settings = task.spec, task.spec.probe
    nothing = torch.zeros(spec.num_classes, device=device)
    batches: list[Tensor] = []
    for seed in range(PROBE_SEED, PROBE_SEED + settings.generators):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        inversion = Inversion(
            PROBE_METHOD,
            task.teacher_on(device),
            task.build_generator(seed).to(device),
            num_classes=spec.num_classes,
            image_shape=spec.image_shape,
            latent_dim=spec.latent_dim,
            batch_size=settings.batch_size,
            steps=settings.steps,
            normalize=Normalize(spec.mean, spec.std, device),
            padding=spec.padding,
            flip=spec.flip,
            random=torch.Generator(device).manual_seed(seed),
        )
        made = [inversion.synthesize(None, nothing)[0] for _ in range(settings.batches)]
        batches += [to_uint8(images) for images in made[-settings.kept :]]
    return torch.cat(batches)


#: By task object and device: made once a process.
_probe_sets: dict[tuple[int, str], tuple[Task, ProbeSet]] = {}


def probe_set(task: Task, device: torch.device) -> ProbeSet:
    """The task's probe set on `device`; made once a process."""
    key = (id(task), str(device))
    if key not in _probe_sets:
        _probe_sets[key] = (task, ProbeSet(task, device))  # holding the task keeps its id from being reused
    return _probe_sets[key][1]
