"""Being one of several processes; what they do together is in `tests/scripts/test_distill_together.py`."""

from __future__ import annotations

import pytest
import torch
from ssdkd_agents.distilling.together import Leading, joined

from ssdkd_env.errors import InvalidInputError

TOLD = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_who_is_told_but_a_part_is_alone(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers set some of these for commands that know nothing of each other."""
    monkeypatch.delenv(missing)
    with joined() as leading:
        assert isinstance(leading, Leading)
        leading.end()


def test_a_group_of_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined() as leading:
        assert isinstance(leading, Leading)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InvalidInputError, match="process 1 of this machine has no GPU: there are 1; give torchrun"):
        joined().__enter__()
