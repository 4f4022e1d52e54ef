"""The paper's sampler and the baselines speak Stable-Baselines3's `predict`."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from ssdkd_agents.samplers import (
    SAMPLERS,
    ConstantSampler,
    RandomReplacement,
    RandomSampler,
    decide,
    make_sampler,
    read_decision,
    write_decision,
)

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, make

OBSERVATIONS = np.random.default_rng(0).uniform(size=(4, 25)).astype(np.float32)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_observations_get_as_many_actions(name: str, deterministic: bool) -> None:
    env = make()
    sampler = make_sampler(name, env)
    for observations, shape in ((OBSERVATIONS[0], (5,)), (OBSERVATIONS, (4, 5)), (OBSERVATIONS[:1], (1, 5))):
        actions, _ = sampler.predict(observations, deterministic=deterministic)
        assert actions.shape == shape
        assert actions.dtype == np.float32
        assert all(env.action_space.contains(action) for action in actions.reshape(-1, 5))


@pytest.mark.parametrize("name", SAMPLERS)
def test_recurrent_state_is_handed_through(name: str) -> None:
    state = (np.zeros(2, dtype=np.float32),)
    sampler = make_sampler(name, make())
    assert sampler.predict(OBSERVATIONS, state, np.ones(4, dtype=bool))[1] is state
    assert sampler.predict(OBSERVATIONS)[1] is None


@pytest.mark.parametrize("budget", [{}, {"candidates": 3}, {"candidates": 48}])
def test_paper_sampler_means_the_papers_plan(budget: dict[str, int]) -> None:
    """P ∝ |δ| + ε, β = 0.4, and all candidates compete, whatever the sizes."""
    env = make(budget=budget)
    action, _ = make_sampler("paper", env).predict(OBSERVATIONS[0])
    np.testing.assert_array_equal(action, env.paper_action)
    plan = env.action_scheme.to_plan(action)
    sizes = BUDGET | budget
    assert plan.discrepancy_exponent == pytest.approx(1.0)
    assert plan.diversity_exponent == pytest.approx(0.0)
    assert plan.difficulty_exponent == pytest.approx(0.0)
    assert plan.importance_exponent == pytest.approx(0.4)
    assert plan.replaced_share == pytest.approx(min(1.0, sizes["candidates"] / sizes["buffer_capacity"]))


def test_uniform_sampler_has_no_priority() -> None:
    env = make()
    action, _ = make_sampler("uniform", env).predict(OBSERVATIONS[0])
    np.testing.assert_array_equal(action, env.uniform_action)
    plan = env.action_scheme.to_plan(action)
    exponents = (plan.discrepancy_exponent, plan.diversity_exponent, plan.difficulty_exponent)
    assert exponents == pytest.approx((0.0, 0.0, 0.0))
    assert plan.importance_exponent == pytest.approx(0.0)


def test_random_sampler_repeats_with_its_seed_alone() -> None:
    env = make()
    first, second, other = (make_sampler("random", env, seed) for seed in (3, 3, 4))
    np.random.seed(0)
    draws = [first.predict(OBSERVATIONS)[0] for _ in range(3)]
    np.random.seed(1)
    np.testing.assert_array_equal(draws, [second.predict(OBSERVATIONS)[0] for _ in range(3)])
    assert not np.array_equal(draws[0], other.predict(OBSERVATIONS)[0])
    assert not np.array_equal(draws[0], draws[1])
    assert len(np.unique(draws[0])) == draws[0].size, "each observation gets a draw of its own"


def test_random_sampler_draws_uniformly_from_the_whole_box() -> None:
    actions, _ = RandomSampler(spaces.Box(-1.0, 1.0, (5,)), seed=0).predict(np.zeros((4000, 25), dtype=np.float32))
    quantiles = np.quantile(actions, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
    assert np.abs(quantiles - np.array([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]).max() < 0.06
    assert (np.abs(actions) <= 1).all()


def test_asking_for_determinism_does_not_stop_the_random_sampler() -> None:
    sampler = RandomSampler(spaces.Box(-1.0, 1.0, (5,)))
    first, second = (sampler.predict(OBSERVATIONS[0], deterministic=True)[0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_actions_are_copies() -> None:
    """A caller that scales an action in place must not change the next one."""
    given = np.array([0.5, -0.5], dtype=np.float32)
    sampler = ConstantSampler(given)
    given[:] = 9.0
    batch, _ = sampler.predict(OBSERVATIONS)
    batch[0] = 7.0
    single, _ = sampler.predict(OBSERVATIONS[0])
    single[:] = 8.0
    np.testing.assert_array_equal(batch[1:], [[0.5, -0.5]] * 3)
    np.testing.assert_array_equal(sampler.predict(OBSERVATIONS[0])[0], [0.5, -0.5])


def test_wrapped_environment_is_looked_through() -> None:
    wrapped = gym.wrappers.TimeLimit(make(), 2)
    action, _ = make_sampler("paper", wrapped).predict(OBSERVATIONS[0])
    np.testing.assert_array_equal(action, make().paper_action)


def test_unknown_sampler_is_refused_with_the_known_ones() -> None:
    known = ", ".join(sorted(SAMPLERS))
    with pytest.raises(InvalidInputError, match=f"sampler='papr' is unknown; choose one of: {known}"):
        make_sampler("papr", make())


def test_constant_in_the_name_is_the_action() -> None:
    action, _ = make_sampler("constant:[0.5, 0, -1, 1, -0.25]", make()).predict(OBSERVATIONS)
    np.testing.assert_array_equal(action, [[0.5, 0.0, -1.0, 1.0, -0.25]] * 4)


@pytest.mark.parametrize(
    "text", ["", "[]", "[1, 2", "0.5", "[0, 0, 0, 0]", "[0, 0, 0, 0, 1.5]", "[0, 0, 0, 0, NaN]", "null", '["a"]', "{}"]
)
def test_constant_that_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"sampler='constant:.*5 numbers in \[-1, 1\]: discrepancy_exponent"):
        make_sampler(f"constant:{text}", make())


@pytest.mark.parametrize("action", ["exponents", "bins", "plans"])
@pytest.mark.parametrize("name", NAMED_PLANS)
def test_control_means_its_plan_whatever_the_scheme_can_say(name: str, action: str) -> None:
    env = make(action=action)
    decision, _ = decide(make_sampler(name, env), env, OBSERVATIONS[0], None, True)
    plan, expected = env.plan_of(decision), NAMED_PLANS[name]
    assert (plan.replacement, plan.reweighted) == (expected.replacement, expected.reweighted)
    assert plan.importance_exponent == pytest.approx(expected.importance_exponent, abs=1e-6)
    if plan.scorer is None:
        assert plan.discrepancy_exponent == pytest.approx(expected.discrepancy_exponent)
        assert plan.diversity_exponent == pytest.approx(expected.diversity_exponent)


@pytest.mark.parametrize(("name", "plan"), [("paper", SamplingPlan()), ("uniform", NAMED_PLANS["uniform"])])
def test_controls_sample_so_where_the_scheme_says_nothing_of_sampling(name: str, plan: SamplingPlan) -> None:
    """Its nearest action would be the method's own, under another's name."""
    env = make(action="division")
    decision, _ = decide(make_sampler(name, env), env, OBSERVATIONS[0], None, True)
    assert env.plan_of(decision).discrepancy_exponent == plan.discrepancy_exponent
    assert env.plan_of(decision).importance_exponent == plan.importance_exponent
    assert env.plan_of(decision).student_steps is None


def test_baselines_that_no_action_can_say_play_an_episode() -> None:
    env = make()
    for name in ("fifo", "reweighted"):
        observation, _ = env.reset(seed=0)
        decision, _ = decide(make_sampler(name, env), env, observation, None, True)
        assert isinstance(decision, SamplingPlan)
        observation, *_ = env.step(decision)
        np.testing.assert_array_equal(observation[-5:], env.action_scheme.from_plan(decision))


def test_replacement_by_chance_keeps_what_the_other_sampler_studies() -> None:
    env = make()
    inner = ConstantSampler(np.array([0.3, 0.1, -0.2, 0.4, 0.5], dtype=np.float32))
    decision, _ = decide(RandomReplacement(inner), env, OBSERVATIONS[0], None, True)
    assert isinstance(decision, SamplingPlan)
    own = env.action_scheme.to_plan(inner.action)
    assert decision.replacement == "random"
    assert decision.discrepancy_exponent == own.discrepancy_exponent
    assert decision.replaced_share == own.replaced_share


def test_discrete_scheme_gets_whole_numbers() -> None:
    env = make(action="plans")
    for name in ("paper", "uniform", "random", "constant:4"):
        actions, _ = make_sampler(name, env).predict(OBSERVATIONS)
        assert actions.shape == (4,)
        assert all(env.action_space.contains(action) for action in actions)
    with pytest.raises(InvalidInputError, match="a whole number from 0 to"):
        make_sampler("constant:[0.5]", env)


@pytest.mark.parametrize("action", ["exponents", "bins", "plans"])
@pytest.mark.parametrize("name", ["paper", "class_balanced", "fifo", "reweighted", "random"])
def test_decision_is_read_as_it_was_written(name: str, action: str) -> None:
    env = make(action=action)
    for sampler in (make_sampler(name, env), RandomReplacement(make_sampler(name, env))):
        decision, _ = decide(sampler, env, OBSERVATIONS[0], None, True)
        again = read_decision(env, json.loads(json.dumps(write_decision(env, decision))))
        one, other = env.plan_of(decision), env.plan_of(again)
        for field in ("discrepancy_exponent", "diversity_exponent", "importance_exponent", "replaced_share"):
            assert getattr(one, field) == getattr(other, field)
        assert (one.replacement, one.reweighted) == (other.replacement, other.reweighted)
        assert (one.scorer is None) == (other.scorer is None)
