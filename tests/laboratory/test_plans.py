"""Fixed plans × seeds: what is played, and the numbers that are made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from laboratory.plans import NAMED, fixed_plans, play_plans, scores_of
from laboratory.statistics import better_half, rank_correlation
from scipy.stats import spearmanr
from ssdkd_agents.samplers import read_decision

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.envs.rewards import REWARDS
from ssdkd_env.envs.sub_environments import SubEnvironments
from tests.envs.episodes import BUDGET, SMALL_PROBE

ARGUMENTS: dict[str, Any] = {"budget": BUDGET, "probe": SMALL_PROBE, "evaluate_every_rounds": 10**6}


def play_alone(action: Any, seed: int, reward: str, **arguments: Any) -> tuple[float, dict[str, Any]]:
    """Return under a reward, and the last info."""
    env = SSDKDEnv(**(ARGUMENTS | {"reward": reward} | arguments))
    env.reset(seed=seed)
    total, ended = 0.0, False
    info: dict[str, Any] = {}
    while not ended:
        _, gain, ended, _, info = env.step(action)
        total += gain
    return total, info


# --- what is played ---


def test_baselines_come_first_and_drawn_plans_are_the_same_each_time() -> None:
    env = SSDKDEnv(**ARGUMENTS)
    plans = fixed_plans(env, 3)
    assert [plan.label for plan in plans] == [*NAMED, "random 0", "random 1", "random 2"]
    for plan in plans[: len(NAMED)]:
        assert plan.decision is NAMED_PLANS[plan.label]
    drawn, again = (
        np.array([plan.decision for plan in each[len(NAMED) :]], dtype=np.float32)
        for each in (plans, fixed_plans(env, 3))
    )
    np.testing.assert_array_equal(drawn, again)
    assert len(np.unique(drawn)) == drawn.size and all(action in env.action_space for action in drawn)
    more = fixed_plans(env, 5)
    np.testing.assert_array_equal(more[len(NAMED)].decision, drawn[0])


def test_discrete_scheme_plays_every_choice() -> None:
    env = SSDKDEnv(action="plans", **ARGUMENTS)
    plans = fixed_plans(env, 7)
    assert [plan.label for plan in plans] == list(env.action_names) == list(NAMED_PLANS)
    assert [int(plan.decision) for plan in plans] == list(range(len(NAMED_PLANS)))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, 4], ids=["fewer side by side than episodes", "more in the last batch"])
def test_gains_are_the_returns_of_each_episode_alone(count: int) -> None:
    """Whatever is played side by side."""
    pool = SubEnvironments(count, ARGUMENTS, "loop", None)
    env = pool.first
    plans = [fixed_plans(env, 1)[index] for index in (1, 5, 0)]
    lines = list(play_plans(pool, env, plans, [40, 41]))
    pool.close()
    assert [(line["label"], line["seed"]) for line in lines] == [(p.label, s) for s in (40, 41) for p in plans]
    for line in lines:
        decision = read_decision(env, line["action"])
        for reward in ("probe_agreement", "probe_discrepancy", "candidate_agreement", "oracle_accuracy"):
            wanted, info = play_alone(decision, line["seed"], reward)
            name = reward.replace("oracle_", "")
            assert line["gains"][name] == pytest.approx(wanted, abs=1e-12)
            assert line["final"] | {"score": 0} == info | {"score": 0}
        held_out = SSDKDEnv(**ARGUMENTS)
        held_out.reset(seed=line["seed"])
        for _ in range(BUDGET["rounds"]):
            held_out.step(decision)
        assert line["held_out_accuracy"] == held_out.held_out_accuracy()


def test_episodes_of_different_lengths_end_each_in_its_time() -> None:
    shared = {name: value for name, value in BUDGET.items() if name != "rounds"}
    arguments = ARGUMENTS | {"instances": "tests.envs.own_networks:SMALL_SET", "budget": shared}
    pool = SubEnvironments(4, arguments, "loop", None)
    lines = list(play_plans(pool, pool.first, fixed_plans(pool.first, 0)[:2], range(40, 44)))
    pool.close()
    assert {line["final"]["round"] for line in lines} == {2, 3}
    by_seed = {line["seed"]: line["final"]["instance"] for line in lines}
    assert all(line["final"]["instance"] == by_seed[line["seed"]] for line in lines), "every plan meets the same ones"


@pytest.mark.filterwarnings("ignore:overflow")
def test_student_that_diverges_has_the_scores_of_the_rewards() -> None:
    """An info has 0 in place of NaN; a divergence of 0 would be the best there is."""
    arguments = ARGUMENTS | {"student": {"lr": 1e12}}
    pool = SubEnvironments(1, arguments, "loop", None)
    (line,) = play_plans(pool, pool.first, fixed_plans(pool.first, 0)[:1], [3])
    pool.close()
    assert line["final"]["diverged"]
    for reward in ("probe_agreement", "probe_discrepancy", "candidate_agreement"):
        wanted, _ = play_alone(NAMED_PLANS["paper"], 3, reward, student={"lr": 1e12})
        assert line["gains"][reward] == pytest.approx(wanted, abs=1e-12) and wanted < 0


def test_scores_are_those_of_the_rewards() -> None:
    env = SSDKDEnv(**ARGUMENTS)
    _, info = env.reset(seed=0)
    for name, score in scores_of(info).items():
        reward = REWARDS["oracle_accuracy" if name == "accuracy" else name]
        assert env.episode is not None
        assert score == pytest.approx(reward.score(env.episode.snapshot), abs=1e-12)


# --- numbers ---


def test_rank_correlation_is_of_plan_means() -> None:
    """Two plans change places between reward and accuracy: 1 − 6·2 / (4·15)."""
    means = np.array([1.0, 2.0, 3.0, 4.0])
    noise = np.array([-0.4, 0.1, 0.3, -0.2, 0.2])
    values, truth = means[:, None] + noise, means[[0, 2, 1, 3]][:, None] - noise
    found = rank_correlation(values, truth)
    assert found.mean == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8, 0.8)), "every resample of seeds shifts all plans alike"


def test_interval_covers_what_resampled_seeds_give() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(size=(8, 1)) + random.normal(size=(8, 6))
    values = truth + random.normal(size=(8, 6))
    found = rank_correlation(values, truth)
    other = np.random.default_rng(99)
    resampled = [
        spearmanr(values[:, c].mean(1), truth[:, c].mean(1)).statistic for c in other.integers(6, size=(4000, 6))
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])), abs=0.06)
    narrow = rank_correlation(values, truth, confidence_level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


@pytest.mark.parametrize(("count", "half"), [(2, 1), (5, 3), (6, 3)])
def test_better_half_has_the_higher_accuracies(count: int, half: int) -> None:
    truth = np.random.default_rng(count).permutation(count)[:, None] + np.array([[-0.4, 0.4]])
    chosen = better_half(truth)
    assert len(chosen) == half
    assert sorted(truth[chosen].mean(axis=1)) == list(range(count - half, count))


# --- the picture ---
