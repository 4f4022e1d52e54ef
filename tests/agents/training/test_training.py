"""Training leaves everything needed to look at it, use it and go on with it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import TrainedSampler, read_sampler
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.seeds import VALIDATION_SEED
from ssdkd_agents.training.config import MOST_ENVIRONMENTS, TrainingConfig, check_settings, config_of_run, training_seed
from ssdkd_agents.training.train import make_training_env, train
from stable_baselines3.common.vec_env import VecNormalize

from ssdkd_env.envs import SSDKDEnv, sub_environments
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.probe import probe_set
from tests.agents.test_curves import table_of
from tests.agents.trainings import PPO, ROUNDS, SAC, checkpoints, go_on, run, scalars
from tests.envs.episodes import make


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished PPO run. Tests leave it as it is."""
    path = tmp_path_factory.mktemp("runs") / "ppo"
    _, outcome = run(path)
    assert outcome == "finished"
    return path


# --- what a run leaves ---


def test_run_leaves_its_files(finished: Path) -> None:
    names = {str(path.relative_to(finished)).split("/")[0] for path in finished.rglob("*") if path.is_file()}
    files = {"config.json", "command.txt", "machine.json", "outcome.json", "episodes.jsonl", ".lock"}
    assert names == files | {"checkpoints", "tensorboard_1"}


def test_configuration_is_enough_to_train_again(finished: Path) -> None:
    settings = json.loads((finished / "config.json").read_text())
    assert set(settings.pop("versions")) >= {"python", "torch", "stable-baselines3", "sb3-contrib", "cma"}
    assert settings.pop("run") == RunFolder(finished, None).identity
    assert TrainingConfig(**settings) == PPO
    assert config_of_run(RunFolder(finished, None)) == PPO


def test_run_says_how_it_was_stepped_and_how_it_ended(finished: Path) -> None:
    """Grouped environments round otherwise than lone ones."""
    machine = json.loads((finished / "machine.json").read_text())
    assert machine.items() >= {"backend": "loop", "processes": 1, "device": "cpu"}.items()
    outcome = json.loads((finished / "outcome.json").read_text())
    assert outcome == {"outcome": "finished", "timesteps": 12, "best_return": None, "best_timesteps": None}


def test_last_two_checkpoints_are_kept(finished: Path) -> None:
    """They lie between two rollouts: the first boundary after every fifth step, and the end."""
    assert checkpoints(finished) == [6, 12]


@pytest.mark.parametrize(
    ("every", "train_freq", "expected"), [(1, 1, [8, 9]), (4, 3, [6, 9]), (5, 1, [5, 9]), (100, 1, [0, 9])]
)
def test_checkpoints_come_every_so_many_steps_and_at_the_end(
    every: int, train_freq: int, expected: list[int], tmp_path: Path
) -> None:
    hyperparameters = SAC.hyperparameters | {"train_freq": train_freq}
    run(tmp_path / "run", replace(SAC, timesteps=9, checkpoint_every_steps=every, hyperparameters=hyperparameters))
    assert checkpoints(tmp_path / "run") == expected


def test_every_checkpoint_is_a_sampler_with_its_statistics(finished: Path) -> None:
    env = make()
    observation, _ = env.reset(seed=0)
    counts = []
    for steps in checkpoints(finished):
        path = finished / "checkpoints" / f"{steps}.safetensors"
        state = read_sampler(path)
        assert state["counters"]["num_timesteps"] == steps
        assert state["config"]["algorithm"] == "ppo"
        assert state["config"]["env_id"] == PPO.env_id
        assert state["config"]["env_kwargs"] == PPO.env_kwargs
        statistics = state["normalization"]["observation"]
        counts.append(statistics["count"])
        assert statistics["mean"].shape == statistics["var"].shape == (25,)
        assert statistics["mean"].abs().max() > 0.01
        action, _ = TrainedSampler(path, env).predict(observation, deterministic=True)
        assert env.action_space.contains(action)
    # One observation a step and one of the first reset, beside the 1e-4 that Stable-Baselines3 begins with.
    assert counts == pytest.approx([7.0001, 13.0001], abs=1e-6)


