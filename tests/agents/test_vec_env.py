"""`DistillationVecEnv` keeps Stable-Baselines3's contract, whatever does the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ssdkd_agents.environments import make_vec_env
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize, VecVideoRecorder

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.task import build_teacher
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, FloatArray, actions_of, make
from tests.envs.own_networks import TINY

SMALL: dict[str, Any] = {"budget": BUDGET, "probe": SMALL_PROBE}
#: Through the end of the first episode and one step into the second.
STEPS = ROUNDS + 1


def make_vec(count: int = 2, backend: str = "loop", processes: int | None = None, **kwargs: Any) -> DistillationVecEnv:
    return DistillationVecEnv(count, SMALL | kwargs, backend, processes)


def step_actions(index: int, count: int) -> FloatArray:
    return actions_of(100 + index, count)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A task that costs worker processes little."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, build_teacher(TINY, seed=0))
    return {"task": "tests.envs.own_networks:TINY", "teacher": str(path)}


@pytest.fixture(scope="module")
def two_processes(tiny: dict[str, Any]) -> Iterator[DistillationVecEnv]:
    """Starting processes takes seconds; what the tests do to these environments, a reset undoes."""
    envs = make_vec(3, "process", processes=2, **tiny)
    yield envs
    envs.close()


@pytest.fixture(params=["loop", "process"])
def three(request: pytest.FixtureRequest, tiny: dict[str, Any]) -> DistillationVecEnv:
    if request.param == "loop":
        return make_vec(3, **tiny)
    envs: DistillationVecEnv = request.getfixturevalue("two_processes")
    return envs


def assert_same_info(info: dict[str, Any], expected: dict[str, Any]) -> None:
    assert info.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert info[key].dtype == value.dtype
            np.testing.assert_array_equal(info[key], value)
        else:
            assert info[key] == value
            assert type(info[key]) is type(value)


def assert_same_infos(infos: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    assert len(infos) == len(expected)
    for info, wanted in zip(infos, expected, strict=True):
        assert_same_info(info, wanted)


# --- results ---


def test_results_are_those_of_dummy_vec_env(three: DistillationVecEnv, tiny: dict[str, Any]) -> None:
    theirs = DummyVecEnv([lambda: make(**tiny)] * 3)
    assert three.observation_space == theirs.observation_space
    assert three.action_space == theirs.action_space
    assert three.seed(4) == theirs.seed(4) == [4, 5, 6]
    for seeded in (True, False):  # the second reset goes on with the members' own random streams
        observations = three.reset()
        np.testing.assert_array_equal(observations, theirs.reset())
        assert observations.dtype == np.float32
        assert_same_infos(three.reset_infos, theirs.reset_infos)
        for index in range(STEPS if seeded else 1):
            mine, expected = (envs.step(step_actions(index, 3)) for envs in (three, theirs))
            for one, other in zip(mine[:3], expected[:3], strict=True):
                assert isinstance(one, np.ndarray)
                assert isinstance(other, np.ndarray)
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
            assert_same_infos(mine[3], expected[3])
            assert_same_infos(three.reset_infos, theirs.reset_infos)
            assert mine[2].all() == (index % ROUNDS == ROUNDS - 1)
            assert all("terminal_observation" in info for info in mine[3]) == mine[2].all()


def test_episodes_that_end_at_different_times_are_reset_by_themselves() -> None:
    envs, env = make_vec(2), make()
    envs.seed(4)
    envs.reset()
    env.reset(seed=4)
    for index in range(ROUNDS):
        if index == 1:
            envs._environments.reset({1: 9})
        _, _, dones, infos = envs.step(step_actions(index, 2))
        last = env.step(step_actions(index, 2)[0])[0]
    assert dones.tolist() == [True, False]
    np.testing.assert_array_equal(infos[0]["terminal_observation"], last)
    assert "terminal_observation" not in infos[1]
    observations, _, dones, _ = envs.step(step_actions(ROUNDS, 2))
    assert dones.tolist() == [False, True]
    env.reset()
    assert isinstance(observations, np.ndarray)
    np.testing.assert_array_equal(observations[0], env.step(step_actions(ROUNDS, 2)[0])[0])


def test_seed_serves_one_reset() -> None:
    envs = make_vec()
    envs.seed(4)
    first = envs.reset()
    assert not (envs.reset() == first).all(axis=1).any()
    envs.seed(4)
    np.testing.assert_array_equal(envs.reset(), first)


def test_results_are_not_overwritten_by_later_ones() -> None:
    envs = make_vec()
    envs.seed(4)
    envs.reset()
    observations, rewards, dones, infos = envs.step(step_actions(0, 2))
    assert isinstance(observations, np.ndarray)
    kept = observations.copy(), rewards.copy(), dones.copy(), [dict(info) for info in infos]
    for index in range(1, ROUNDS):
        envs.step(step_actions(index, 2))
    np.testing.assert_array_equal(observations, kept[0])
    np.testing.assert_array_equal(rewards, kept[1])
    np.testing.assert_array_equal(dones, kept[2])
    assert infos == kept[3]


# --- wrappers and algorithms ---


@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_monitor_and_normalisation_wrap_it(backend: str) -> None:
    envs = VecNormalize(VecMonitor(make_vec(2, backend)), gamma=0.9)
    envs.seed(4)
    envs.reset()
    totals = np.zeros(2)
    for index in range(2 * ROUNDS):
        observations, rewards, dones, infos = envs.step(step_actions(index, 2))
        assert isinstance(observations, np.ndarray)
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        totals += envs.get_original_reward()
        if dones.all():
            for info, total in zip(infos, totals, strict=True):
                assert info["episode"]["l"] == ROUNDS
                assert info["episode"]["r"] == pytest.approx(total, abs=1e-6)
            totals[:] = 0
        assert dones.all() == (index % ROUNDS == ROUNDS - 1)
    assert envs.unwrapped is envs.venv.venv  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", ["loop", "grouped", "process"])
def test_ppo_learns_on_it(backend: str, request: pytest.FixtureRequest, tiny: dict[str, Any]) -> None:
    envs: VecEnv = request.getfixturevalue("two_processes") if backend == "process" else make_vec(3, backend, **tiny)
    model = PPO("MlpPolicy", envs, n_steps=4, batch_size=6, n_epochs=1, seed=0, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(12)
    assert model.num_timesteps == 12
    assert any((one != other).any() for one, other in zip(before, model.policy.parameters(), strict=True))


# --- methods and attributes ---


def test_attributes_are_those_of_the_environments_asked_for(three: DistillationVecEnv) -> None:
    three.reset()
    three.set_attr("note", "all")
    three.set_attr("note", "second", indices=1)
    three.set_attr("note", "ends", indices=[0, -1])
    assert three.get_attr("note") == ["ends", "second", "ends"]
    assert three.get_attr("note", indices=1) == ["second"]
    assert three.get_attr("note", indices=-1) == ["ends"]
    assert three.get_attr("note", indices=[1, 0]) == ["second", "ends"]
    assert three.get_attr("note", indices=range(1)) == ["ends"]
    assert three.get_attr("note", indices=[]) == []
    with pytest.raises(IndexError):
        three.get_attr("note", indices=3)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        three.get_attr("no_such_attribute")


def test_it_knows_which_attributes_there_are(three: DistillationVecEnv) -> None:
    """A reset gives more of them; what an attribute holds need not be fit for sending to another process."""
    assert not make_vec(1).has_attr("curve")
    three.reset()
    for name in ("curve", "buffer_picture", "action_names", "task"):
        assert three.has_attr(name)
    assert not three.has_attr("no_such_attribute")


def test_methods_are_called_with_their_arguments(three: DistillationVecEnv, tmp_path: Any) -> None:
    three.seed(4)
    observations = three.reset()
    three.env_method("save", tmp_path / "second.safetensors", indices=1)
    loaded = three.env_method("load", path=tmp_path / "second.safetensors", indices=[2, 0])
    assert len(loaded) == 2
    for observation, info in loaded:
        np.testing.assert_array_equal(observation, observations[1])
        assert info == three.reset_infos[1]
    assert len(three.env_method("buffer_picture")) == 3


def test_no_environment_is_wrapped() -> None:
    envs = make_vec(3)
    assert envs.env_is_wrapped(Monitor) == [False] * 3
    assert envs.env_is_wrapped(Monitor, indices=[0, 2]) == [False] * 2


# --- pictures ---


def test_pictures_of_all_are_tiled(tmp_path: Any) -> None:
    envs = make_vec(2, render_mode="rgb_array")
    envs.reset()
    assert envs.render_mode == "rgb_array"
    pictures = envs.get_images()
    assert len(pictures) == 2
    first, second = pictures
    assert first is not None
    assert second is not None
    assert not np.array_equal(first, second)
    tiled = envs.render()
    assert tiled is not None
    assert tiled.shape == (first.shape[0], 2 * first.shape[1], 3) or tiled.shape == (
        2 * first.shape[0],
        *first.shape[1:],
    )
    recorder = VecVideoRecorder(envs, str(tmp_path), record_video_trigger=lambda _: False)
    assert recorder.frames_per_sec == SSDKDEnv.metadata["render_fps"]


def test_without_a_render_mode_there_are_no_pictures() -> None:
    envs = make_vec(2)
    envs.reset()
    assert envs.render_mode is None
    assert envs.get_images() == [None, None]


# --- what is refused, and the end ---


@pytest.mark.parametrize("actions", [np.zeros((1, 5)), np.zeros((3, 5)), np.zeros(5), np.zeros((2, 4)), None], ids=repr)
def test_unusable_actions_are_refused_before_any_environment_has_moved(actions: Any) -> None:
    envs = make_vec()
    envs.seed(4)
    envs.reset()
    with pytest.raises(InvalidInputError, match="expected"):
        envs.step(actions)
    assert [len(curve) for curve in envs.get_attr("curve")] == [1, 1]
    envs.step(step_actions(0, 2))


@pytest.mark.parametrize(
    ("count", "backend", "processes", "match"),
    [
        (0, "loop", None, "num_envs=0"),
        (2, "dummy", None, "vectorization='dummy' is unknown"),
        (2, "process", 3, "processes=3: expected a whole number from 1 to num_envs=2"),
    ],
)
def test_unusable_argument_is_refused(count: int, backend: str, processes: int | None, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        make_vec(count, backend, processes)


def test_step_needs_a_reset_and_open_environments() -> None:
    envs = make_vec()
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(step_actions(0, 2))
    envs.close()
    envs.close()
    with pytest.raises(gym.error.ClosedEnvironmentError, match="make them again"):
        envs.reset()


# --- by id ---


def test_environments_are_made_by_id() -> None:
    envs = make_vec_env("SSDKD/Digits-v2", SMALL | {"reward": "probe_discrepancy"}, 2, "grouped", 1)
    assert str(envs.choice) == "grouped: as asked for"
    assert envs.get_attr("reward_name") == ["probe_discrepancy"] * 2
    assert envs.get_attr("budget")[1].rounds == ROUNDS
    assert [task.spec.name for task in envs.get_attr("task")] == ["digits"] * 2


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "match"),
    [
        ("SSDKD/Nope-v2", {}, "env_id='SSDKD/Nope-v2' is unknown"),
        ("CartPole-v1", {}, "is no distillation environment"),
        ("SSDKD/Digits-v2", {"bogus": 1}, "env_kwargs.*bogus"),
    ],
)
def test_unusable_id_is_refused(env_id: str, env_kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        make_vec_env(env_id, env_kwargs, 2, "loop")


# --- going on ---


def test_saved_episodes_go_on_exactly_through_later_resets(three: DistillationVecEnv, tmp_path: Path) -> None:
    """In the same environments, which have meanwhile been elsewhere, and were given seeds that no longer count."""
    three.seed(3)
    three.reset()
    three.step(step_actions(0, 3))
    three.save_episodes(tmp_path)
    expected = [three.step(step_actions(index, 3)) for index in range(1, 2 * ROUNDS)]
    three.seed(99)
    three.load_episodes(tmp_path)
    for index, (observations, rewards, dones, infos) in enumerate(expected, start=1):
        answer = three.step(step_actions(index, 3))
        np.testing.assert_array_equal(answer[0], observations)
        np.testing.assert_array_equal(answer[1], rewards)
        np.testing.assert_array_equal(answer[2], dones)
        assert_same_infos(answer[3], infos)
    assert [info["round"] for info in three.reset_infos] == [0, 0, 0]


def test_missing_episode_is_named(tmp_path: Path) -> None:
    envs = make_vec(2)
    envs.reset()
    envs.save_episodes(tmp_path)
    (tmp_path / "1.safetensors").unlink()
    with pytest.raises(InvalidInputError, match=r"1\.safetensors"):
        envs.load_episodes(tmp_path)


def test_it_works_where_gradients_are_switched_off() -> None:
    """ARS plays its episodes so."""
    envs = make_vec(1)
    envs.seed(0)
    expected = envs.reset()
    envs.seed(0)
    with torch.no_grad():
        np.testing.assert_array_equal(envs.reset(), expected)
        envs.step(step_actions(0, 1))
