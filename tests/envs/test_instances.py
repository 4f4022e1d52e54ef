"""Environments that draw each episode's teacher, student, buffer and budget from a set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3.common.env_checker import check_env as sb3_check

from ssdkd_env.distillation.work import TrainingWork
from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from ssdkd_env.envs.actions import ACTION_SCHEMES, OF_WORK
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.tasks.instances import INSTANCE_SETS
from tests.envs.episodes import BUDGET, SMALL_PROBE, WORK_BUDGET, Moment, assert_same, steps
from tests.envs.own_networks import SMALL_SET

OWN = "tests.envs.own_networks:"
#: All but the rounds, which the instances choose.
SHARED = WORK_BUDGET
ARGUMENTS: dict[str, Any] = {"instances": f"{OWN}SMALL_SET", "budget": SHARED, "probe": SMALL_PROBE}


def make(instances: str | None = f"{OWN}SMALL_SET", **arguments: Any) -> SSDKDEnv:
    return SSDKDEnv(**(ARGUMENTS | {"instances": instances} | arguments))


def reset(env: SSDKDEnv, seed: int | None = None, instance: int | None = None) -> Moment:
    observation, info = env.reset(seed=seed, options=None if instance is None else {"instance": instance})
    return Moment(observation, 0.0, False, False, info)


def finish(env: SSDKDEnv) -> list[Moment]:
    """Play the paper's sampler to the end."""
    moments: list[Moment] = []
    while not (moments and moments[-1].terminated):
        moments += steps(env, [env.paper_action])
    return moments


def channels(env: SSDKDEnv) -> int:
    assert env.run is not None
    return len(next(env.run.student.parameters()))


# --- what an episode plays ---


def test_every_instance_is_played_as_it_is_described() -> None:
    env = make()
    for number, instance in enumerate(SMALL_SET.instances):
        info = reset(env, 0, number).info
        assert info["instance"] == number
        assert channels(env) == int((instance.student_arch or "").removeprefix("convnet"))
        assert env.task.spec.teacher_weights.endswith("narrow.safetensors") is (instance.teacher is not None)
        moments = finish(env)
        assert len(moments) == instance.budget["rounds"] == env.budget.rounds
        assert {moment.info["instance"] for moment in moments} == {number}
        assert env.budget.batch_size == BUDGET["batch_size"]  # the user's, for all of them
        assert moments[-1].observation[env.observation_names.index("progress")] > 1.5  # scaled: (1 − 0.5) / 0.31


def test_instance_is_the_same_episode_as_its_arguments_make_without_a_set() -> None:
    """But for the random stream, of which the drawing takes a part; a named instance draws nothing."""
    instance = SMALL_SET.instances[5]
    env = make()
    alone = make(
        None, teacher=instance.teacher, student_arch=instance.student_arch, budget={**SHARED, **instance.budget}
    )
    mine, wanted = [[reset(each, 3, number), *finish(each)] for each, number in ((env, 5), (alone, None))]
    assert_same([m._replace(info=m.info | {"instance": 0}) for m in mine], wanted)


def test_draws_are_uniform_and_reproduced_by_the_seed() -> None:
    env = make()
    chosen = []
    for seed in (5, 5):
        drawn = [reset(env, seed).info["instance"]]
        drawn += [reset(env).info["instance"] for _ in range(7)]
        chosen.append(drawn)
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) > 2
    random = np.random.default_rng(0)
    counts = np.zeros(8)
    for _ in range(400):
        counts[env.instances.choose(random, None)] += 1
    assert ((counts - 50) ** 2 / 50).sum() < 24.3  # χ² of 7 degrees of freedom, 0.999


def test_seed_means_the_same_without_a_set_and_with_one_of_a_single_instance() -> None:
    def play(env: SSDKDEnv) -> list[Moment]:
        return [reset(env, 3), *finish(env), reset(env), *finish(env)]

    assert_same(play(make(f"{OWN}ONE_INSTANCE")), play(make(None, budget=BUDGET)))
    assert_same(play(make(None, budget=BUDGET)), play(SSDKDEnv(budget=BUDGET, probe=SMALL_PROBE)))


