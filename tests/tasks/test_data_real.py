"""The real CIFAR-10 (JPEG) archive, where there is one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import find_dataset, load_split, splits

BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "data"


def real_cifar10() -> Path | None:
    root = None if os.environ.get("SSDKD_DATA") else BESIDE_THE_CHECKOUT
    try:
        return find_dataset("cifar10", root)
    except InvalidInputError:
        return None


def test_cifar10_is_whole_and_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = real_cifar10()
    if source is None:
        pytest.skip("no CIFAR-10 in SSDKD_DATA, nor in ../shared/data beside the checkout")
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path))
    train, test = load_split("data", source, "train"), load_split("data", source, "test")
    assert train[0].shape == (50_000, 3, 32, 32)
    assert test[0].shape == (10_000, 3, 32, 32)
    assert train[1].bincount().tolist() == [5_000] * 10
    assert test[1].bincount().tolist() == [1_000] * 10
    mean = train[0].double().mean(dim=(0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)  # of CIFAR-10, as every recipe has it
    if source.is_file():
        monkeypatch.setattr(splits, "list_members", None)
        started = time.process_time()
        again = load_split("data", source, "train")
        assert time.process_time() - started < 1
        assert again[0].equal(train[0]) and again[1].equal(train[1])
