"""What no memory holds is refused before it is tried."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from ssdkd_env.devices import memory_of
from ssdkd_env.distillation.sizes import Sizes, check_memory
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import load_task
from tests.envs.episodes import make

GIB = 2**30


def check(available: int | None, budget: dict[str, int], method: str = "ssdkd") -> None:
    task = load_task("digits")
    changed = replace(task.spec.budget, **budget)
    played = task.make_method(method)
    check_memory(Sizes.of(played, changed, task), played, changed, task, available)


@pytest.mark.parametrize(("name", "each"), [("buffer_capacity", 64), ("candidates", 12_800), ("batch_size", 12_800)])
def test_what_needs_more_than_there_is_is_refused(name: str, each: int) -> None:
    """Digits are 1×8×8: 64 bytes in the buffer, and 64 · 50 numbers of four bytes in the networks."""
    fits = GIB // 10 // each
    check(GIB // 10, {name: fits})
    said = f"budget['{name}']={fits + 1:,}: images of (1, 8, 8) need at least 0.1 GiB here, and there are 0.1; give"
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        check(GIB // 10, {name: fits + 1})


@pytest.mark.parametrize(
    ("method", "budget", "named"),
    [
        ("fast5", {"work": 10**15}, "method_options['pool_capacity']="),
        ("dafl", {"batch_size": 10**6}, "budget['batch_size']="),
        ("vanilla_kd", {}, "method_options['real_share']="),
    ],
)
def test_remedy_is_what_makes_it_large(method: str, budget: dict[str, int], named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{re.escape(named)}"):
        check(64, budget, method)


def test_where_nobody_knows_the_memory_nothing_is_refused() -> None:
    check(None, {"batch_size": 10_000_000})


def test_this_machine_has_some() -> None:
    memory = memory_of(torch.device("cpu"))
    assert memory is None or 2**28 < memory < 2**50
    assert memory_of(torch.device("meta")) is None


def test_environment_refuses_it_at_its_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdkd_env.distillation.run.memory_of", lambda device: GIB)
    env = make(budget={"batch_size": 1_000_000})
    with pytest.raises(InvalidInputError, match=r"batch_size.*need at least 11\.9 GiB here, and there are 1\.0"):
        env.reset(seed=0)
