"""Every method as a preset of the one inversion engine: a row of a table, not a class each.

What a public implementation does that a preset does not is said in the preset's `source`. Common to all: augmentation
on tensors, the task's generator, latent size and student optimiser, and the number of student minibatches a round.
A batch is what the last inversion step left, where some public code keeps the step of the lowest loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ssdkd_env.distillation.losses import ADVERSARIAL_DISTANCES
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.priority import IMPORTANCE_NORMALIZATIONS
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.registry import Registry
from ssdkd_env.settings import with_overrides

#: What inversion optimises.
VARIABLES = {
    "meta_generator": "a clone of the generator and the batch's latents, then a first-order MAML step (Fast-meta)",
    "generator_and_latents": "the generator, which is kept, and the batch's latents",
    "fresh_generator": "a generator that is initialised anew for each batch, and the batch's latents",
    "generator_and_noisy_labels": "the generator and a noisy layer on label embeddings, anew for each batch (NAYER)",
    "generator": "the generator alone, on latents drawn anew in each step",
    "pixels": "the images themselves",
    "nothing": "nothing: the images are real",
}
#: Where the student's images come from.
MEMORIES = {
    "buffer": "a buffer of the budget's fixed capacity",
    "pool": "all that was synthesised, up to `pool_capacity`",
    "stream": "no memory: each group of minibatches is drawn fresh from the generator",
    "real": "real training images, a share `real_share` of them",
}
#: How the memory takes new images.
UPDATES = {
    "partial": "residents and candidates compete for the places under the sampling plan",
    "full": "every candidate enters, and the oldest residents leave",
}

#: Numbers that may be 0 and more, but for the weights.
_NOT_NEGATIVE = ("gamma", "temperature", "steps", "student_steps_per_batch", "generator_life", "noisy_layer_std")
#: Settings of a method that say what becomes of the images, or happens between the rounds of a run, or nothing.
_NOT_OF_INVERSION = frozenset(
    {
        "name",
        "source",
        "generator_life",
        "memory",
        "pool_capacity",
        "update",
        "student_steps_per_batch",
        "prioritized",
        "importance_normalization",
        "distance",
        "temperature",
        "real_share",
    }
)


@dataclass(frozen=True)
class Method:
    """Settings of inversion and distillation that belong to a method rather than to a task.

    Attributes:
        name: key in `METHODS`.
        source: where the settings come from, and what deviates.
        variables: what inversion optimises; a key of `VARIABLES`.
        steps: optimiser steps a batch; 0 takes the budget's `inversion_steps`.
        generator_lr: Adam learning rate of the (cloned) generator.
        latent_lr: Adam learning rate of what belongs to the batch alone: latents, noisy layer or pixels.
        first_layer_reset: share of the rounds after which the generator's first layer is initialised anew, once;
            0 never.
        generator_life: rounds after which the whole generator is initialised anew, counted from the end of the
            warm-up to both sides; 0 never.
        noisy_layer_std: deviation of the noisy layer's normal weights at the start of a batch, with biases of 0; 0
            starts it uniform, as `nn.Linear`.
        augment: shift and mirror the images that the teacher sees in inversion.
        warm_up: fill the memory with `warmup_rounds` batches made without adversary; otherwise with one.
        bn_weight: λ_bn of the BatchNorm-statistics loss. A teacher without BatchNorm gets the image priors instead.
        statistics_momentum: share of earlier rounds in the statistics that `bn_weight` matches.
        one_hot_weight: λ_oh of the one-hot loss.
        drawn_targets: the one-hot loss wants a class drawn for each image; otherwise the teacher's arg-max.
        modulate_diversity, modulate_difficulty: multiply the one-hot loss by these terms of φ(x).
        gamma: γ of φ's difficulty term.
        focal: in φ, p_T is the teacher's probability of the target class, as in the focal loss; otherwise of the class
            that it predicts.
        adversarial_weight: λ_adv of the adversarial loss.
        adversarial_distance: what it maximises; one of `losses.ADVERSARIAL_DISTANCES`.
        masked: restrict it to images on which teacher and student agree.
        balance_weight: of the class balance of a batch.
        activation_weight: of the size of the teacher's last features.
        contrastive_weight: of the contrastive loss.
        image_priors: use the image priors whatever the teacher.
        tv_weight, l2_weight: total variation and squared norm.
        memory: where the student's images come from; a key of `MEMORIES`.
        pool_capacity: most images of memory `"pool"`; the oldest leave.
        update: how the memory takes new images; a key of `UPDATES`.
        student_steps_per_batch: student minibatches for one batch of synthesis; 0 is all of the round's.
        prioritized: the method's own sampling is the paper's priority sampling; otherwise uniform.
        importance_normalization: what importance weights are divided by; a key of
            `priority.IMPORTANCE_NORMALIZATIONS`.
        distance: what the student minimises: `"kl"` or `"l1"`.
        temperature: T of the distillation loss; 0 takes the task's.
        real_share: share of the task's `training_set_size` in real images, as far as there are so many, for memory
            `"real"`; so a buffer's scale and a share of real images mean the same number.
    """

    name: str
    source: str
    variables: str = "meta_generator"
    steps: int = 0
    generator_lr: float = 2e-3
    latent_lr: float = 1e-2
    first_layer_reset: float = 0.0
    generator_life: int = 0
    noisy_layer_std: float = 0.0
    augment: bool = True
    warm_up: bool = True
    bn_weight: float = 1.0
    statistics_momentum: float = 0.0
    one_hot_weight: float = 1.0
    drawn_targets: bool = True
    modulate_diversity: bool = False
    modulate_difficulty: bool = False
    gamma: float = 1.0
    focal: bool = False
    adversarial_weight: float = 1.0
    adversarial_distance: str = "kl"
    masked: bool = True
    balance_weight: float = 0.0
    activation_weight: float = 0.0
    contrastive_weight: float = 0.0
    image_priors: bool = False
    tv_weight: float = 0.1
    l2_weight: float = 0.01
    memory: str = "pool"
    pool_capacity: int = 50_000
    update: str = "full"
    student_steps_per_batch: int = 0
    prioritized: bool = False
    importance_normalization: str = "mean"
    distance: str = "kl"
    temperature: float = 0.0
    real_share: float = 1.0

    def __post_init__(self) -> None:
        self._check_values()
        self._check_combinations()

    def _check_values(self) -> None:
        choices: dict[str, Iterable[str]] = {
            "variables": VARIABLES,
            "memory": MEMORIES,
            "update": UPDATES,
            "adversarial_distance": ADVERSARIAL_DISTANCES,
            "distance": ("kl", "l1"),
            "importance_normalization": IMPORTANCE_NORMALIZATIONS,
        }
        for name, known in choices.items():
            check_choice(f"method_options[{name!r}]", getattr(self, name), known)
        weights = (name for name in self.__dataclass_fields__ if name.endswith("_weight"))
        limits: dict[str, tuple[Callable[[float], bool], Iterable[str]]] = {
            "a number above 0": (lambda x: x > 0, ("generator_lr", "latent_lr", "pool_capacity")),
            "a number ≥ 0": (lambda x: x >= 0, (*_NOT_NEGATIVE, *weights)),
            "a number in [0, 1)": (lambda x: 0 <= x < 1, ("statistics_momentum", "first_layer_reset")),
            "a number in (0, 1]": (lambda x: 0 < x <= 1, ("real_share",)),
        }
        for expected, (holds, names) in limits.items():
            for name in names:
                if not holds(getattr(self, name)):
                    raise InvalidInputError(f"method_options[{name!r}]={getattr(self, name)}: expected {expected}")

    def _check_combinations(self) -> None:
        if (self.memory == "real") != (self.variables == "nothing"):
            raise InvalidInputError(
                "method_options: memory='real' and variables='nothing' go together; take method 'vanilla_kd' for them"
            )
        if self.memory == "stream" and self.variables != "generator":
            raise InvalidInputError(
                "method_options['memory']='stream' needs variables='generator', which can draw fresh images at any "
                "time; choose 'buffer' or 'pool'"
            )
        if self.memory == "stream" and self.update != "full":
            raise InvalidInputError(
                "method_options['update']='partial' would keep images in memory='stream'; choose memory='buffer' for it"
            )
        teaching = ["bn_weight", "one_hot_weight", "balance_weight", "activation_weight", "contrastive_weight"]
        if not self.warm_up:
            teaching.append("adversarial_weight")
        if self.variables != "nothing" and not any(getattr(self, name) for name in teaching):
            raise InvalidInputError(
                "method_options: nothing is left to minimise in inversion; give a number above 0 to one of "
                + ", ".join(teaching)
            )

    @property
    def inversion_settings(self) -> dict[str, Any]:
        """The settings that images depend on which are made without a student and without rounds."""
        settings = {name: value for name, value in asdict(self).items() if name not in _NOT_OF_INVERSION}
        if not self.noisy_layer_std:
            del settings["noisy_layer_std"]  # it came later: probe sets from before keep their name
        return settings

    @property
    def own_plan(self) -> SamplingPlan:
        """The sampling that the method's authors use."""
        return SamplingPlan() if self.prioritized else SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0)


