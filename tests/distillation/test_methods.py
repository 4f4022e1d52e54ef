"""The table of methods: the published constants, and which settings are refused."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest

from ssdkd_env.distillation.methods import METHODS, Method, make_method
from ssdkd_env.errors import InvalidInputError

FAST: dict[str, Any] = {
    "bn_weight": 10.0,
    "statistics_momentum": 0.9,
    "one_hot_weight": 0.5,
    "drawn_targets": True,
    "adversarial_weight": 1.33,
    "adversarial_distance": "kl",
    "masked": True,
    "warm_up": True,
    "first_layer_reset": 120 / 200,
    "augment": True,
    "memory": "pool",
    "update": "full",
    "student_steps_per_batch": 0,
    "prioritized": False,
}
GENERATIVE: dict[str, Any] = {
    "variables": "generator",
    "steps": 1,
    "generator_lr": 1e-3,
    "augment": False,
    "warm_up": False,
    "masked": False,
    "memory": "stream",
    "student_steps_per_batch": 5,
    "contrastive_weight": 0.0,
    "first_layer_reset": 0.0,
    "modulate_diversity": False,
    "modulate_difficulty": False,
    "prioritized": False,
}
#: Published settings, copied by hand from the authors' papers and code.
PUBLISHED: dict[str, dict[str, Any]] = {
    "ssdkd": {
        "variables": "meta_generator",
        "steps": 0,
        "modulate_diversity": True,
        "modulate_difficulty": True,
        "masked": True,
        "memory": "buffer",
        "update": "partial",
        "warm_up": True,
        "prioritized": True,
    },
    "fast2": FAST | {"variables": "meta_generator", "steps": 2, "generator_lr": 5e-3, "latent_lr": 1.5e-2},
    "fast5": FAST | {"variables": "meta_generator", "steps": 5, "generator_lr": 3e-3, "latent_lr": 1e-2},
    "fast10": FAST | {"variables": "meta_generator", "steps": 10, "generator_lr": 2e-3, "latent_lr": 1e-2},
    "cmi": {
        "variables": "fresh_generator",
        "steps": 200,
        "bn_weight": 1.0,
        "one_hot_weight": 1.0,
        "adversarial_weight": 0.5,
        "masked": True,
        "contrastive_weight": 0.8,
        "statistics_momentum": 0.0,
        "memory": "pool",
    },
    "deepinversion": {
        "variables": "pixels",
        "steps": 1000,
        "latent_lr": 0.1,
        "bn_weight": 10.0,
        "one_hot_weight": 1.0,
        "adversarial_weight": 1.0,
        "adversarial_distance": "js",
        "masked": False,
        "image_priors": True,
        "memory": "pool",
    },
    "dafl": GENERATIVE
    | {
        "bn_weight": 0.0,
        "one_hot_weight": 1.0,
        "drawn_targets": False,
        "adversarial_weight": 0.0,
        "balance_weight": 20.0,
        "activation_weight": 1e-3,
        "distance": "kl",
    },
    "zskt": GENERATIVE
    | {
        "bn_weight": 0.0,
        "one_hot_weight": 0.0,
        "adversarial_weight": 1.0,
        "adversarial_distance": "kl",
        "balance_weight": 0.0,
        "activation_weight": 0.0,
        "temperature": 1.0,
        "distance": "kl",
    },
    "dfad": GENERATIVE
    | {
        "bn_weight": 0.0,
        "one_hot_weight": 0.0,
        "adversarial_weight": 1.0,
        "adversarial_distance": "l1",
        "balance_weight": 0.0,
        "activation_weight": 0.0,
        "distance": "l1",
    },
    "dfq": GENERATIVE
    | {
        "bn_weight": 1.0,
        "one_hot_weight": 1.0,
        "drawn_targets": False,
        "adversarial_weight": 1.0,
        "adversarial_distance": "kl",
        "balance_weight": 20.0,
        "activation_weight": 0.0,
        "student_steps_per_batch": 10,
    },
    "nayer": {
        "variables": "generator_and_noisy_labels",
        "steps": 40,
        "generator_life": 20,
        "noisy_layer_std": 1.0,
        "bn_weight": 10.0,
        "one_hot_weight": 0.5,
        "adversarial_weight": 1.33,
        "masked": True,
        "memory": "pool",
    },
    "vanilla_kd": {
        "variables": "nothing",
        "memory": "real",
        "distance": "kl",
        "temperature": 0.0,
        "real_share": 1.0,
        "warm_up": False,
    },
}
for _steps in (2, 5, 10):
    PUBLISHED[f"fast{_steps}_plain"] = PUBLISHED[f"fast{_steps}"] | {"variables": "generator_and_latents"}


def refused(match: str, **settings: Any) -> None:
    """The settings are refused, through the user's argument and where the dataclass is built."""
    with pytest.raises(InvalidInputError, match=match) as error:
        replace(METHODS["ssdkd"], **settings)
    assert "\n" not in str(error.value)
    with pytest.raises(InvalidInputError, match=match):
        make_method("ssdkd", settings)


