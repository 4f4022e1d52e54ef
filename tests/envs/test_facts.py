"""What the observation says of an instance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ssdkd_env.distillation.allowance import LEAST
from ssdkd_env.distillation.costs import Costs
from ssdkd_env.distillation.sizes import Sizes
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.facts import Facts
from ssdkd_env.envs.observations import ENTRIES, INSTANCE_ENTRIES, WORK_ENTRIES
from tests.envs.episodes import make, reset, samples_of, steps


def facts(env: SSDKDEnv) -> Facts:
    return Facts(env.task, env.method)


def test_buffer_counts_in_batches_of_candidates() -> None:
    assert facts(make(budget={"buffer_capacity": 64})).buffer_batches == 2.0
    assert facts(make(budget={"buffer_capacity": 8})).buffer_batches == -1.0
    # Nothing is synthesised: minibatches of 8 of 1,797 real images' tenth.
    real = make(method="vanilla_kd", method_options={"real_share": 0.1})
    assert facts(real).buffer_batches == pytest.approx(math.log2(180 / 8))


def test_rounds_are_those_of_the_method() -> None:
    assert facts(make(budget={"rounds": 8})).own_rounds == 3.0
    # SSD-KD's own work pays its 16 rounds, and twice the work more than twice as many: the warm-up costs the same.
    assert facts(SSDKDEnv(action="work", work_scale=1.0)).own_rounds == pytest.approx(4.0)
    assert 5.0 < facts(SSDKDEnv(action="work", work_scale=2.0)).own_rounds < 5.5


def test_warm_up_counts_in_rounds_of_the_method() -> None:
    """Two batches take twice the work."""
    once, twice = (facts(make(budget={"warmup_rounds": count})).warm_up for count in (1, 2))
    assert twice == pytest.approx(once + 1.0, abs=0.05)  # the first measurement of the memory is of all of it


def test_students_share_is_of_a_round_of_the_method() -> None:
    shares = []
    for student in ("convnet6", "convnet12"):
        env = make(student_arch=student)
        sizes = Sizes.of(env.method, env.budget, env.task)
        costs = Costs.of(env.method, env.budget, sizes, env.task)
        without = costs.round(sizes.own._replace(student_steps=LEAST.student_steps)) - costs.student_step
        shares.append(facts(env).student_share)
        assert shares[-1] == pytest.approx(1 - without / costs.round(sizes.own))
    assert 0 < shares[0] < shares[1] < 1


def test_observation_shows_the_instance_in_every_step() -> None:
    env = make(observation="instance_unscaled", action="work", student_arch="convnet6", budget={"buffer_capacity": 8})
    names = env.observation_names
    assert names[: len(names) - 7] == (*ENTRIES, *WORK_ENTRIES, *INSTANCE_ENTRIES)
    own = facts(env)
    expected = [own.buffer_batches, own.own_rounds, own.warm_up, own.student_share]
    for moment in (reset(env, 1), *steps(env, samples_of(env, 2, 1))):
        shown = [moment.observation[names.index(name)] for name in INSTANCE_ENTRIES]
        assert shown == pytest.approx(expected, abs=1e-5)


def test_scaled_ones_tell_the_instances_of_the_training_set_apart() -> None:
    env = SSDKDEnv(instances="digits-work-train", action="work", observation="instance")
    at = [env.observation_names.index(name) for name in INSTANCE_ENTRIES]
    seen = []
    for number in range(len(env.instances)):
        observation, _ = env.reset(seed=0, options={"instance": number})
        seen.append(observation[at])
    values = np.array(seen)
    assert len(np.unique(values.round(3), axis=0)) == len(values)
    assert np.abs(values).max() < 3.0
    assert np.abs(values.mean(axis=0)).max() < 0.25
    assert np.abs(np.log(values.std(axis=0))).max() < 0.25


@pytest.mark.parametrize("observation", ["instance", "instance_unscaled", "facts"])
def test_the_checker_of_gymnasium_is_content(observation: str) -> None:
    check_env(make(action="work", observation=observation), skip_render_check=True)
