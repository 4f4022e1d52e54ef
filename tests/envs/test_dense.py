"""A task of dense predictions is an environment like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from sklearn.metrics import jaccard_score

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.task import build_teacher
from tests.envs.episodes import SMALL_PROBE, actions_of, assert_same, reset, steps
from tests.own_networks import DENSE_TASK

TASK = "tests.own_networks:DENSE_TASK"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("dense") / "teacher.safetensors"
    save_weights(path, build_teacher(DENSE_TASK, seed=3))
    return str(path)


@pytest.fixture
def evaluation(tmp_path: Path) -> str:
    """Forty images with label maps, of which some pixels are void."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    labels = (images[:, 0] // 64).astype(np.uint8)
    np.savez(tmp_path / "maps.npz", images=images, labels=labels)
    return str(tmp_path / "maps.npz")


def make(teacher: str, **arguments: Any) -> SSDKDEnv:
    return SSDKDEnv(TASK, teacher=teacher, probe=SMALL_PROBE, **arguments)


def play(env: SSDKDEnv, seed: int) -> Any:
    return [reset(env, seed), *steps(env, actions_of(seed, env.budget.rounds))]


def test_mean_iou_is_reported_beside_the_share_of_pixels(teacher: str, evaluation: str) -> None:
    env = make(teacher, evaluation=evaluation)
    moments = play(env, 1)
    assert all({"accuracy", "mean_iou"} <= moment.info.keys() for moment in moments)
    data = env.task.evaluation(env.device)
    assert env.run is not None and data is not None
    answers = env.run.student_logits(data[0]).argmax(dim=1).flatten().numpy()
    truth = data[1].flatten().numpy()
    union = np.union1d(answers, truth)
    expected = jaccard_score(truth, answers, average=None, labels=union).mean()
    assert moments[-1].info["mean_iou"] == pytest.approx(expected)
    assert moments[-1].info["accuracy"] == pytest.approx((answers == truth).mean())


def test_without_real_data_there_is_neither(teacher: str) -> None:
    assert not {"accuracy", "mean_iou"} & play(make(teacher), 1)[-1].info.keys()


def test_images_have_no_mean_iou() -> None:
    env = SSDKDEnv(probe=SMALL_PROBE, budget={"rounds": 1, "student_steps": 1, "inversion_steps": 1})
    assert "mean_iou" not in reset(env, 0).info


def test_number_beyond_the_classes_is_refused_at_once_unless_it_is_called_void(teacher: str, tmp_path: Path) -> None:
    images, labels = np.zeros((4, 3, 8, 8), dtype=np.uint8), np.full((4, 8, 8), 255, dtype=np.uint8)
    np.savez(tmp_path / "maps.npz", images=images, labels=labels)
    with pytest.raises(InvalidInputError, match=r"evaluation: label maps have the values 255.* give it as void="):
        make(teacher, evaluation=str(tmp_path / "maps.npz"))


def test_saved_episode_goes_on(teacher: str, evaluation: str, tmp_path: Path) -> None:
    whole = play(make(teacher, evaluation=evaluation, evaluate_every_rounds=2), 2)
    env, other = (make(teacher, evaluation=evaluation, evaluate_every_rounds=2) for _ in range(2))
    before = [reset(env, 2), *steps(env, actions_of(2, env.budget.rounds)[:1])]
    env.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    assert_same(whole, [*before, *steps(other, actions_of(2, env.budget.rounds)[1:])])


def test_the_checker_of_gymnasium_is_content(teacher: str, evaluation: str) -> None:
    check_env(make(teacher, evaluation=evaluation), skip_render_check=True)


@pytest.mark.parametrize("method", ["ssdkd", "fast5", "fast10", "dafl", "dfad", "deepinversion"])
def test_methods_play_it(teacher: str, method: str) -> None:
    moments = play(make(teacher, method=method), 3)
    assert moments[-1].terminated and not moments[-1].info["diverged"]
