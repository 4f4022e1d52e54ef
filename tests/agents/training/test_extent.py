"""Steps that are really done, and trainings in which nothing would be learnt, are known before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.training.config import check_settings
from ssdkd_agents.training.extent import announce, iteration_steps, last_step

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import agent, config_of
from tests.agents.trainings import PPO, SAC, checkpoints, run


def made(algorithm: str, **overrides: Any) -> Any:
    return agent(config_of(algorithm, **overrides))


@pytest.mark.parametrize(
    ("algorithm", "overrides", "asked", "done", "expected"),
    [
        ("ppo", {"n_steps": 6}, 7, 0, 12),
        ("ppo", {"n_steps": 6}, 12, 0, 12),
        ("ppo", {"n_steps": 6}, 13, 0, 24),
        ("ppo", {"n_steps": 6}, 25, 12, 36),
        ("ppo", {"n_steps": 6}, 12, 24, 24),
        ("a2c", {"n_steps": 4}, 1, 0, 8),
        ("trpo", {"n_steps": 4}, 9, 0, 16),
        ("recurrent_ppo", {"n_steps": 4}, 3, 0, 8),
        ("sac", {"train_freq": 1}, 7, 0, 8),
        ("td3", {"train_freq": [3, "step"]}, 7, 0, 12),
        ("dqn", {"train_freq": 4}, 7, 0, 8),
        ("ars", {}, 7, 0, None),
        ("cma_es", {}, 7, 0, None),
        ("grpo", {}, 7, 0, None),
    ],
)
def test_last_step_is_the_one_at_which_the_loop_ends(
    algorithm: str, overrides: dict[str, Any], asked: int, done: int, expected: int | None
) -> None:
    """Two environments each; the algorithm's own loop agrees."""
    model = made(algorithm, **overrides)
    assert last_step(model, asked, done) == expected
    if expected is not None and done == 0:
        assert model.learn(asked).num_timesteps == expected


def test_episodes_have_no_length_before_they_are_played() -> None:
    model = made("sac", n_envs=1, train_freq=[2, "episode"])
    assert iteration_steps(model) is last_step(model, 7) is None
    assert announce(model, 7, 0, 0)[0].startswith("steps: 7 at least;")


def test_what_is_done_otherwise_than_asked_is_said() -> None:
    ppo = made("ppo", n_steps=6)
    assert announce(ppo, 12, 0, 0) == announce(ppo, 12, 0, 12) == announce(ppo, 24, 12, 5) == []
    assert announce(ppo, 7, 0, 0) == ["steps: 12, because 7 are no whole number of rollouts of 12 (n_envs=2)"]
    assert announce(ppo, 12, 0, 1280) == ["one validation, of the last agent: evaluate_every_steps=1280"]
    assert announce(made("sac", batch_size=30), 20, 0, 0) == [
        "batch_size=30 is more than all 20 steps: batches hold some more than once"
    ]


def test_line_comes_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """7 steps became 12 without a word."""
    run(tmp_path / "run", replace(PPO, timesteps=7, hyperparameters=PPO.hyperparameters | {"n_envs": 2, "n_steps": 3}))
    assert "steps: 12, because 7 are no whole number of rollouts" in capsys.readouterr().out
    assert max(checkpoints(tmp_path / "run")) == 12


@pytest.mark.parametrize(
    ("timesteps", "changes", "match"),
    [
        (12, {"learning_starts": 12}, "'learning_starts'.=12: the training ends after 12 steps, without an update"),
        (12, {"learning_starts": 1000}, "'learning_starts'.=1000: the training ends after 12 steps"),
        (11, {"learning_starts": 12, "n_envs": 4}, "ends after 12 steps, without an update"),
        (12, {"batch_size": 200}, "'batch_size'.=200: the replay holds no more than buffer_size=100"),
    ],
)
def test_training_without_an_update_is_refused(timesteps: int, changes: dict[str, int], match: str) -> None:
    config = replace(SAC, timesteps=timesteps, hyperparameters=SAC.hyperparameters | changes)
    with pytest.raises(InvalidInputError, match=match):
        check_settings(config)


def test_one_update_is_enough() -> None:
    """Thirteen steps of four environments are sixteen, of which the last are after the start."""
    check_settings(
        replace(SAC, timesteps=13, hyperparameters=SAC.hyperparameters | {"n_envs": 4, "learning_starts": 15})
    )