# --- the table ---


def test_every_method_of_the_field_is_there() -> None:
    assert set(METHODS) == set(PUBLISHED)
    assert all(method.name == name for name, method in METHODS.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_carry_the_published_constants(name: str) -> None:
    settings = asdict(METHODS[name])
    assert {key: settings[key] for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_say_where_they_come_from(name: str) -> None:
    assert re.search(r"\b(19|20)\d\d\b", METHODS[name].source), "no year"
    assert re.search(r"[A-Z]\w+ et al\.|[A-Z]\w+ and [A-Z]\w+", METHODS[name].source), "no authors"


def test_reconstructed_and_own_parts_are_called_so() -> None:
    assert "reconstructed" in METHODS["ssdkd"].source
    assert "not known to us: these are Fast-5's" in METHODS["ssdkd"].source
    assert "not data-free" in METHODS["vanilla_kd"].source


def test_only_ssdkd_keeps_a_small_buffer_and_modulates() -> None:
    for name, method in METHODS.items():
        own = name == "ssdkd"
        assert (method.memory == "buffer") == (method.update == "partial") == own
        assert (method.modulate_diversity, method.modulate_difficulty) == (own, own)


def test_a_preset_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        METHODS["ssdkd"].gamma = 3.0  # type: ignore[misc]


# --- the method's own sampling ---


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_own_plan_is_priority_sampling_or_uniform(name: str) -> None:
    plan = METHODS[name].own_plan
    exponents = (
        plan.discrepancy_exponent,
        plan.diversity_exponent,
        plan.difficulty_exponent,
        plan.importance_exponent,
    )
    assert exponents == ((1.0, 0.0, 0.0, 0.4) if name == "ssdkd" else (0.0, 0.0, 0.0, 0.0))
    assert (plan.replaced_share, plan.logits) == (1.0, None)


def test_the_own_plan_follows_the_setting() -> None:
    uniform = make_method("ssdkd", {"prioritized": False}).own_plan
    assert (uniform.discrepancy_exponent, uniform.importance_exponent) == (0.0, 0.0)
    paper = make_method("fast5", {"prioritized": True}).own_plan
    assert (paper.discrepancy_exponent, paper.importance_exponent) == (1.0, 0.4)


# --- settings of the user's own ---


def test_options_replace_settings_and_leave_the_table() -> None:
    before = METHODS["dafl"]
    method = make_method("dafl", {"balance_weight": 5, "steps": 3, "memory": "pool"})
    assert (method.balance_weight, method.steps, method.memory) == (5.0, 3, "pool")
    assert asdict(method) == asdict(before) | {"balance_weight": 5.0, "steps": 3, "memory": "pool"}
    assert METHODS["dafl"] is before
    assert before.balance_weight == 20.0


@pytest.mark.parametrize("options", [None, {}])
def test_without_options_a_preset_is_itself(options: dict[str, Any] | None) -> None:
    assert make_method("cmi", options) is METHODS["cmi"]


@pytest.mark.parametrize("name", ["fast", "SSDKD", ""])
def test_an_unknown_method_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"method='{name}' is unknown.*dafl.*ssdkd"):
        make_method(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lambda_bn", 1.0),
        ("gamma", "1"),
        ("gamma", math.nan),
        ("gamma", math.inf),
        ("steps", 2.5),
        ("masked", 1),
        ("memory", None),
        ("bn_weight", True),
    ],
)
def test_unknown_settings_and_wrong_types_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=rf"method_options.*'{name}'") as error:
        make_method("ssdkd", {name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["variables", "memory", "update", "adversarial_distance", "distance"])
def test_a_choice_outside_the_list_is_refused(name: str) -> None:
    refused(rf"method_options\['{name}'\]='other' is unknown; choose one of: \w+, \w+", **{name: "other"})


def test_a_student_does_not_minimise_jensen_shannon() -> None:
    refused(r"method_options\['distance'\]='js' is unknown; choose one of: kl, l1", distance="js")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("generator_lr", (0.0, -1e-3), "above 0"),
        ("latent_lr", (0.0, -1e-3), "above 0"),
        ("pool_capacity", (0, -1), "above 0"),
        ("gamma", (-0.1,), "≥ 0"),
        ("temperature", (-1.0,), "≥ 0"),
        ("steps", (-1,), "≥ 0"),
        ("student_steps_per_batch", (-1,), "≥ 0"),
        *(
            (f"{loss}_weight", (-0.5,), "≥ 0")
            for loss in ("bn", "one_hot", "adversarial", "balance", "activation", "contrastive", "tv", "l2")
        ),
        ("statistics_momentum", (-0.1, 1.0), r"in \[0, 1\)"),
        ("first_layer_reset", (-0.1, 1.0), r"in \[0, 1\)"),
        ("real_share", (0.0, -0.1, 1.1), r"in \(0, 1\]"),
    ],
)
def test_a_number_outside_its_range_is_refused(name: str, values: tuple[float, ...], expected: str) -> None:
    for value in values:
        refused(rf"method_options\['{name}'\]={re.escape(str(value))}: expected a number {expected}", **{name: value})


