"""The probe set as the environment makes it: from the teacher alone, once a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.tasks.probe import probe_set
from tests.envs.conftest import forget_tasks
from tests.envs.episodes import actions_of, assert_same, episode, make, reset

DROPOUT = "tests.envs.own_networks:dropout_generator"


def test_episode_neither_holds_nor_changes_the_probe_images() -> None:
    env = make()
    probe = probe_set(env.task, env.device)
    before = probe.images.clone()
    episode(env, 3, actions_of(5))
    assert env.run is not None
    residents = {image.numpy().tobytes() for image in env.run.buffer.residents.images}
    assert not residents & {image.numpy().tobytes() for image in probe.images}
    assert torch.equal(before, probe.images)


def test_it_is_made_once_a_teacher_whatever_budget_and_student(empty_caches: Path) -> None:
    """It takes many seconds; users vary budget, student, reward and method."""
    for arguments in ({}, {"budget": {"rounds": 2}}, {"student": {"lr": 0.1}}, {"reward": "probe_discrepancy"}):
        reset(make(**arguments), 0)
    assert len(list(empty_caches.iterdir())) == 1


def test_another_process_finds_it(empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = episode(make(), 3, actions_of(5))
    (file,) = empty_caches.iterdir()
    written = file.stat().st_mtime_ns
    forget_tasks(monkeypatch)
    assert_same(first, episode(make(), 3, actions_of(5)))
    assert file.stat().st_mtime_ns == written


def test_other_teacher_has_another_one(empty_caches: Path, tiny_teacher: str) -> None:
    reset(make(), 0)
    reset(make(task="tests.envs.own_networks:TINY", teacher=tiny_teacher), 0)
    assert len(list(empty_caches.iterdir())) == 2


def test_without_a_folder_to_keep_it_there_is_a_warning_and_the_same_episode(
    empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = episode(make(), 3, actions_of(5))
    forget_tasks(monkeypatch)
    (empty_caches / "file").write_text("")
    monkeypatch.setenv("SSDKD_CACHE", str(empty_caches / "file" / "folder"))
    with pytest.warns(UserWarning, match="SSDKD_CACHE"):
        assert_same(kept, episode(make(), 3, actions_of(5)))


def test_file_that_was_cut_short_is_made_anew(empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = episode(make(), 3, actions_of(5))
    (file,) = empty_caches.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    forget_tasks(monkeypatch)
    assert_same(first, episode(make(), 3, actions_of(5)))


def test_it_does_not_depend_on_the_global_generator(empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a generator that draws from it, as dropout does."""
    made = []
    for seed in (1, 2):
        monkeypatch.setenv("SSDKD_CACHE", str(empty_caches / str(seed)))
        forget_tasks(monkeypatch)
        env = make(generator_arch=DROPOUT)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append(probe_set(env.task, env.device).images)
    assert torch.equal(*made)


def test_default_environment_judges_by_images_of_every_class() -> None:
    """The real thing, no argument at all: a probe set that is fit to judge by, a reset, a step."""
    env = SSDKDEnv()
    probe = probe_set(env.task, env.device)
    teacher, spec = env.task.teacher_on(env.device), env.task.spec
    with torch.no_grad():
        shares = teacher((probe.images.float() / 255 - spec.mean[0]) / spec.std[0]).softmax(1)
    assert len(probe.images) >= 200
    assert (shares.argmax(1).bincount(minlength=10) > 0).all()
    assert shares.amax(1).mean() > 0.7  # the teacher is sure of most that it sees
    assert len({image.numpy().tobytes() for image in probe.images}) > 0.9 * len(probe.images)
    assert probe.score(teacher).agreement == 1.0
    assert probe.score(teacher).discrepancy == pytest.approx(0.0, abs=1e-6)
    for moment in episode(env, 3, [env.paper_action]):
        assert moment.observation in env.observation_space
