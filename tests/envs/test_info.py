"""What `info` holds."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import REWARD_NAMES, ROUNDS, actions_of, episode, make, reset, rounds_measured, steps


@pytest.mark.parametrize("reward", REWARD_NAMES)
def test_keys_are_the_same_after_every_reset_and_step(reward: str) -> None:
    moments = episode(make(reward=reward), 3, actions_of(5))
    for moment in moments:
        assert list(moment.info) == list(moments[0].info)
    assert "episode" not in moments[0].info


WHOLE = ("round", "replaced", "synthesized", "instance", "work", "inversion_steps", "student_steps")


def test_values_are_plain_python_numbers() -> None:
    for moment in episode(make(), 3, actions_of(5)):
        types = {key: type(value) for key, value in moment.info.items()}
        assert types.pop("diverged") is bool
        assert {types.pop(key) for key in WHOLE} == {int}
        assert set(types.values()) == {float}
        json.dumps(moment.info, allow_nan=False)


def test_counts_follow_the_budget() -> None:
    moments = episode(make(), 3, actions_of(5))
    assert [moment.info["synthesized"] for moment in moments] == [16 * (1 + index) for index in range(ROUNDS + 1)]
    assert all(0 <= moment.info["replaced"] <= 16 for moment in moments)


def test_number_of_synthesised_images_does_not_depend_on_the_actions() -> None:
    first, second = (episode(make(), 3, actions_of(seed)) for seed in (5, 6))
    assert first[-1].info["synthesized"] == second[-1].info["synthesized"]


def test_accuracy_is_the_students_on_the_real_data() -> None:
    env = make()
    reset(env, 3)
    for moment in steps(env, actions_of(5)):
        assert env.run is not None
        images, labels = env.task.spec.evaluation()  # type: ignore[misc]
        student = env.run.student
        hits = student((images.float() / 255 - 0.305) / 0.376).argmax(1) == labels
        assert moment.info["accuracy"] == pytest.approx(
            float(hits.double().mean()), abs=1e-2
        )  # near ties fall either way in another batch size


def test_seconds_are_there_only_when_asked_for() -> None:
    without = episode(make(), 3, actions_of(5))
    with_clock = episode(make(clock=True), 3, actions_of(5))
    for plain, timed in zip(without, with_clock, strict=True):
        seconds = timed.info.pop("seconds")
        assert set(seconds) == {"synthesis", "distillation"}
        assert all(type(value) is float and value >= 0.0 for value in seconds.values())
        assert plain.info == timed.info
    assert "seconds" not in without[0].info
    assert all(value > 0.0 for value in seconds.values())


def test_info_belongs_to_the_caller() -> None:
    env = make()
    first = reset(env, 3)
    clean = dict(first.info)
    first.info.clear()
    assert env._info() == clean


def test_accuracy_may_be_measured_in_some_rounds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, every so many rounds and at the end; in between the last value stands."""
    every, some = make(budget={"rounds": 5}), make(budget={"rounds": 5}, evaluate_every_rounds=3)
    actions = actions_of(5, count=5)
    each = [moment.info["accuracy"] for moment in episode(every, 3, actions)]
    measured = rounds_measured(monkeypatch)
    stated = [moment.info["accuracy"] for moment in episode(some, 3, actions)]
    assert measured == [0, 3, 5]
    assert stated == [each[0], each[0], each[0], each[3], each[3], each[5]]


def test_accuracy_of_a_student_that_has_diverged_is_its_own() -> None:
    env = make(evaluate_every_rounds=10)
    healthy = reset(env, 3).info["accuracy"]
    assert env.run is not None
    with torch.no_grad():
        for weights in env.run.student.parameters():
            weights.fill_(math.nan)
    last = steps(env, actions_of(5)[:1])[0]
    assert last.terminated
    assert last.info["accuracy"] != healthy
    real = env.task.evaluation(env.device)
    assert real is not None
    assert last.info["accuracy"] == pytest.approx(np.mean(real[1].numpy() == 0))  # what the largest of NaNs is


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None])
def test_a_wrong_interval_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="evaluate_every_rounds="):
        make(evaluate_every_rounds=wrong)