@pytest.mark.parametrize("scheme", [name for name in ACTION_SCHEMES if name not in OF_WORK])  # they differ in rounds
def test_spaces_are_the_same_for_all_instances(scheme: str) -> None:
    env = make(action=scheme, history=2)
    spaces = env.action_space, env.observation_space, env.action_names, env.observation_names
    for number in range(len(SMALL_SET.instances)):
        observation = reset(env, 0, number).observation
        assert observation in env.observation_space
        assert env.action_scheme.space == spaces[0] and env.action_scheme.names == spaces[2]
        assert steps(env, [env.paper_action])[0].observation in spaces[1]
    assert spaces == (env.action_space, env.observation_space, env.action_names, env.observation_names)
    for name in INSTANCE_SETS:
        shipped = SSDKDEnv(instances=name, action=scheme, history=2)
        assert (shipped.action_space, shipped.observation_space) == spaces[:2]


# --- wrong arguments ---


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"instances": "digits-tran"}, "instances='digits-tran' is unknown"),
        ({"teacher": "x"}, "teacher='x': the instances of '{OWN}SMALL_SET' choose it; leave one of them out"),
        ({"student_arch": "convnet6"}, "student_arch='convnet6': the instances"),
        ({"teacher_arch": "convnet"}, "teacher_arch='convnet': the instances"),
        ({"budget": BUDGET}, "budget['rounds']=3: the instances"),
        ({"budget": 3}, "budget=3: expected a mapping"),
        ({"budget": {"rouns": 3}}, "budget has no setting 'rouns'"),
        (
            {"instances": "digits-test", "buffer_scale": 0.1, "budget": None},
            "buffer_scale=0.1: the instances of 'digits-test'",
        ),
        ({"instances": "digits-test", "budget": {"buffer_capacity": 9}}, "budget['buffer_capacity']=9: the instances"),
        ({"instances": f"{OWN}BUFFERS", "buffer_scale": 0.1, "budget": None}, "buffer_scale=0.1: the instances"),
        ({"instances": f"{OWN}BROKEN_SET"}, "number 1: student_arch='convnet7' is unknown"),
        ({"instances": "digits-train", "task": "cifar10"}, "belong to task 'digits'"),
    ],
    ids=str,
)
def test_wrong_sets_and_conflicts_are_refused_when_the_environment_is_made(
    arguments: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(match.replace("{OWN}", OWN))) as refused:
        make(**arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("wanted", [-1, 8, True, 1.0, "1", [1]], ids=repr)
def test_instance_that_there_is_not_is_refused_and_the_episode_goes_on(wanted: Any) -> None:
    env, undisturbed = make(), make()
    for each in (env, undisturbed):
        reset(each, 3)
    message = re.escape(f"options['instance']={wanted!r}: expected a number from 0 to 7")
    with pytest.raises(InvalidInputError, match=message):
        env.reset(seed=9, options={"instance": wanted})
    assert_same(*([*finish(each), reset(each)] for each in (env, undisturbed)))


# --- files ---


def test_episode_of_another_instance_is_loaded_and_goes_on(tmp_path: Path) -> None:
    env, other = make(), make()
    reset(env, 3, 6)
    first = steps(env, [env.paper_action])[-1]
    env.save(tmp_path / "saved")
    reset(other, 0, 1)
    observation, info = other.load(tmp_path / "saved")
    np.testing.assert_array_equal(observation, first.observation)
    assert info == first.info and info["instance"] == 6
    assert channels(other) == channels(env)
    assert_same(*([*finish(each), reset(each)] for each in (env, other)))


@pytest.mark.parametrize("damage", ["other set", "other arguments", "no instance", "run", "snapshots"])
def test_file_that_does_not_fit_leaves_the_environment_as_it_was(damage: str, tmp_path: Path) -> None:
    others: dict[str, Any] = {"other set": {"instances": f"{OWN}ONE_INSTANCE"}, "other arguments": {"history": 2}}
    author = make(**others.get(damage, {}))
    reset(author, 3, 6 % len(author.instances))
    author.save(tmp_path / "saved")
    state = load_state(tmp_path / "saved")
    if damage == "no instance":
        save_state(tmp_path / "saved", state | {"instance": 8})
    elif damage in state:
        save_state(tmp_path / "saved", {name: value for name, value in state.items() if name != damage})
    env, undisturbed = make(), make()
    for each in (env, undisturbed):
        reset(each, 3, 1)
    with pytest.raises(InvalidInputError, match="saved"):
        env.load(tmp_path / "saved")
    assert_same(*([*finish(each), reset(each)] for each in (env, undisturbed)))


# --- side by side ---


def play_vector(envs: SSDKDVectorEnv, instances: int | None = None) -> tuple[Any, ...]:
    """Two steps: observations and rewards, and the instances that were played."""
    observations, infos = envs.reset(seed=20, options=None if instances is None else {"instance": instances})
    seen = [observations]
    rewards = []
    for _ in range(2):
        action = np.tile(envs.call("paper_action")[0], (envs.num_envs, 1))
        observations, reward, _, _, infos = envs.step(action)
        seen.append(observations)
        rewards.append(reward)
    return np.stack(seen), np.stack(rewards), infos["instance"].tolist()


@pytest.mark.parametrize(("backend", "tolerance"), [("loop", 0.0), ("grouped", 5e-3)])
def test_vector_environment_gives_what_each_instance_gives_alone(
    backend: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a group, students of other sizes, and those of other teachers, are served apart."""
    done_alone: list[TrainingWork] = []
    own = TrainingWork.alone

    def counted(work: TrainingWork) -> Any:
        done_alone.append(work)
        return own(work)

    monkeypatch.setattr(TrainingWork, "alone", counted)
    envs = SSDKDVectorEnv(6, vectorization=backend, observation="unscaled", **ARGUMENTS)
    observations, rewards, played = play_vector(envs)
    envs.close()
    kinds = [number // 2 for number in played]  # teacher and student; the rounds may differ
    by_themselves = 6 if backend == "loop" else sum(kinds.count(kind) == 1 for kind in kinds)
    assert len(done_alone) == 2 * by_themselves
    assert len(set(kinds)) > 1 and len(set(kinds)) < 6, "the seeds must give some that are alike and some that are not"
    env = make(observation="unscaled")
    for index in range(6):
        moments = [reset(env, 20 + index), *steps(env, [env.paper_action] * 2)]
        assert moments[0].info["instance"] == played[index]
        for moment, observation in zip(moments, observations[:, index], strict=True):
            np.testing.assert_allclose(moment.observation, observation, rtol=0, atol=tolerance)
        np.testing.assert_allclose([m.reward for m in moments[1:]], rewards[:, index], rtol=0, atol=tolerance)


def test_vector_environment_takes_an_instance_for_all() -> None:
    envs = SSDKDVectorEnv(2, vectorization="loop", **ARGUMENTS)
    _, infos = envs.reset(seed=0, options={"instance": 4})
    assert infos["instance"].tolist() == [4, 4]
    with pytest.raises(InvalidInputError, match=r"options\['instance'\]=8: expected a number from 0 to 7"):
        envs.reset(seed=0, options={"instance": 8})
    envs.close()


def test_stable_baselines_sets_an_instance_for_each() -> None:
    envs = DistillationVecEnv(2, ARGUMENTS, "loop")
    envs.set_options([{"instance": 3}, {"instance": 5}])
    envs.seed(0)
    envs.reset()
    assert [info["instance"] for info in envs.reset_infos] == [3, 5]
    envs.close()


# --- what others expect of an environment ---


@pytest.mark.filterwarnings("error")
def test_checkers_pass_with_instances() -> None:
    env = gym.make("SSDKD/Digits-v2", render_mode="rgb_array", **ARGUMENTS).unwrapped
    gymnasium_check(env)
    sb3_check(env, warn=True)


def test_description_of_the_environment_survives_json() -> None:
    env = gym.make("SSDKD/Digits-v2", **ARGUMENTS)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert json.loads(env.spec.to_json())["kwargs"]["instances"] == f"{OWN}SMALL_SET"
    for each in (env, again):
        _, info = each.reset(seed=3)
        assert info["instance"] == int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(3))).integers(8))
