"""How much work goes into a task's probe set, and by which ways of inversion it is made. Ours."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ssdkd_env.distillation.methods import METHODS, Method
from ssdkd_env.errors import InvalidInputError, check_choice


@dataclass(frozen=True)
class ProbeSource:
    """A way of inverting the teacher into probe images: by statistics and drawn classes alone, without adversary.

    Attributes:
        method: its own, so that no preset changes the rewards.
        steps: optimiser steps a batch, as a multiple of `ProbeSettings.steps`.
        lasting: a batch depends on those before it, so that only late ones are kept; otherwise only those are made.
    """

    method: Method
    steps: int = 1
    lasting: bool = False


PROBE_SOURCES = {
    "meta_generator": ProbeSource(
        Method(
            name="probe",
            source="Ours: the meta-generator of Fast (Fang et al. 2022) without adversary and without φ.",
            generator_lr=4e-3,
            latent_lr=1e-2,
            adversarial_weight=0.0,
        ),
        lasting=True,
    ),
    "noisy_labels": ProbeSource(
        replace(METHODS["nayer"], adversarial_weight=0.0, generator_life=0, noisy_layer_std=0.0), steps=2
    ),
    "pixels": ProbeSource(replace(METHODS["deepinversion"], adversarial_weight=0.0), steps=15),
}


@dataclass(frozen=True)
class ProbeSettings:
    """How much work goes into a probe set.

    Attributes:
        sources: names of `PROBE_SOURCES`, joined by `+`. Students that differ little are told apart better by images
            of several kinds, each of which sees another part of what the teacher knows.
        generators: of each source, each begun from scratch, so that the images differ more.
        batches: batches that each generator is trained on, where it lasts.
        kept: the last of them, which make the probe set.
        batch_size: images a batch.
        steps: optimiser steps a batch.
    """

    sources: str = "meta_generator"
    generators: int = 4
    batches: int = 12
    kept: int = 2
    batch_size: int = 64
    steps: int = 20

    def __post_init__(self) -> None:
        sources = self.sources.split("+")
        for source in sources:
            check_choice("probe['sources']", source, PROBE_SOURCES)
        if len(set(sources)) < len(sources):
            raise InvalidInputError(f"probe['sources']={self.sources!r} names one twice; name each once, as in 'a+b'")
        for setting in fields(self)[1:]:
            if getattr(self, setting.name) < 1:
                raise InvalidInputError(
                    f"probe[{setting.name!r}]={getattr(self, setting.name)}: expected a whole number of at least 1"
                )
        if self.kept > self.batches:
            raise InvalidInputError(f"probe['kept']={self.kept}: only {self.batches} batches are made; keep fewer")
