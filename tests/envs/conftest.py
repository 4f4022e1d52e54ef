"""Fixtures of the environment's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ssdkd_env.envs import references
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.recent import Recent
from ssdkd_env.tasks import registry
from ssdkd_env.tasks.task import build_teacher
from tests.envs.own_networks import TINY


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep these tests' probe sets apart, and forget them afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSDKD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(registry, "_loaded", Recent(registry.KEPT_TASKS))
        patch.setattr(references, "_known", Recent(10))
        yield


def forget_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And their teachers and probe sets, as a process that begins."""
    for cache in ("_loaded", "_taught"):
        monkeypatch.setattr(registry, cache, Recent(registry.KEPT_TASKS))


@pytest.fixture
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Forget tasks, probe sets and references, as a first process on a new machine; returns the cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SSDKD_CACHE", str(folder))
    forget_tasks(monkeypatch)
    monkeypatch.setattr(references, "_known", Recent(10))
    return folder


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights file of the tiny task's teacher."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, build_teacher(TINY, seed=0))
    return str(path)
