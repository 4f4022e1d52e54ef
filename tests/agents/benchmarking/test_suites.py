"""Suites: what each compares, and that its entries can be played."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episode, validate
from ssdkd_agents.benchmarking.suites import (
    ABLATION_SUITE,
    CIFAR_CPU,
    CIFAR_CPU_PARTS_SUITE,
    CIFAR_CPU_SUITE,
    DEFAULT_ENV,
    METHODS_SUITE,
    REAL_VS_SYNTHETIC_SUITE,
    SCALES,
    SUITES,
    Entry,
    find_suite,
    grid,
    merge_env_kwargs,
    scale_entries,
)
from ssdkd_agents.environments import make_env

from ssdkd_env.distillation.methods import METHODS, make_method
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.settings import with_overrides
from ssdkd_env.tasks.cifar import CIFAR10

#: A run of milliseconds; the capacity of the buffer is left to the entries.
BUDGET = {
    "rounds": 1,
    "warmup_rounds": 1,
    "candidates": 50,
    "inversion_steps": 1,
    "student_steps": 1,
    "batch_size": 8,
}


def config(entry: Entry, **env_kwargs: Any) -> EpisodeConfig:
    return entry.config(DEFAULT_ENV, 1, {"budget": BUDGET} | env_kwargs)


def labelled(entries: tuple[Entry, ...]) -> dict[str, Entry]:
    return {entry.label: entry for entry in entries}


# --- entries ---


def test_entry_becomes_the_config_of_an_episode() -> None:
    entry = Entry("label", "fast5", {"gamma": 2.0}, "uniform", {"buffer_scale": 0.1, "budget": {"warmup_rounds": 7}})
    env_kwargs = {"reward": "probe_discrepancy", "budget": {"rounds": 3, "warmup_rounds": 1}}
    assert entry.config("SSDKD/Digits-v2", 5, env_kwargs) == EpisodeConfig(
        "SSDKD/Digits-v2",
        "uniform",
        5,
        {
            "reward": "probe_discrepancy",
            "budget": {"rounds": 3, "warmup_rounds": 7},
            "buffer_scale": 0.1,
            "method": "fast5",
            "method_options": {"gamma": 2.0},
        },
    )


def test_entrys_own_options_prevail_over_the_benchmarks() -> None:
    made = Entry("x", method_options={"gamma": 2.0}).config(
        "id", 0, {"method_options": {"gamma": 1.0, "temperature": 4.0}}
    )
    assert made.env_kwargs["method_options"] == {"gamma": 2.0, "temperature": 4.0}
    assert "method_options" not in Entry("x").config("id", 0, {}).env_kwargs


def test_merging_leaves_both_as_they_were() -> None:
    first, second = {"budget": {"rounds": 1}, "a": 1}, {"budget": {"candidates": 2}, "b": 2}
    assert merge_env_kwargs(first, second) == {"budget": {"rounds": 1, "candidates": 2}, "a": 1, "b": 2}
    assert (first, second) == ({"budget": {"rounds": 1}, "a": 1}, {"budget": {"candidates": 2}, "b": 2})


# --- suites ---


@pytest.mark.parametrize("name", SUITES)
def test_entries_can_be_played_and_have_names_of_their_own(name: str) -> None:
    suite = find_suite(name)
    on_digits = suite.env_id == DEFAULT_ENV
    entries = suite.entries_for(suite.env_id, {"budget": BUDGET} if on_digits else {})
    assert len({entry.label for entry in entries}) == len(entries)
    configs = [config(entry) if on_digits else entry.config(suite.env_id, 0, {}) for entry in entries]
    assert len({json.dumps([c.sampler, c.env_kwargs], sort_keys=True) for c in configs}) == len(entries)
    if on_digits:
        validate(configs)
    else:  # everything but the teacher is there
        with pytest.raises(InvalidInputError, match="ships no teacher"):
            validate(configs)


def test_every_method_has_its_entry() -> None:
    assert sorted(entry.method for entry in METHODS_SUITE) == sorted(METHODS)
    assert {entry.sampler for entry in METHODS_SUITE} == {"own"}
    assert METHODS_SUITE[0].method == "ssdkd", "the others are compared with the first"


def test_ablation_switches_off_what_its_labels_say() -> None:
    """Read off the environments themselves: the settings of the method, the sampler's action."""
    full = make_env(DEFAULT_ENV, config(ABLATION_SUITE[0]).env_kwargs).method
    assert (full.modulate_diversity, full.modulate_difficulty, full.update) == (True, True, "partial")
    assert full.importance_normalization == "mean"
    off = {
        "SSD-KD": (True, True, "partial", "mean", "own"),
        "φ without diversity": (False, True, "partial", "mean", "own"),
        "φ without difficulty": (True, False, "partial", "mean", "own"),
        "φ off": (False, False, "partial", "mean", "own"),
        "δ off (uniform)": (True, True, "partial", "mean", "uniform"),
        "importance weights off": (True, True, "partial", "mean", "paper_unweighted"),
        "weights by maximum": (True, True, "partial", "maximum", "own"),
        "weights plain": (True, True, "partial", "plain", "own"),
        "full update": (True, True, "full", "mean", "own"),
        "all off": (False, False, "full", "mean", "uniform"),
    }
    made = {}
    for label, entry in labelled(ABLATION_SUITE).items():
        method = make_env(DEFAULT_ENV, config(entry).env_kwargs).method
        phi = (method.modulate_diversity, method.modulate_difficulty)
        made[label] = (*phi, method.update, method.importance_normalization, entry.sampler)
    assert made == off


