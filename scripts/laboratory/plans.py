"""Fixed sampling plans × seeds: how much the plan matters, and whether the rewards rank plans as real accuracy does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from ssdkd_agents.playing import play_side_by_side
from ssdkd_agents.samplers import write_decision

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.distillation import Action
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.envs.rewards import DIVERGED_SCORE
from ssdkd_env.envs.sub_environments import SubEnvironments

#: Baselines that are compared beside random plans: sensible ones, and such that should do badly.
NAMED = ("paper", "uniform", "hard_first", "easy_first", "class_balanced")
#: Whose gains are compared with the accuracy's.
REWARDS = ("probe_agreement", "probe_discrepancy", "candidate_agreement")
#: Seed of the random plans.
PLAN_SEED = 7


class FixedPlan(NamedTuple):
    """What is done in every round of an episode: its name in tables, and an action or plan."""

    label: str
    decision: Action


def fixed_plans(env: SSDKDEnv, count: int) -> list[FixedPlan]:
    """The named baselines and `count` plans drawn uniformly from the action space; of a discrete one, every choice."""
    if isinstance(env.action_space, spaces.Discrete):
        return [FixedPlan(name, np.int64(index)) for index, name in enumerate(env.action_names)]
    random = np.random.default_rng(PLAN_SEED)
    shape = env.action_space.shape
    drawn = [FixedPlan(f"random {number}", random.uniform(-1, 1, shape).astype(np.float32)) for number in range(count)]
    return [FixedPlan(name, NAMED_PLANS[name]) for name in NAMED] + drawn


def scores_of(info: Mapping[str, Any]) -> dict[str, float]:
    """The scores whose gains are the rewards of `ssdkd_env.envs.rewards`, from an info, and the real accuracy."""
    rewarded = {
        "probe_agreement": info["probe_agreement"],
        "probe_discrepancy": 1.0 / (1.0 + info["probe_discrepancy"]),
        "candidate_agreement": info["candidate_agreement"],
    }
    if info["diverged"]:  # an info has 0 in place of NaN, which would be the best discrepancy
        rewarded = dict.fromkeys(rewarded, DIVERGED_SCORE)
    return rewarded | {"accuracy": info["accuracy"]}


def play_plans(
    pool: SubEnvironments, env: SSDKDEnv, plans: Sequence[FixedPlan], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Play every plan on every seed, as many episodes side by side as the pool has environments.

    Yields:
        A line for each episode: label, action, seed, the gain of each score, and the last info.
    """
    jobs = [(plan, seed) for seed in seeds for plan in plans]  # a drift of the machine meets every plan alike
    for first in range(0, len(jobs), pool.count):
        batch = jobs[first : first + pool.count]
        decisions = [plan.decision for plan, _ in batch]
        played = play_side_by_side(pool, [seed for _, seed in batch], lambda *_: decisions, held_out=True)  # noqa: B023
        assert played is not None
        for (plan, _), episode in zip(batch, played, strict=True):
            begun, ended = scores_of(episode.begun), scores_of(episode.final)
            yield {
                "label": plan.label,
                "action": write_decision(env, plan.decision),
                "seed": episode.seed,
                "gains": {name: ended[name] - begun[name] for name in ended},
                "final": episode.final,
                "held_out_accuracy": episode.held_out_accuracy,
            }
