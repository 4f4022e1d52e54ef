"""What a benchmark compares: tables of entries, by name or as a grid of methods and samplers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssdkd_agents.benchmarking.experiments import EpisodeConfig
from ssdkd_agents.environments import make_env
from ssdkd_agents.policies.places import content_of, located, sampler_file
from ssdkd_agents.policies.storage import face_of
from ssdkd_agents.samplers import SAMPLERS
from ssdkd_env.errors import InvalidInputError, check_choice

DEFAULT_ENV = "SSDKD/Digits-v2"
#: Each method's own sampling: SSD-KD's priority sampling, uniform for the others.
OWN = "own"
#: The suite of the baselines, which takes further samplers beside its own.
SAMPLERS_SUITE = "samplers"


@dataclass(frozen=True)
class Entry:
    """One row of a benchmark.

    Attributes:
        label: its name in tables and pictures.
        method: preset of the inversion engine.
        method_options: settings of the preset to replace.
        sampler: baseline by name, or path of a trained sampler.
        env_kwargs: further arguments of the environment; its `budget` is merged with the benchmark's.
        group: row of a comparison of samplers; several training runs of one algorithm share it.
    """

    label: str
    method: str = "ssdkd"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = OWN
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    def config(self, env_id: str, seed: int, env_kwargs: Mapping[str, Any]) -> EpisodeConfig:
        """The episode of this entry on one seed; `env_kwargs` are those of the whole benchmark."""
        merged = merge_env_kwargs(env_kwargs, self.env_kwargs) | {"method": self.method}
        options = {**env_kwargs.get("method_options", {}), **self.method_options}
        if options:
            merged["method_options"] = options
        return EpisodeConfig(env_id, self.sampler, seed, json.loads(json.dumps(merged)))


def merge_env_kwargs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both together; `second` prevails, and the settings of `budget` are merged one by one."""
    merged = {**first, **second}
    if "budget" in first and "budget" in second:
        merged["budget"] = {**first["budget"], **second["budget"]}
    return merged


#: Makes the entries of a suite for an environment id and the arguments of the whole benchmark.
EntryMaker = Callable[[str, Mapping[str, Any]], tuple[Entry, ...]]