_FAST = Method(
    name="fast",
    source="Fast (Fang et al. 2022), its constants for ResNet-34 teachers (adversarial 1.33, one-hot 0.5; for VGG-11 "
    "the authors take 1.0 and 0.5, for WRN-40-2 1.1 and 0.4). The first layer's reset falls 120 of 200 rounds in.",
    bn_weight=10.0,
    statistics_momentum=0.9,
    one_hot_weight=0.5,
    adversarial_weight=1.33,
    first_layer_reset=0.6,
)


def _generative(name: str, source: str, **settings: Any) -> Method:
    """A method that trains a generator in turns with the student, which sees nothing but fresh images."""
    source += " The student's minibatches are drawn with replacement from the fresh images of each turn."
    common: dict[str, Any] = {
        "variables": "generator",
        "steps": 1,
        "generator_lr": 1e-3,
        "augment": False,
        "warm_up": False,
        "bn_weight": 0.0,
        "one_hot_weight": 0.0,
        "adversarial_weight": 0.0,
        "masked": False,
        "memory": "stream",
        "student_steps_per_batch": 5,
    }
    return Method(name=name, source=source, **(common | settings))


def _fast(steps: int, generator_lr: float, latent_lr: float) -> list[Method]:
    """Fast with k inner steps: with the meta-generator, and with the generator plainly kept."""
    settings: dict[str, Any] = {"steps": steps, "generator_lr": generator_lr, "latent_lr": latent_lr}
    return [
        replace(_FAST, name=f"fast{steps}", **settings),
        replace(_FAST, name=f"fast{steps}_plain", variables="generator_and_latents", **settings),
    ]