def test_real_images_are_compared_at_the_same_share() -> None:
    entries = labelled(REAL_VS_SYNTHETIC_SUITE)
    budget = BUDGET | {"warmup_rounds": 4}  # enough to fill the buffer
    lines = {label: run_episode(config(entry, budget=budget)) for label, entry in entries.items()}
    task = make_env(DEFAULT_ENV, {}).task
    images, size = len(task.training_images()), task.spec.training_set_size
    assert {label: line["buffer_images"] for label, line in lines.items()} == {
        "SSD-KD, 10 % synthetic": round(0.1 * size),
        "uniform, 10 % synthetic": round(0.1 * size),
        "KD, 10 % real": round(0.1 * size),
        "KD, 100 % real": images,
    }
    assert [line["final"]["synthesized"] > 0 for line in lines.values()] == [True, True, False, False]


def test_suites_of_a_cpu_run_on_cifar_at_one_budget() -> None:
    assert {find_suite(name).env_id for name in ("cifar-cpu", "cifar-cpu-parts")} == {"SSDKD/CIFAR10-v2"}
    assert [(entry.method, entry.sampler) for entry in CIFAR_CPU_SUITE] == [
        ("ssdkd", "own"),
        ("ssdkd", "uniform"),
        ("fast5", "own"),
    ]
    assert [(entry.method, dict(entry.method_options)) for entry in CIFAR_CPU_PARTS_SUITE] == [
        ("fast5", {"memory": "buffer"}),
        ("ssdkd", {"memory": "pool"}),
        ("ssdkd", {"modulate_diversity": False, "modulate_difficulty": False}),
        ("ssdkd", {"importance_normalization": "maximum"}),
        ("fast10", {}),
        ("nayer", {"memory": "buffer"}),
        ("vanilla_kd", {"real_share": 0.1}),
        ("vanilla_kd", {"real_share": 1.0}),
    ]
    assert {str(entry.env_kwargs) for entry in CIFAR_CPU_SUITE + CIFAR_CPU_PARTS_SUITE} == {str(CIFAR_CPU)}
    budget = with_overrides(CIFAR10.budget, "budget", CIFAR10.budgets[CIFAR_CPU["budget"]["preset"]])
    assert budget.rounds * budget.student_steps >= 3600
    assert budget.buffer_capacity == 5000
    short = with_overrides(CIFAR10.budget, "budget", CIFAR10.budgets["cpu"])
    assert replace(budget, rounds=short.rounds) == short


