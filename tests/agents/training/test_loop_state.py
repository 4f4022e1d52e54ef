"""What a training's loop holds goes through a file and comes back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ssdkd_agents.training.loop_state import random_state, random_streams_kept, set_random_state

from ssdkd_env.files import load_state, save_state


def draw() -> list[Any]:
    normal = np.random.normal(size=3).tolist()  # an odd number: numpy keeps the fourth for later
    return [normal, random.gauss(0, 1), torch.rand(2).tolist()]


def test_random_streams_come_back_through_a_file(tmp_path: Path) -> None:
    draw()
    save_state(tmp_path / "r", random_state())
    first = draw()
    assert draw() != first
    set_random_state(load_state(tmp_path / "r"))
    assert draw() == first


def test_random_streams_go_on_as_if_nothing_had_been_drawn() -> None:
    state = random_state()
    first = draw()
    set_random_state(state)
    with random_streams_kept():
        draw()
    assert draw() == first
