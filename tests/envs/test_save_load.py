"""An episode saved in the middle goes on bit-identically, in another process too."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from ssdkd_env.envs.actions import ACTION_SCHEMES, OF_WORK
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.task import build_teacher
from tests.envs.episodes import Moment, actions_of, assert_same, episode, make, reset, samples_of, steps
from tests.envs.own_networks import TINY

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
import numpy as np
import torch
torch.set_num_threads(1)
from tests.envs.episodes import Moment, episode, make, steps
folder, arguments = sys.argv[1], json.loads(sys.argv[2])
env = make(**arguments)
first = Moment(*env.load(f"{folder}/saved")[:1], 0.0, False, False, env._info())
actions = np.load(f"{folder}/actions.npy")
moments = [first, *steps(env, actions[1:]), *episode(env, None, actions)]
np.save(f"{folder}/observations.npy", [moment.observation for moment in moments])
rows = [[moment.reward.hex(), *moment[2:4], {k: float(v).hex() for k, v in moment.info.items()}] for moment in moments]
print(json.dumps(rows))
"""


def exact(moment: Moment) -> list[Any]:
    """All but the observation, every number as hexadecimal digits."""
    return [moment.reward.hex(), *moment[2:4], {key: float(value).hex() for key, value in moment.info.items()}]


def continue_elsewhere(folder: Path, arguments: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Load, finish and play one more episode in a fresh process: observations, and the rest exactly."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return np.load(folder / "observations.npy"), json.loads(result.stdout)


def test_another_process_goes_on_bit_identically(tmp_path: Path) -> None:
    """Steps, ends, infos, and the next episode, whose seed comes from the saved stream."""
    arguments = {"reward": "probe_discrepancy"}
    env = make(**arguments)
    actions = actions_of(5)
    reset(env, 3)
    moments = steps(env, actions[:1])
    moments[0] = moments[0]._replace(reward=0.0)
    env.save(tmp_path / "saved")
    np.save(tmp_path / "actions.npy", actions)
    moments += [*steps(env, actions[1:]), *episode(env, None, actions)]
    observations, rows = continue_elsewhere(tmp_path, arguments)
    np.testing.assert_array_equal(observations, [moment.observation for moment in moments])
    assert rows == [exact(moment) for moment in moments]


@pytest.mark.parametrize("reward", ["probe_agreement", "oracle_accuracy"])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_every_moment_of_an_episode_can_be_saved(reward: str, done: int, tmp_path: Path) -> None:
    env, other = make(reward=reward), make(reward=reward)
    actions = actions_of(5)
    moments = episode(env, 3, actions[:done])
    env.save(tmp_path / "saved")
    observation, info = other.load(tmp_path / "saved")
    np.testing.assert_array_equal(observation, moments[-1].observation)
    assert info == moments[-1].info
    assert other.curve == env.curve
    assert_same(steps(env, actions[done:]), steps(other, actions[done:]))
    assert_same([reset(env)], [reset(other)])


@pytest.mark.parametrize("done", [0, 2])
@pytest.mark.parametrize("scheme", ACTION_SCHEMES)
def test_every_scheme_can_be_saved_with_its_history_and_what_is_still_to_pay(
    scheme: str, done: int, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"action": scheme, "history": 3, "reward": "terminal_probe_discrepancy"}
    if scheme in OF_WORK:
        arguments["work_scale"] = 0.02
    env, other = make(**arguments), make(**arguments)
    actions = samples_of(env, 5)
    if scheme in OF_WORK:
        actions = [np.zeros_like(actions[0]), np.zeros_like(actions[0]), np.ones_like(actions[0])]
    moments = episode(env, 3, actions[:done])
    env.save(tmp_path / "saved")
    observation, info = other.load(tmp_path / "saved")
    np.testing.assert_array_equal(observation, moments[-1].observation)
    assert observation.dtype == np.float32
    assert info == moments[-1].info
    mine, theirs = steps(env, actions[done:]), steps(other, actions[done:])
    assert_same(mine, theirs)
    assert theirs[-1].reward == pytest.approx(theirs[-1].info["score"] - reset(env, 3).info["score"], abs=1e-12)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    env = make()
    moments = [reset(env, 3)]
    for action in actions_of(5):
        env.save(tmp_path / "saved")
        moments += steps(env, [action])
    assert_same(moments, episode(make(), 3, actions_of(5)))


def test_file_can_be_loaded_again_and_again(tmp_path: Path) -> None:
    """Also over an episode that is further on: a tree search does this."""
    env = make()
    reset(env, 3)
    env.save(tmp_path / "saved")
    first = steps(env, actions_of(5))
    for _ in range(2):
        env.load(tmp_path / "saved")
        assert_same(first, steps(env, actions_of(5)))


def test_diverged_episode_can_be_saved(tmp_path: Path) -> None:
    env, other = make(student={"lr": 1e30}), make(student={"lr": 1e30})
    moments = episode(env, 3, actions_of(5)[:1])
    assert moments[-1].info["diverged"]
    env.save(tmp_path / "saved")
    observation, info = other.load(tmp_path / "saved")
    np.testing.assert_array_equal(observation, moments[-1].observation)
    assert info == moments[-1].info
    for each in (env, other):
        with pytest.raises(gym.error.ResetNeeded, match="has diverged"):
            steps(each, actions_of(5)[1:])


def test_loading_gives_a_known_seed_stream_not_an_invented_seed(tmp_path: Path) -> None:
    env, other = make(), make()
    reset(env, 3)
    env.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    assert other.np_random.bit_generator.state == env.np_random.bit_generator.state


OTHER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "budget": {"budget": {"rounds": 4}},
    "reward": {"reward": "probe_discrepancy"},
    "terminal reward": {"reward": "terminal_probe_agreement"},
    "form of the observation": {"observation": "unscaled"},
    "history": {"history": 2},
    "action scheme": {"action": "full"},
    "method settings": {"method_options": {"gamma": 0.5}},
    "student settings": {"student": {"lr": 0.1}},
    "student": {"student_arch": "tests.envs.own_networks:LinearStudent"},
    "generator": {"generator_arch": "tests.envs.own_networks:LinearGenerator"},
}


