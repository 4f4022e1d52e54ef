"""Episodes that begin alike share a warm-up, and go on as if each had made its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.beginnings import KEPT
from ssdkd_env.envs.sub_environments import SubEnvironments
from tests.envs.episodes import BUDGET, SMALL_PROBE, WORK_BUDGET

DIVIDED: dict[str, Any] = {
    "instances": "tests.envs.own_networks:SMALL_WORK_SET",
    "action": "division",
    "budget": {name: value for name, value in WORK_BUDGET.items() if name != "buffer_capacity"},
    "probe": SMALL_PROBE,
    "reward": "relative_probe_agreement",
}
ALIKE = {"instance": 1}


@pytest.fixture
def warm_ups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the warm-ups that were done."""
    done: list[int] = []
    warm_up = DistillationRun.warm_up

    def noted(run: DistillationRun) -> Any:
        done.append(run.seed)
        return warm_up(run)

    monkeypatch.setattr(DistillationRun, "warm_up", noted)
    return done


PLAIN: dict[str, Any] = {"budget": BUDGET, "probe": SMALL_PROBE}


@pytest.mark.parametrize(
    "settings",
    [
        DIVIDED | {"reward": "probe_agreement"},
        PLAIN | {"method": "nayer", "method_options": {"steps": 2}},
        PLAIN | {"method": "deepinversion", "method_options": {"steps": 2}},
        PLAIN | {"method": "dafl"},
    ],
    ids=["divided", "nayer", "deepinversion", "dafl"],
)
def test_episode_from_a_shared_warm_up_is_the_one_from_its_own(settings: dict[str, Any]) -> None:
    alone = SSDKDEnv(**settings)
    options = {"instance": len(alone.instances) - 1}
    action = np.full(alone.action_space.shape or (), 0.3, np.float32)
    pool = SubEnvironments(3, settings, "loop", 1)
    try:
        begun = pool.reset({0: 5}, {0: options}, alike=True)
        pool.step({0: -action})  # which must not reach what the others begin from
        begun |= pool.reset({1: 5, 2: 5}, {1: options, 2: options}, alike=True)
        expected = alone.reset(seed=5, options=options)
        for observation, info in begun.values():
            np.testing.assert_array_equal(observation, expected[0])
            assert info == expected[1]
        over = False
        while not over:
            wanted, done = alone.step(action), pool.step({1: action, 2: action})
            over = wanted[2]
            for step in done.values():
                np.testing.assert_array_equal(step[0], wanted[0])
                assert step[1:] == wanted[1:]
        (student,) = pool.get([2], "run")
        assert alone.run is not None
        for ours, theirs in zip(student.student.parameters(), alone.run.student.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        (curve,) = pool.get([1], "curve")
        assert curve == alone.curve
    finally:
        pool.close()


def test_warm_up_is_done_once_for_as_many_as_begin_alike(warm_ups: list[int]) -> None:
    pool = SubEnvironments(4, DIVIDED | {"reward": "probe_agreement"}, "grouped", 1)
    try:
        pool.reset(dict.fromkeys(range(4), 5), dict.fromkeys(range(4), ALIKE), alike=True)
        assert len(warm_ups) == 1
        pool.reset({0: 6, 1: 5}, {0: ALIKE, 1: ALIKE}, alike=True)  # one of the next block, one of this
        assert len(warm_ups) == 2
        pool.reset({2: 5}, {2: {"instance": 0}}, alike=True)  # another instance is another beginning
        assert len(warm_ups) == 3
        assert KEPT == 2
        pool.reset({3: 6}, {3: ALIKE}, alike=True)  # which 5 had been used since: it is made anew
        assert len(warm_ups) == 4
        pool.reset({0: 6}, {0: ALIKE})
        assert len(warm_ups) == 5
    finally:
        pool.close()


def test_what_is_asked_for_wrongly_resets_nothing(warm_ups: list[int]) -> None:
    pool = SubEnvironments(2, DIVIDED | {"reward": "probe_agreement"}, "loop", 1)
    try:
        with pytest.raises(ValueError, match="instance"):
            pool.reset({0: 5, 1: 5}, {0: ALIKE, 1: {"instance": 99}}, alike=True)
        assert not warm_ups
    finally:
        pool.close()