_TABLE = (
    replace(
        _FAST,
        name="ssdkd",
        source="SSD-KD (CVPR 2024, arXiv 2406.07876), reconstructed; inversion loop from Fast (Fang et al. 2022, "
        "Fast-meta). The paper's loss weights and learning rates are not known to us: these are Fast-5's for ResNet-34 "
        "teachers on CIFAR. A task may have its own, as digits has.",
        modulate_diversity=True,
        modulate_difficulty=True,
        generator_lr=3e-3,
        memory="buffer",
        update="partial",
        prioritized=True,
    ),
    *_fast(2, 5e-3, 1.5e-2),
    *_fast(5, 3e-3, 1e-2),
    *_fast(10, 2e-3, 1e-2),
    Method(
        name="cmi",
        source="CMI (Fang et al. 2021): 200 steps a batch. The contrastive views are the engine's augmentation and the "
        "image as it is, where the authors take a resized crop; the latents' learning rate is ours.",
        variables="fresh_generator",
        steps=200,
        generator_lr=1e-3,
        adversarial_weight=0.5,
        contrastive_weight=0.8,
    ),
    Method(
        name="deepinversion",
        source="Adaptive DeepInversion (Yin et al. 2020): 1,000 steps of Adam a batch. The scale of the priors is "
        "ours, because ours are means over pixels in [0, 1] where theirs are sums over network inputs.",
        variables="pixels",
        steps=1000,
        latent_lr=0.1,
        bn_weight=10.0,
        adversarial_distance="js",
        masked=False,
        image_priors=True,
        tv_weight=0.01,
        l2_weight=0.001,
    ),
    _generative(
        name="dafl",
        source="DAFL (Chen et al. 2019); one generator step for five student steps.",
        one_hot_weight=1.0,
        drawn_targets=False,
        balance_weight=20.0,
        activation_weight=1e-3,
    ),
    _generative(
        name="zskt",
        source="ZSKT (Micaelli and Storkey 2019); one generator step for five student steps where the authors take "
        "ten, and without their attention transfer, which needs networks of one family.",
        adversarial_weight=1.0,
        temperature=1.0,
    ),
    _generative(
        name="dfad",
        source="DFAD (Fang et al. 2019), in its form for classification; where each pixel has an answer "
        "adversarial_distance='log_l1'. One generator step for five student steps.",
        adversarial_weight=1.0,
        adversarial_distance="l1",
        distance="l1",
    ),
    _generative(
        name="dfq",
        source="DFQ (Choi et al. 2020), its distillation part without quantisation; one generator step for ten student "
        "steps.",
        bn_weight=1.0,
        one_hot_weight=1.0,
        drawn_targets=False,
        adversarial_weight=1.0,
        balance_weight=20.0,
        student_steps_per_batch=10,
    ),
    Method(
        name="nayer",
        source="NAYER (Tran et al. 2024) with a learned embedding of the label in place of a text encoder's. The steps "
        "are the authors' on CIFAR-100; their generator lives for ten epochs, of two batches each, and of ten in the "
        "warm-up, where ours does not live longer.",
        variables="generator_and_noisy_labels",
        steps=40,
        generator_lr=4e-3,
        latent_lr=4e-3,
        generator_life=20,
        noisy_layer_std=1.0,
        bn_weight=10.0,
        statistics_momentum=0.9,
        one_hot_weight=0.5,
        adversarial_weight=1.33,
    ),
    Method(
        name="vanilla_kd",
        source="Hinton et al. 2015 on real training images: not data-free, the upper reference.",
        variables="nothing",
        warm_up=False,
        bn_weight=0.0,
        one_hot_weight=0.0,
        adversarial_weight=0.0,
        memory="real",
    ),
)

METHODS: Registry[Method] = Registry("method", Method, {method.name: method for method in _TABLE})


def make_method(
    name: str,
    options: Mapping[str, Any] | None = None,
    task_settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Method:
    """Look a preset up by name and replace some of its settings.

    Args:
        name: key of `METHODS`, or import path of a `Method`.
        options: the user's settings; they prevail.
        task_settings: a task's own settings of methods, by name; see `TaskSpec.methods`.

    Raises:
        InvalidInputError: when the name or a setting is unknown, or a value has the wrong type.
    """
    method = METHODS.find(name)
    own = (task_settings or {}).get(method.name)
    return with_overrides(with_overrides(method, f"methods[{method.name!r}]", own), "method_options", options)


#: Settings of methods where each pixel has an answer: what DFAD's authors do then.
_OF_MAPS: Mapping[str, Mapping[str, Any]] = {"dfad": {"adversarial_distance": "log_l1"}}


def of_maps(settings: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """A dense task's own settings of methods, by name, with those of all such tasks where it has none."""
    return {**settings, **{name: {**own, **settings.get(name, {})} for name, own in _OF_MAPS.items()}}