@pytest.mark.parametrize("arguments", OTHER_ARGUMENTS.values(), ids=OTHER_ARGUMENTS)
def test_environment_with_other_arguments_refuses_the_file(arguments: dict[str, Any], tmp_path: Path) -> None:
    env = make()
    reset(env, 3)
    env.save(tmp_path / "saved")
    other = make(**arguments)
    reset(other, 3)
    untouched = make(**arguments)
    reset(untouched, 3)
    with pytest.raises(InvalidInputError, match="other arguments; make this one with the same") as caught:
        other.load(tmp_path / "saved")
    assert "\n" not in str(caught.value)
    actions = samples_of(other, 5)
    assert_same(steps(other, actions), steps(untouched, actions))


def test_task_with_another_teacher_refuses_the_file(tmp_path: Path, tiny_teacher: str) -> None:
    env = make()
    reset(env, 3)
    env.save(tmp_path / "saved")
    with pytest.raises(InvalidInputError, match="other arguments"):
        make(task="tests.envs.own_networks:TINY", teacher=tiny_teacher).load(tmp_path / "saved")


@pytest.mark.parametrize("arguments", [{"clock": True}, {"render_mode": "rgb_array"}])
def test_what_the_episode_does_not_depend_on_may_differ(arguments: dict[str, Any], tmp_path: Path) -> None:
    env, other = make(), make(**arguments)
    reset(env, 3)
    env.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    for one, two in zip(steps(env, actions_of(5)), steps(other, actions_of(5)), strict=True):
        np.testing.assert_array_equal(one.observation, two.observation)


def test_teacher_may_lie_in_another_folder(tmp_path: Path, tiny_teacher: str) -> None:
    """The file moves to another machine, where the same weights have another path."""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(tiny_teacher).read_bytes())
    env, other = (make(task="tests.envs.own_networks:TINY", teacher=teacher) for teacher in (tiny_teacher, str(copy)))
    reset(env, 3)
    env.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    assert_same(steps(env, actions_of(5)), steps(other, actions_of(5)))


def test_same_path_with_other_weights_is_refused(tmp_path: Path, tiny_teacher: str) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(Path(tiny_teacher).read_bytes())
    env = make(task="tests.envs.own_networks:TINY", teacher=str(path))
    reset(env, 3)
    env.save(tmp_path / "saved")
    save_weights(path, build_teacher(TINY, seed=1))
    os.utime(path, ns=(1, 1))
    with pytest.raises(InvalidInputError, match="other arguments"):
        make(task="tests.envs.own_networks:TINY", teacher=str(path)).load(tmp_path / "saved")


def test_save_before_reset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        make().save(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    env = make()
    reset(env, 3)
    env.save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.5, 0.99])
def test_file_that_was_cut_short_is_refused(kept: float, saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(InvalidInputError, match=r"saved.*cut short") as caught:
        make().load(saved)
    assert "\n" not in str(caught.value)


def other_structure(saved: Path, structure: str) -> None:
    """Put another description of the tensors into the file."""
    whole = saved.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"] = {"structure": structure}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    saved.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])


@pytest.mark.parametrize(
    "structure", ["", "no JSON", "[]", "[1, 2, 3]", '["tensor", "missing"]', '["value", 3]', '["dict", []]', "null"]
)
def test_file_with_a_damaged_structure_is_refused(structure: str, saved: Path) -> None:
    other_structure(saved, structure)
    with pytest.raises(InvalidInputError, match="saved"):
        make().load(saved)


def test_other_files_are_refused(tmp_path: Path, tiny_teacher: str) -> None:
    (tmp_path / "text").write_text("not a state")
    for path in (tmp_path / "missing", tmp_path / "text", tmp_path, tiny_teacher):
        with pytest.raises(InvalidInputError, match=str(path)) as caught:
            make().load(path)
        assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = make()
    reset(env, 3)
    with pytest.raises(InvalidInputError, match="cannot write"):
        env.save(tmp_path / "file" / "saved")


def test_file_is_replaced_whole(saved: Path) -> None:
    """No temporary file stays behind."""
    env = make()
    reset(env, 4)
    env.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