def test_every_training_episode_is_a_line(finished: Path) -> None:
    lines = read_lines(finished / "episodes.jsonl")
    assert [line["timesteps"] for line in lines] == [ROUNDS * (i + 1) for i in range(12 // ROUNDS)]
    for line in lines:
        assert set(line) == {"timesteps", "rounds", "return", "accuracy", "probe_agreement", "seconds"}
        assert -1 <= line["return"] <= line["probe_agreement"] <= 1
        assert 0 <= line["accuracy"] <= 1
    assert sorted(line["seconds"] for line in lines) == [line["seconds"] for line in lines]


def test_returns_are_those_of_the_environment_not_normalised_ones(finished: Path) -> None:
    """A gain of agreement on so many probe images is a multiple of one image."""
    env = make()
    count = len(probe_set(env.task, env.device).images)
    assert count == 3 * 64, "a batch of each kind of image"
    for line in read_lines(finished / "episodes.jsonl"):
        assert line["return"] * count == pytest.approx(round(line["return"] * count), abs=1e-2)


def test_tensorboard_shows_the_mean_return(finished: Path) -> None:
    returns = [line["return"] for line in read_lines(finished / "episodes.jsonl")]
    curve = dict(scalars(finished, "rollout/ep_rew_mean"))
    assert curve[6] == pytest.approx(np.mean(returns[:2]), abs=1e-6)
    assert curve[12] == pytest.approx(np.mean(returns), abs=1e-6)


def test_table_has_the_last_validation_and_what_it_is_of(tmp_path: Path) -> None:
    """Also of a run that was lengthened: it shows no number of steps, which TensorBoard would not change."""
    config = replace(PPO, seed=3, timesteps=6, evaluate_every_steps=6, evaluation_episodes=2)
    run(tmp_path / "run", config)
    go_on(tmp_path / "run", replace(config, timesteps=12))
    experiment, rows = table_of(tmp_path)
    (row,) = rows.values()
    last = read_lines(tmp_path / "run" / "evaluations.jsonl")[-1]
    metrics = {metric.name.tag: metric.value for metric in row.metric_values}
    assert last["timesteps"] == 12 and metrics["eval/mean_reward"] == pytest.approx(last["mean_return"], abs=1e-6)
    assert metrics["eval/mean_accuracy"] == pytest.approx(np.mean(last["accuracies"]), abs=1e-6)
    assert (row.hparams["algorithm"].string_value, row.hparams["seed"].number_value) == ("ppo", 3)
    assert row.hparams["env_kwargs"].string_value == str(config.env_kwargs)
    assert "timesteps" not in {column.name for column in experiment.hparam_infos}


def test_same_seed_gives_the_same_sampler(finished: Path, tmp_path: Path) -> None:
    run(tmp_path / "again")
    for steps in checkpoints(finished):
        first, second = (
            load_file(path / "checkpoints" / f"{steps}.safetensors") for path in (finished, tmp_path / "again")
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    curves = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(path / "episodes.jsonl")]
        for path in (finished, tmp_path / "again")
    ]
    assert curves[0] == curves[1]


def test_other_seed_gives_another_sampler(finished: Path, tmp_path: Path) -> None:
    run(tmp_path / "other", replace(PPO, seed=1, timesteps=6))
    first, other = (load_file(path / "checkpoints" / "6.safetensors") for path in (finished, tmp_path / "other"))
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two environments get a process each, wherever the tests run."""
    monkeypatch.setattr(sub_environments, "usable_cores", lambda: 2)


def test_environments_in_processes_train_together(
    tmp_path: Path, two_cores: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(PPO, hyperparameters=PPO.hyperparameters | {"n_envs": 2}, checkpoint_every_steps=7)
    _, outcome = run(tmp_path / "run", config)
    assert outcome == "finished"
    assert "environments: 2, process in 2 processes" in capsys.readouterr().out
    assert checkpoints(tmp_path / "run") == [0, 12], "a rollout has six steps of two environments"
    lines = read_lines(tmp_path / "run" / "episodes.jsonl")
    assert [line["timesteps"] for line in lines] == [6, 6, 12, 12]
    assert lines[0]["return"] != lines[1]["return"] or lines[2]["return"] != lines[3]["return"]
    assert dict(scalars(tmp_path / "run", "rollout/ep_rew_mean"))[12] == pytest.approx(
        np.mean([line["return"] for line in lines]), abs=1e-6
    )


def test_sac_trains_and_goes_on_with_its_replay_buffer(tmp_path: Path) -> None:
    _, outcome = run(tmp_path / "sac", replace(SAC, timesteps=9))
    assert outcome == "finished"
    before = read_sampler(find_sampler_file(tmp_path / "sac"))
    assert before["replay"]["pos"] == 9
    assert go_on(tmp_path / "sac", replace(SAC, timesteps=15)) == "finished"
    after = read_sampler(find_sampler_file(tmp_path / "sac"))
    assert after["replay"]["pos"] == 15
    assert torch.equal(after["replay"]["observations"][:9], before["replay"]["observations"])
    assert after["counters"]["n_updates"] > before["counters"]["n_updates"] > 0
    assert before["variables"]["log_ent_coef"] != after["variables"]["log_ent_coef"]


def test_error_of_the_environment_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: SSDKDEnv, action: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(SSDKDEnv, "step", step)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path / "run")


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": 1000}, "seed=1000"),
        ({"seed": -1}, "seed=-1"),
        ({"timesteps": -1}, "timesteps"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps"),
        ({"image_every_episodes": 0}, "image_every_episodes"),
        ({"evaluate_every_steps": -1}, "evaluate_every_steps"),
        ({"evaluation_episodes": 0}, "evaluation_episodes=0"),
        ({"patience": -1}, "patience"),
        ({"patience": 2, "evaluate_every_steps": 0}, "patience=2"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(changes: dict[str, int], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        replace(PPO, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"algorithm": "dqm"}, "algo='dqm' is unknown"),
        ({"env_id": "SSDKD/Nope-v2"}, "env_id='SSDKD/Nope-v2' is unknown"),
        ({"env_id": "CartPole-v1", "env_kwargs": {}}, "env_id='CartPole-v1' is no distillation environment"),
        ({"env_kwargs": {"bogus": 1}}, "env_kwargs.*bogus"),
        ({"hyperparameters": {"n_envs": 1, "bogus": 1}}, "hyperparameters.*bogus"),
        ({"hyperparameters": {"n_envs": 0}}, "n_envs"),
        ({"hyperparameters": {"n_envs": "many"}}, "n_envs"),
        ({"hyperparameters": {"n_envs": 1, "gamma": "high"}}, "gamma"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_before_anything_is_trained(
    changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        run(tmp_path / "run", replace(PPO, **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_zero_timesteps_take_the_files_number(tmp_path: Path) -> None:
    config = replace(PPO, timesteps=0, hyperparameters=PPO.hyperparameters | {"n_timesteps": 6})
    run(tmp_path / "run", config)
    assert checkpoints(tmp_path / "run") == [0, 6]


def test_seeds_of_training_are_disjoint_and_below_those_of_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []
    original = SSDKDEnv.reset

    def reset(self: SSDKDEnv, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        seen.append(seed)
        return original(self, seed=seed, options=options)

    monkeypatch.setattr(SSDKDEnv, "reset", reset)
    hyperparameters = PPO.hyperparameters | {"n_envs": 2}
    run(tmp_path / "run", replace(PPO, seed=999, hyperparameters=hyperparameters, vectorization="loop"))
    assert [seed for seed in seen if seed is not None] == [training_seed(999), training_seed(999) + 1]
    assert None in seen, "later episodes go on with the environments' own streams"
    most = MOST_ENVIRONMENTS
    assert [training_seed(seed + 1) - training_seed(seed) for seed in (0, 500)] == [most, most]
    assert training_seed(999) + most <= VALIDATION_SEED
    with pytest.raises(InvalidInputError, match=f"n_envs.*at most {most}"):
        check_settings(replace(PPO, hyperparameters={"n_envs": most + 1}))


@pytest.mark.parametrize("normalize", [False, True])
def test_normalisation_follows_the_hyperparameters(normalize: bool) -> None:
    env = make_training_env(PPO, {"n_envs": 1, "normalize": normalize, "gamma": 0.5})
    assert isinstance(env, VecNormalize) == normalize
    if isinstance(env, VecNormalize):
        assert env.gamma == 0.5


def test_progress_bar_is_shown_when_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = replace(PPO, timesteps=6)
    assert train(config, RunFolder(tmp_path / "run", asdict(config)), progress_bar=True) == "finished"
    shown = capfd.readouterr().err
    assert "6/6 steps after 00:0" in shown and "left, return " in shown
    assert "\r" not in shown, "lines, where stderr is no terminal"
