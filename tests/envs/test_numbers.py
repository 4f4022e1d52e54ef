"""NumPy's numbers serve as Python's do, truth values are none, and seeds are looked at before anything moves."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.distillation import DistillationRun, SamplingPlan, StudentSettings
from ssdkd_env.distillation.problem import Budget
from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, SMALL_PROBE, actions_of, assert_same, episode, make, steps

#: The same arguments, as NumPy's and as Python's.
ALIKE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "counts": (
        {"history": np.int64(2), "rounds_per_step": np.int32(2), "evaluate_every_rounds": np.uint8(2)},
        {"history": 2, "rounds_per_step": 2, "evaluate_every_rounds": 2},
    ),
    "budget": (
        {"budget": {"rounds": np.int64(2), "candidates": np.int16(8)}},
        {"budget": {"rounds": 2, "candidates": 8}},
    ),
    "student": (
        {"student": {"lr": np.float64(0.1), "momentum": np.float32(0.5)}},
        {"student": {"lr": 0.1, "momentum": 0.5}},
    ),
    "method": (
        {"method_options": {"gamma": np.float32(0.5), "modulate_diversity": np.bool_(False)}},
        {"method_options": {"gamma": 0.5, "modulate_diversity": False}},
    ),
    "normalisation": ({"mean": np.array([0.25]), "std": [np.float32(0.5)]}, {"mean": [0.25], "std": [0.5]}),
    "probe": ({"probe": SMALL_PROBE | {"steps": np.int64(2)}}, {}),
    "names": ({"task": np.str_("digits"), "reward": np.str_("probe_discrepancy")}, {"reward": "probe_discrepancy"}),
    "work": ({"work_scale": np.float32(0.25)}, {"work_scale": 0.25}),
}


@pytest.mark.parametrize(("numpys", "pythons"), ALIKE.values(), ids=ALIKE)
def test_arguments_may_be_numpys(numpys: dict[str, Any], pythons: dict[str, Any]) -> None:
    first, second = make(**numpys), make(**pythons)
    assert first.settings == second.settings
    json.dumps(asdict(first.settings))  # Python's throughout
    assert_same(episode(first, 3, actions_of(5)[:1]), episode(second, 3, actions_of(5)[:1]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"history": True},
        {"rounds_per_step": np.bool_(True)},
        {"evaluate_every_rounds": True},
        {"buffer_scale": True},
        {"work_scale": True},
        {"mean": [True]},
        {"std": True},
        {"budget": {"rounds": True}},
        {"student": {"lr": False}},
        {"method_options": {"gamma": True}},
        {"probe": {"steps": True}},
        {"clock": 1},
        {"clock": "no"},
    ],
    ids=str,
)
def test_truth_values_are_no_numbers_and_numbers_no_truth_values(arguments: dict[str, Any]) -> None:
    name = next(iter(arguments))
    with pytest.raises(InvalidInputError, match=name):
        SSDKDEnv(**arguments)


def test_settings_that_are_made_directly_are_looked_at_too() -> None:
    assert repr(Budget(np.int64(3), 1, 1, 1, 1, 1, 1)) == repr(Budget(3, 1, 1, 1, 1, 1, 1))  # type: ignore[arg-type]
    assert StudentSettings(lr=np.float32(0.5)).lr == 0.5  # type: ignore[arg-type]
    for numbers in ((True, 1, 1, 1, 1, 1, 1), (1.5, 1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1, 1, True)):
        with pytest.raises(InvalidInputError, match="budget"):
            Budget(*numbers)
    for number in (True, float("nan"), -1.0, "1"):
        with pytest.raises(InvalidInputError, match="student"):
            StudentSettings(lr=number)  # type: ignore[arg-type]


def test_plans_take_what_agents_have() -> None:
    plan = SamplingPlan(
        discrepancy_exponent=np.float32(0.5),  # type: ignore[arg-type]
        diversity_exponent=torch.tensor(2.0),  # type: ignore[arg-type]
        replaced_share=np.int64(1),  # type: ignore[arg-type]
        student_steps=np.int64(4),  # type: ignore[arg-type]
        reweighted=np.bool_(True),  # type: ignore[arg-type]
    )
    numbers = (plan.discrepancy_exponent, plan.diversity_exponent, plan.replaced_share, plan.student_steps)
    assert repr((*numbers, plan.reweighted)) == "(0.5, 2.0, 1, 4, True)"


@pytest.mark.parametrize(
    "numbers",
    [
        {"discrepancy_exponent": True},
        {"discrepancy_exponent": "1"},
        {"importance_exponent": None},
        {"replaced_share": np.bool_(True)},
        {"adversarial_scale": None},
        {"phi_diversity_exponent": True},
        {"student_steps": True},
        {"inversion_steps": np.float64(2.0)},
        {"reweighted": 1},
    ],
    ids=str,
)
def test_plans_of_anything_else_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"SamplingPlan.{next(iter(numbers))}="):
        SamplingPlan(**numbers)


WRONG_SEEDS = [-1, 2**63, 2**64, np.int64(-1), True, 1.0, "3", [3]]


def test_seeds_may_be_numpys() -> None:
    env = make()
    np.testing.assert_array_equal(env.reset(seed=np.int64(3))[0], env.reset(seed=3)[0])  # type: ignore[arg-type]
    env.reset(seed=2**63 - 1)
    envs = SSDKDVectorEnv(np.int64(2), vectorization="loop", budget=BUDGET, probe=SMALL_PROBE)  # type: ignore[arg-type]
    expected = envs.reset(seed=[3, 4])[0]
    for seed in (np.int64(3), np.array([3, 4]), (np.uint8(3), 4), [np.int64(3), np.int64(4)]):
        np.testing.assert_array_equal(envs.reset(seed=seed)[0], expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", WRONG_SEEDS, ids=repr)
def test_a_seed_out_of_range_moves_nothing(seed: Any) -> None:
    env, actions = make(), actions_of(5)
    moments = episode(env, 3, actions[:1])
    with pytest.raises(InvalidInputError, match="seed="):
        env.reset(seed=seed)
    with pytest.raises(InvalidInputError, match="seed="):
        DistillationRun(env.task, env.method, seed)
    moments += steps(env, actions[1:])
    assert_same(moments, episode(make(), 3, actions))


@pytest.mark.parametrize(
    "seed", [*WRONG_SEEDS[:-1], 2**63 - 1, [1, -1], [1, 2**63], [1, True], [1.0, 2], [1]], ids=repr
)
def test_a_seed_out_of_range_resets_no_environment(seed: Any) -> None:
    """The second environment has the number after the first one's."""
    envs = SSDKDVectorEnv(2, vectorization="loop", budget=BUDGET, probe=SMALL_PROBE)
    envs.reset(seed=3)
    expected = [envs.step(actions_of(5)[:2])[0] for _ in range(2)]
    envs.reset(seed=3)
    given = [envs.step(actions_of(5)[:2])[0]]
    with pytest.raises(InvalidInputError, match="seed="):
        envs.reset(seed=seed)
    given.append(envs.step(actions_of(5)[:2])[0])
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize(
    "options", [{"instnce": 0}, {"instance": True}, {"instance": 0.0}, {"instance": 1}, 3, [1]], ids=repr
)
def test_options_that_mean_nothing_are_refused(options: Any) -> None:
    envs = SSDKDVectorEnv(1, vectorization="loop", budget=BUDGET, probe=SMALL_PROBE)
    for env in (make(), envs):
        with pytest.raises(InvalidInputError, match="options"):
            env.reset(seed=3, options=options)
        env.reset(seed=3, options={"instance": np.int64(0)})


@pytest.mark.parametrize(
    "arguments", [{"num_envs": True}, {"num_envs": 2, "processes": True}, {"num_envs": np.float64(2)}]
)
def test_numbers_of_environments_are_whole(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="expected a whole number"):
        SSDKDVectorEnv(vectorization="loop", **arguments)
