"""Every method as a preset of the one inversion engine: a row of a table, not a class each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.settings import with_overrides


@dataclass(frozen=True)
class Method:
    """Settings of inversion and distillation that belong to a method rather than to a task.

    Attributes:
        name: key in `METHODS`.
        source: where the settings come from, and what deviates.
        bn_weight: λ_bn of the BatchNorm-statistics loss.
        one_hot_weight: λ_oh of the one-hot loss.
        adversarial_weight: λ_adv of the adversarial loss.
        masked: restrict the adversarial loss to images on which teacher and student agree.
        modulated: multiply the one-hot loss by φ(x).
        gamma: γ of φ's difficulty term.
        statistics_momentum: share of earlier rounds in the statistics that `bn_weight` matches.
        meta: inner steps on a clone of the generator, then a first-order MAML step (Fast-meta); otherwise the
            generator itself is trained on.
        generator_lr: Adam learning rate of the (cloned) generator.
        latent_lr: Adam learning rate of the latent vectors.
        tv_weight, l2_weight: image priors, used only in place of statistics for a teacher without BatchNorm.
        temperature: T of the distillation loss.
    """

    name: str
    source: str
    bn_weight: float = 1.0
    one_hot_weight: float = 1.0
    adversarial_weight: float = 1.0
    masked: bool = True
    modulated: bool = False
    gamma: float = 1.0
    statistics_momentum: float = 0.0
    meta: bool = True
    generator_lr: float = 2e-3
    latent_lr: float = 1e-2
    tv_weight: float = 0.1
    l2_weight: float = 0.01
    temperature: float = 20.0

    def __post_init__(self) -> None:
        for name in ("generator_lr", "latent_lr", "temperature"):
            if getattr(self, name) <= 0:
                raise InvalidInputError(f"method_options[{name!r}]={getattr(self, name)}: expected a number above 0")
        for name in ("bn_weight", "one_hot_weight", "adversarial_weight", "gamma", "tv_weight", "l2_weight"):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"method_options[{name!r}]={getattr(self, name)}: expected a number ≥ 0")
        if not 0 <= self.statistics_momentum < 1:
            raise InvalidInputError(
                f"method_options['statistics_momentum']={self.statistics_momentum}: expected a number in [0, 1)"
            )


METHODS: dict[str, Method] = {
    "ssdkd": Method(
        name="ssdkd",
        source="SSD-KD (CVPR 2024, arXiv 2406.07876), reconstructed; inversion loop and its constants from Fast "
        "(Fang et al. 2022, Fast-meta). Loss weights and temperature chosen by us on digits.",
        modulated=True,
        adversarial_weight=1.0,
        generator_lr=4e-3,
        temperature=8.0,
    ),
}


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """Look a preset up by name and replace some of its settings.

    Raises:
        InvalidInputError: when the name or a setting is unknown, or a value has the wrong type.
    """
    check_choice("method", name, METHODS)
    return with_overrides(METHODS[name], "method_options", options)
