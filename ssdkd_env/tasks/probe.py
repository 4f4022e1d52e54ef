"""The probe set: images synthesised from the teacher alone, on which a student can be judged without data. Ours."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ssdkd_env.distillation import priority
from ssdkd_env.distillation.augmentation import Normalize, to_uint8
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.distillation.inversion import Inversion
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import cache_folder, keep_if_possible, load_state, save_state
from ssdkd_env.tasks.probe_settings import PROBE_SOURCES, ProbeSource
from ssdkd_env.tasks.task import Task
from ssdkd_env.threads import one_at_a_time

#: To be raised when the engine makes other images of the same settings, so that no cache judges by the old ones.
PROBE_FORMAT = 3
#: Seed of the first generator; the probe set belongs to the teacher, not to the run.
PROBE_SEED = 20240617


@dataclass(frozen=True)
class ProbeScore:
    """How near a student is to the teacher on the probe set.

    Attributes:
        agreement: share of the images (or pixels) on which the arg-maxes agree.
        discrepancy: mean KL(f_T ‖ f_S), in nats.
    """

    agreement: float
    discrepancy: float


@one_at_a_time
class ProbeSet:
    """Images from the teacher alone, made before any student exists and never trained on.

    Made by the inversion engine without adversary and without φ, from several generators, so that it depends on
    the teacher and nothing else. A task may ship those of its teachers, so that every machine judges by the same
    images. Others are kept in the cache folder (`SSDKD_CACHE`, else `~/.cache/ssdkd_env`), so that every process of a
    machine judges by the same images and only the first one pays for them.

    Args:
        task: whose teacher is inverted.
        device: where the images are made and kept.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.teacher = task.teacher_on(device)
        normalize = Normalize(task.spec.mean, task.spec.std, device)
        made_here = cache_folder() / f"probe-{fingerprint(task, torch.__version__, device.type)}.safetensors"
        images = _read(Path(task.spec.probe_sets) / file_name(task), task) if task.spec.probe_sets else None
        images = _read(made_here, task) if images is None else images
        if images is None:
            images = made = synthesize(task, device)
            keep_if_possible(lambda: save_state(made_here, {"images": made}), "the probe set is made anew")
        self.images: Tensor = images.to(device)
        self._normalize = normalize
        self._teacher_logits = logits_of(self.teacher, self.images, normalize)

    def score(self, student: nn.Module) -> ProbeScore:
        """Judge a student, which must be in evaluation mode and on the probe set's device."""
        return self.judge(logits_of(student, self.images, self._normalize))

    def judge(self, student_logits: Tensor) -> ProbeScore:
        """Judge a student by its logits for `images`."""
        agreement = priority.agreement(self._teacher_logits, student_logits).mean()
        discrepancy = priority.discrepancy(self._teacher_logits, student_logits).mean()
        agreement_value, discrepancy_value = torch.stack([agreement, discrepancy]).tolist()
        return ProbeScore(agreement_value, discrepancy_value)


def file_name(task: Task) -> str:
    """Name of the task's probe set in its folder `probe_sets`."""
    return f"probe-{fingerprint(task)}.safetensors"


def _read(path: Path, task: Task) -> Tensor | None:
    """The images of a file; None where it is missing or damaged, so that they are made anew."""
    try:
        images = load_state(path)["images"]
    except (InvalidInputError, KeyError, TypeError):
        return None
    fits = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.shape[1:] == task.spec.image_shape
    return images if fits else None


def fingerprint(task: Task, *machine: str) -> str:
    """Hash of everything that the probe set depends on: the task, and what rounds otherwise, where it matters."""
    spec = task.spec
    methods = [sorted(PROBE_SOURCES[name].method.inversion_settings.items()) for name in spec.probe.sources.split("+")]
    settings = (
        (spec.image_shape, spec.num_classes, spec.mean, spec.std, spec.padding, spec.flip, spec.latent_dim),
        (spec.teacher_arch, spec.generator_arch, sorted(spec.generator_options.items())),
        (sorted(asdict(spec.probe).items()), PROBE_SEED, PROBE_FORMAT, methods, task.teacher_digest(), *machine),
    )
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def synthesize(task: Task, device: torch.device) -> Tensor:
    """Make the task's probe set: (sources · generators · kept · batch_size, C, H, W) uint8, on `device`."""
    settings = task.spec.probe
    # Layers such as dropout draw from the global generators.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return torch.cat(
            [
                _generate(task, device, PROBE_SOURCES[name], PROBE_SEED + number)
                for name in settings.sources.split("+")
                for number in range(settings.generators)
            ]
        )


def _generate(task: Task, device: torch.device, source: ProbeSource, seed: int) -> Tensor:
    """The kept batches of one generator, (kept · batch_size, C, H, W) uint8."""
    spec, settings = task.spec, task.spec.probe
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    inversion = Inversion(
        source.method,
        task.teacher_on(device),
        task.build_generator(seed).to(device),
        num_classes=spec.num_classes,
        image_shape=spec.image_shape,
        latent_dim=spec.latent_dim,
        batch_size=settings.batch_size,
        steps=source.steps * settings.steps,
        normalize=Normalize(spec.mean, spec.std, device),
        padding=spec.padding,
        flip=spec.flip,
        random=torch.Generator(device).manual_seed(seed),
    )
    nothing = torch.zeros(spec.num_classes, device=device)
    count = settings.batches if source.lasting else settings.kept
    made = [inversion.synthesize(None, nothing)[0] for _ in range(count)]
    return torch.cat([to_uint8(images) for images in made[-settings.kept :]])


def probe_set(task: Task, device: torch.device) -> ProbeSet:
    """The task's probe set on `device`; made once, whatever the budget."""
    return task.once(("probe set", device), lambda: ProbeSet(task, device))