@dataclass(frozen=True)
class Suite:
    """A named comparison.

    Attributes:
        about: what it shows, in one line.
        entries: its rows, or how to make them for an environment.
        env_id: the environment unless another is asked for.
    """

    about: str
    entries: tuple[Entry, ...] | EntryMaker
    env_id: str = DEFAULT_ENV

    def entries_for(self, env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[Entry, ...]:
        """The rows of the suite on this environment."""
        return self.entries if isinstance(self.entries, tuple) else self.entries(env_id, env_kwargs)


METHODS_SUITE = (
    Entry("SSD-KD", "ssdkd"),
    Entry("Fast-2", "fast2"),
    Entry("Fast-5", "fast5"),
    Entry("Fast-10", "fast10"),
    Entry("Fast-2 without meta", "fast2_plain"),
    Entry("Fast-5 without meta", "fast5_plain"),
    Entry("Fast-10 without meta", "fast10_plain"),
    Entry("CMI", "cmi"),
    Entry("DeepInversion", "deepinversion"),
    Entry("DAFL", "dafl"),
    Entry("ZSKT", "zskt"),
    Entry("DFAD", "dfad"),
    Entry("DFQ", "dfq"),
    Entry("NAYER", "nayer"),
    Entry("KD on all real images", "vanilla_kd", {"real_share": 1.0}),
)

PHI_OFF = {"modulate_diversity": False, "modulate_difficulty": False}

ABLATION_SUITE = (
    Entry("SSD-KD"),
    Entry("φ without diversity", method_options={"modulate_diversity": False}),
    Entry("φ without difficulty", method_options={"modulate_difficulty": False}),
    Entry("φ off", method_options=PHI_OFF),
    Entry("δ off (uniform)", sampler="uniform"),
    Entry("importance weights off", sampler="paper_unweighted"),
    Entry("weights by maximum", method_options={"importance_normalization": "maximum"}),
    Entry("weights plain", method_options={"importance_normalization": "plain"}),
    Entry("full update", method_options={"update": "full"}),
    Entry("all off", method_options=PHI_OFF | {"update": "full"}, sampler="uniform"),
)

#: Share of the original training set that the paper's buffer holds.
PAPER_SCALE = 0.1

REAL_VS_SYNTHETIC_SUITE = (
    Entry("SSD-KD, 10 % synthetic", env_kwargs={"buffer_scale": PAPER_SCALE}),
    Entry("uniform, 10 % synthetic", sampler="uniform", env_kwargs={"buffer_scale": PAPER_SCALE}),
    Entry("KD, 10 % real", "vanilla_kd", {"real_share": PAPER_SCALE}),
    Entry("KD, 100 % real", "vanilla_kd", {"real_share": 1.0}),
)

#: What a CPU can do on 32×32 images: small networks and budget, a probe set that takes minutes, few evaluations.
CIFAR_CPU: dict[str, Any] = {
    "budget": {"preset": "cpu-long"},
    "student_arch": "resnet8",
    "generator_arch": "generator_small",
    "probe": {"generators": 2, "batches": 20, "kept": 4, "steps": 5},
    "evaluate_every_rounds": 12,
}

CIFAR_CPU_SUITE = (
    Entry("SSD-KD", env_kwargs=CIFAR_CPU),
    Entry("SSD-KD, uniform", sampler="uniform", env_kwargs=CIFAR_CPU),
    Entry("Fast-5", "fast5", env_kwargs=CIFAR_CPU),
)

CIFAR_CPU_PARTS_SUITE = (
    Entry("Fast-5, small buffer", "fast5", {"memory": "buffer"}, env_kwargs=CIFAR_CPU),
    Entry("SSD-KD, uniform, all images kept", "ssdkd", {"memory": "pool"}, "uniform", CIFAR_CPU),
    Entry("φ off", method_options=PHI_OFF, env_kwargs=CIFAR_CPU),
    Entry("weights by maximum", method_options={"importance_normalization": "maximum"}, env_kwargs=CIFAR_CPU),
    Entry("Fast-10", "fast10", env_kwargs=CIFAR_CPU),
    Entry("NAYER, small buffer", "nayer", {"memory": "buffer"}, env_kwargs=CIFAR_CPU),
    Entry("KD, 10 % real", "vanilla_kd", {"real_share": PAPER_SCALE}, env_kwargs=CIFAR_CPU),
    Entry("KD, 100 % real", "vanilla_kd", {"real_share": 1.0}, env_kwargs=CIFAR_CPU),
)

#: A quarter of the minibatches, and no more evaluations than the last.
CIFAR_CPU_SHORT = CIFAR_CPU | {"budget": {"preset": "cpu"}, "evaluate_every_rounds": 36}


#: Teachers and budget are the task's; few evaluations.
_SCENES: dict[str, Any] = {"evaluate_every_rounds": 10}

SCENES_SUITE = (
    Entry("SSD-KD", env_kwargs=_SCENES),
    Entry("SSD-KD, uniform", sampler="uniform", env_kwargs=_SCENES),
    Entry("Fast-5", "fast5", env_kwargs=_SCENES),
    Entry("DFAD", "dfad", env_kwargs=_SCENES),
    Entry("KD, 100 % real", "vanilla_kd", {"real_share": 1.0}, env_kwargs=_SCENES),
)


def _precision(env_kwargs: Mapping[str, Any]) -> tuple[Entry, ...]:
    """SSD-KD in both precisions; the table's differences are bfloat16's loss or gain."""
    return tuple(Entry(name, env_kwargs={**env_kwargs, "precision": name}) for name in ("float32", "bfloat16"))


def generative_entries(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Methods that train a generator in turns with the student, at the budget's rounds and at four times as many."""
    rounds = make_env(env_id, dict(env_kwargs)).budget.rounds
    return tuple(
        Entry(f"{label}, {factor} × rounds", method, env_kwargs={"budget": {"rounds": rounds * factor}})
        for label, method in (("DAFL", "dafl"), ("ZSKT", "zskt"), ("DFAD", "dfad"), ("DFQ", "dfq"))
        for factor in (1, 4)
    )


def _protocol(**loss_weights: float) -> tuple[Entry, ...]:
    """SSD-KD against Fast, whose authors weigh their losses by the teacher; SSD-KD, whose loop is Fast's, alike."""
    fast = (Entry(f"Fast-{steps}", f"fast{steps}", loss_weights) for steps in (2, 5, 10))
    return (Entry("SSD-KD", method_options=loss_weights), *fast)


SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def scale_entries(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[Entry, ...]:
    """SSD-KD and its uniform baseline over `SCALES`; at each scale the warm-up is long enough to fill the buffer.

    Raises:
        InvalidInputError: when the benchmark's own arguments fix what the suite varies.
    """
    if "buffer_scale" in env_kwargs or "buffer_capacity" in env_kwargs.get("budget", {}):
        raise InvalidInputError(
            "suite='scale' varies the capacity of the buffer; leave out buffer_scale and budget buffer_capacity"
        )
    warmup = {scale: _filling_warmup(env_id, {**env_kwargs, "buffer_scale": scale}) for scale in SCALES}
    return tuple(
        Entry(
            f"{name}, {scale:.0%} scale".replace("%", " %"),
            sampler=sampler,
            env_kwargs={"buffer_scale": scale, "budget": {"warmup_rounds": warmup[scale]}},
        )
        for name, sampler in (("SSD-KD", OWN), ("uniform", "uniform"))
        for scale in SCALES
    )


def _filling_warmup(env_id: str, env_kwargs: Mapping[str, Any]) -> int:
    """Warm-up rounds that fill the buffer which the environment makes of these arguments; its default at least."""
    budget = make_env(env_id, dict(env_kwargs)).budget
    return max(budget.warmup_rounds, math.ceil(budget.buffer_capacity / budget.candidates))


def control_entries(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Every baseline of `SAMPLERS` under SSD-KD, the paper's sampler first. SSD-KD's own sampler is the paper's."""
    names = sorted((name for name in SAMPLERS if name != OWN), key=lambda name: name != "paper")
    return tuple(Entry(name, sampler=name, group=name) for name in names)


def with_face(entry: Entry, env_kwargs: Mapping[str, Any]) -> Entry:
    """The entry in an environment with the face that its sampler is used to, unless the benchmark asks for another."""
    face = {name: value for name, value in face_of(entry.sampler).items() if name not in env_kwargs}
    return replace(entry, env_kwargs={**face, **entry.env_kwargs})


SUITES = {
    "methods": Suite("every method with its own sampling, and KD on real images", METHODS_SUITE),
    "ablation": Suite("the parts of SSD-KD, one at a time (the paper's table 4)", ABLATION_SUITE),
    "real-vs-synthetic": Suite("synthetic against real images (the paper's figure 1)", REAL_VS_SYNTHETIC_SUITE),
    "scale": Suite("SSD-KD over the size of the buffer (the paper's figure 4)", scale_entries),
    "generative": Suite("adversarial generators, at the budget's rounds and at four times as many", generative_entries),
    "protocol": Suite("SSD-KD against Fast, for ResNet-34 teachers", _protocol(), "SSDKD/CIFAR10-v2"),
    "protocol-vgg11": Suite(
        "the same for VGG-11 teachers",
        _protocol(adversarial_weight=1.0, one_hot_weight=0.5),
        "SSDKD/CIFAR10-v2",
    ),
    "protocol-wrn40_2": Suite(
        "the same for WRN-40-2 teachers",
        _protocol(adversarial_weight=1.1, one_hot_weight=0.4),
        "SSDKD/CIFAR10-v2",
    ),
    SAMPLERS_SUITE: Suite("every sampler that needs no training, on SSD-KD", control_entries),
    "cifar-cpu": Suite(
        "SSD-KD, its uniform baseline and Fast-5 on CIFAR-10, as far as a CPU gets", CIFAR_CPU_SUITE, "SSDKD/CIFAR10-v2"
    ),
    "cifar-cpu-parts": Suite(
        "the same for parts of SSD-KD, dearer methods and real images", CIFAR_CPU_PARTS_SUITE, "SSDKD/CIFAR10-v2"
    ),
    "scenes": Suite("segmentation: SSD-KD, Fast, DFAD and KD on real images", SCENES_SUITE, "SSDKD/CamVid-v2"),
    "precision": Suite("SSD-KD in float32 and in bfloat16", _precision({})),
    "cifar-cpu-precision": Suite(
        "the same on CIFAR-10, a quarter as long as cifar-cpu", _precision(CIFAR_CPU_SHORT), "SSDKD/CIFAR10-v2"
    ),
}


def find_suite(name: str) -> Suite:
    """Look a suite up by name.

    Raises:
        InvalidInputError: when there is none.
    """
    return SUITES[check_choice("suite", name, SUITES)]


def grid(methods: Sequence[str], samplers: Sequence[str]) -> tuple[Entry, ...]:
    """Every method with every sampler.

    Args:
        methods: presets by name; none means SSD-KD.
        samplers: as in `sampler_runs`; none means each method's own. A run folder stands for its last checkpoint as it
            is now.

    Raises:
        InvalidInputError: when a method or sampler is given twice, or a folder holds no sampler.
    """
    _refuse_twice("methods", methods)
    return tuple(
        replace(entry, label=_grid_label(method, entry.label), method=method)
        for method in methods or ("ssdkd",)
        for entry in sampler_entries(samplers) or (Entry(OWN),)
    )


def sampler_entries(samplers: Sequence[str]) -> tuple[Entry, ...]:
    """An entry for each sampler, and for each training run of a group.

    Raises:
        InvalidInputError: as `sampler_runs`, and when a folder holds no sampler.
    """
    return tuple(
        Entry(name if name == run else f"{name}: {run}", sampler=_sampler_file(run), group=name)
        for name, runs in sampler_runs(samplers).items()
        for run in runs
    )


def sampler_runs(samplers: Sequence[str], argument: str = "samplers") -> dict[str, tuple[str, ...]]:
    """Samplers by row: `"ppo=runs/a,runs/b"` is the row ppo of two training runs, anything else a row of its own.

    Args:
        samplers: baselines by name, files or run folders of trained samplers, or groups of these.
        argument: what they were given as, for messages.

    Raises:
        InvalidInputError: when a row or a run is given twice, be it under another path, or a group is empty.
    """
    parsed = [_parse_group(sampler, argument) for sampler in samplers]
    _refuse_twice(argument, [name for name, _ in parsed])
    runs = [run for _, runs in parsed for run in runs]
    _refuse_twice(argument, runs)
    first: dict[str, str] = {}
    for run in runs:
        same = first.setdefault(content_of(run), run)
        if same != run:
            raise InvalidInputError(f"{argument}: {run!r} is the same as {same!r}; give each once")
    return dict(parsed)


def _parse_group(sampler: str, argument: str) -> tuple[str, tuple[str, ...]]:
    name, equals, members = sampler.partition("=")
    if equals and re.search(r"[\s|]", name) and "/" not in name and not Path(sampler).exists():
        raise InvalidInputError(f"{argument}: {name!r} names no group; take letters, digits, and any of _ . + - alone")
    if not equals or not re.fullmatch(r"[\w.+-]+", name) or Path(sampler).exists():
        return sampler, (sampler,)
    # Not inside brackets: a member may be given by its numbers, such as schedule:[0,0,1,1].
    runs = tuple(run for run in re.split(r",(?![^\[]*\])", members) if run)
    if not runs:
        raise InvalidInputError(f"{argument}: {sampler!r} names no run; give such as ppo=runs/ppo-0,runs/ppo-1")
    return name, runs


def _refuse_twice(argument: str, values: Sequence[str]) -> None:
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise InvalidInputError(f"{argument}: {twice[0]!r} is given twice; give each once")


def _grid_label(method: str, sampler: str) -> str:
    return method if sampler == OWN else f"{method}, {sampler}"


def _sampler_file(sampler: str) -> str:
    return located(str(sampler_file(sampler) or sampler))