def test_protocol_weighs_the_losses_of_ssdkd_and_fast_alike() -> None:
    """Their authors' for a ResNet-34; for the other teachers both change."""
    for suite, weights in (("protocol", (1.33, 0.5)), ("protocol-vgg11", (1.0, 0.5)), ("protocol-wrn40_2", (1.1, 0.4))):
        for entry in find_suite(suite).entries_for(DEFAULT_ENV, {}):
            method = make_method(entry.method, entry.method_options)
            assert (method.adversarial_weight, method.one_hot_weight) == weights
            assert (method.bn_weight, method.statistics_momentum, method.first_layer_reset) == (10.0, 0.9, 0.6)


# --- scale ---


def test_warm_up_fills_the_buffer_at_every_scale() -> None:
    entries = scale_entries(DEFAULT_ENV, {"budget": BUDGET})
    assert [entry.env_kwargs["buffer_scale"] for entry in entries] == [*SCALES, *SCALES]
    assert [entry.sampler for entry in entries] == ["own"] * len(SCALES) + ["uniform"] * len(SCALES)
    everything = make_env(DEFAULT_ENV, {"buffer_scale": 1.0}).budget.buffer_capacity
    for entry in entries:
        capacity = make_env(DEFAULT_ENV, config(entry).env_kwargs).budget.buffer_capacity
        assert capacity == pytest.approx(entry.env_kwargs["buffer_scale"] * everything, abs=1)
        warmup = entry.env_kwargs["budget"]["warmup_rounds"]
        assert warmup * BUDGET["candidates"] >= capacity
        assert warmup == max(1, math.ceil(capacity / BUDGET["candidates"])), "and no longer than that"


def test_warm_up_is_the_default_where_that_fills_the_buffer() -> None:
    smallest = scale_entries(DEFAULT_ENV, {})[0]
    assert smallest.env_kwargs["budget"]["warmup_rounds"] == make_env(DEFAULT_ENV, {}).budget.warmup_rounds


def test_buffer_is_full_after_the_warm_up() -> None:
    entry = next(entry for entry in scale_entries(DEFAULT_ENV, {"budget": BUDGET}) if "20" in entry.label)
    line = run_episode(config(entry))
    assert line["buffer_images"] == make_env(DEFAULT_ENV, config(entry).env_kwargs).budget.buffer_capacity
    assert line["final"]["synthesized"] == BUDGET["candidates"] * (entry.env_kwargs["budget"]["warmup_rounds"] + 1)


@pytest.mark.parametrize("env_kwargs", [{"buffer_scale": 0.1}, {"budget": {"buffer_capacity": 100}}], ids=str)
def test_scale_is_not_fixed_from_outside(env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="leave out buffer_scale and budget buffer_capacity"):
        scale_entries(DEFAULT_ENV, env_kwargs)


# --- grids and refusals ---


def test_grid_is_every_method_with_every_sampler() -> None:
    assert [(e.label, e.method, e.sampler) for e in grid(["ssdkd", "fast5"], ["own", "uniform"])] == [
        ("ssdkd", "ssdkd", "own"),
        ("ssdkd, uniform", "ssdkd", "uniform"),
        ("fast5", "fast5", "own"),
        ("fast5, uniform", "fast5", "uniform"),
    ]
    assert grid(["dfq"], ()) == (Entry("dfq", "dfq"),)
    assert grid((), ["paper"]) == (Entry("ssdkd, paper", "ssdkd", sampler="paper", group="paper"),)


def test_run_folder_stands_for_its_last_checkpoint(tmp_path: Path) -> None:
    """So that a training which goes on does not change what a benchmark compares."""
    checkpoints = tmp_path / "ppo" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for steps in (90, 1000):
        (checkpoints / f"{steps}.safetensors").touch()
    (entry,) = grid((), [str(tmp_path / "ppo")])
    assert entry.sampler == str(checkpoints / "1000.safetensors")
    assert entry.label == f"ssdkd, {tmp_path / 'ppo'}"


def test_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="suite='nope' is unknown; choose one of: ablation, cifar-cpu, cifar"):
        find_suite("nope")
    with pytest.raises(InvalidInputError, match="methods: 'dfq' is given twice"):
        grid(["dfq", "ssdkd", "dfq"], ())
    with pytest.raises(InvalidInputError, match="samplers: 'own' is given twice"):
        grid((), ["own", "own"])
    with pytest.raises(InvalidInputError, match="is no run"):
        grid((), [str(tmp_path)])