@pytest.mark.parametrize("name", [n for n, v in asdict(METHODS["ssdkd"]).items() if type(v) is float])
def test_nan_is_refused_everywhere(name: str) -> None:
    refused(name, **{name: math.nan})


def test_the_ends_of_the_ranges_are_allowed() -> None:
    for name, value in (("gamma", 0.0), ("statistics_momentum", 0.999), ("first_layer_reset", 0.0), ("tv_weight", 0.0)):
        assert getattr(make_method("ssdkd", {name: value}), name) == value
    assert make_method("vanilla_kd", {"real_share": 1}).real_share == 1.0
    assert make_method("fast2", {"pool_capacity": 1}).pool_capacity == 1


# --- settings that do not go together ---


@pytest.mark.parametrize("options", [{"memory": "real"}, {"variables": "nothing"}])
def test_real_images_and_nothing_to_optimise_go_together(options: dict[str, str]) -> None:
    refused("memory='real' and variables='nothing' go together.*vanilla_kd", **options)


@pytest.mark.parametrize(
    "variables",
    ["meta_generator", "generator_and_latents", "fresh_generator", "generator_and_noisy_labels", "pixels"],
)
def test_a_stream_needs_a_generator_that_draws_at_any_time(variables: str) -> None:
    refused(r"method_options\['memory'\]='stream' needs variables='generator'", memory="stream", variables=variables)
    method = make_method("dafl", {"variables": variables, "memory": "pool"})
    assert method.variables == variables


@pytest.mark.parametrize("memory", ["buffer", "pool", "stream"])
def test_a_generator_alone_serves_every_memory(memory: str) -> None:
    assert make_method("dfq", {"memory": memory}).memory == memory


NOTHING = {"bn_weight": 0.0, "one_hot_weight": 0.0}


def test_inversion_without_a_loss_is_refused() -> None:
    refused("nothing is left to minimise.*bn_weight.*one_hot_weight.*balance_weight", **NOTHING)
    with pytest.raises(InvalidInputError, match=r"nothing is left to minimise.*adversarial_weight"):
        make_method("zskt", {"adversarial_weight": 0.0})


def test_the_adversary_alone_does_not_serve_a_warm_up_without_it() -> None:
    with pytest.raises(InvalidInputError, match="nothing is left to minimise"):
        make_method("zskt", {"warm_up": True})
    assert make_method("ssdkd", NOTHING | {"warm_up": False}).adversarial_weight == 1.33


@pytest.mark.parametrize("name", ["bn_weight", "one_hot_weight", "balance_weight", "activation_weight"])
def test_one_loss_is_enough(name: str) -> None:
    method = make_method("ssdkd", NOTHING | {"adversarial_weight": 0.0} | {name: 0.5})
    assert getattr(method, name) == 0.5


def test_real_images_need_no_loss() -> None:
    method: Method = METHODS["vanilla_kd"]
    assert (method.bn_weight, method.one_hot_weight, method.adversarial_weight) == (0.0, 0.0, 0.0)
