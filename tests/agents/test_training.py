"""Training leaves everything needed to look at it, use it and go on with it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from agents import training
from agents.algorithms import build_model, load_hyperparameters
from agents.experiments import HELD_OUT_SEED
from agents.runs import RunFolder, read_lines
from agents.storage import TrainedSampler, find_sampler_file, read_sampler
from agents.training import TrainingConfig, make_training_env, train
from agents.vec_env import DistillationVecEnv
from ssdkd_env.envs import SSDKDEnv, pool
from ssdkd_env.envs.members import RemoteMembers
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, make

ROUNDS = BUDGET["rounds"]
PPO = TrainingConfig(
    env_id="SSDKD/Digits-v1",
    algorithm="ppo",
    timesteps=12,
    env_kwargs={"budget": BUDGET},
    hyperparameters={"n_envs": 1, "n_steps": 6, "batch_size": 6, "n_epochs": 2},
    checkpoint_every=5,
    image_every=1,
)
SAC = replace(
    PPO, algorithm="sac", hyperparameters={"n_envs": 1, "learning_starts": 4, "batch_size": 4, "buffer_size": 100}
)


def run(path: Path, config: TrainingConfig = PPO) -> tuple[RunFolder, str]:
    folder = RunFolder(path, asdict(config))
    return folder, train(config, folder, progress_bar=False)


def go_on(path: Path, config: TrainingConfig) -> str:
    return train(config, RunFolder(path, None), resume=True, progress_bar=False)


def checkpoints(path: Path) -> list[int]:
    """Steps of the checkpoints; any other file there fails."""
    return sorted(int(file.name.removesuffix(".safetensors")) for file in (path / "checkpoints").iterdir())


def scalars(path: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of a TensorBoard curve; there must be one folder of events."""
    (folder,) = {file.parent for file in path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@contextmanager
def interrupt_after(steps: int) -> Iterator[None]:
    """Press Ctrl-C in the middle of an environment's next step."""
    original, done = SSDKDEnv.step_course, []

    def step_course(self: SSDKDEnv, action: Any) -> Any:
        done.append(1)
        if len(done) == steps + 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, action)

    # A shell's background job, in which these tests may run, ignores Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SSDKDEnv, "step_course", step_course)
            yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Ctrl-C works as before"
    finally:
        signal.signal(signal.SIGINT, handler)


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
    assert names == {"config.json", "command.txt", "checkpoints", "episodes.jsonl", "tensorboard_1"}


def test_configuration_is_enough_to_train_again(finished: Path) -> None:
    settings = json.loads((finished / "config.json").read_text())
    assert set(settings.pop("versions")) >= {"python", "torch", "stable-baselines3"}
    assert TrainingConfig(**settings) == PPO


def test_checkpoints_come_every_so_many_steps_and_at_the_end(finished: Path) -> None:
    assert checkpoints(finished) == [5, 10, 12]


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
    assert counts == pytest.approx([6.0001, 11.0001, 13.0001], abs=1e-6)


def test_every_training_episode_is_a_line(finished: Path) -> None:
    lines = read_lines(finished / "episodes.jsonl")
    assert [line["timesteps"] for line in lines] == [ROUNDS * (i + 1) for i in range(12 // ROUNDS)]
    for line in lines:
        assert set(line) == {"timesteps", "return", "accuracy", "probe_agreement", "seconds"}
        assert -1 <= line["return"] <= line["probe_agreement"] <= 1
        assert 0 <= line["accuracy"] <= 1
    assert sorted(line["seconds"] for line in lines) == [line["seconds"] for line in lines]


def test_returns_are_those_of_the_environment_not_normalised_ones(finished: Path) -> None:
    """A gain of agreement on 512 probe images is a multiple of 1/512."""
    for line in read_lines(finished / "episodes.jsonl"):
        assert line["return"] * 512 == pytest.approx(round(line["return"] * 512), abs=1e-2)


def test_tensorboard_shows_the_mean_return(finished: Path) -> None:
    returns = [line["return"] for line in read_lines(finished / "episodes.jsonl")]
    curve = dict(scalars(finished, "rollout/ep_rew_mean"))
    assert curve[6] == pytest.approx(np.mean(returns[:2]), abs=1e-6)
    assert curve[12] == pytest.approx(np.mean(returns), abs=1e-6)


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
    first, other = (load_file(path / "checkpoints" / "5.safetensors") for path in (finished, tmp_path / "other"))
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two environments get a process each, wherever the tests run."""
    monkeypatch.setattr(pool, "usable_cores", lambda: 2)


@pytest.fixture
def two_workers(two_cores: None) -> Iterator[VecEnv]:
    env = make_training_env(PPO, {"n_envs": 2, "normalize": True}, first_seed=0)
    assert len(parts_of(env)) == 2
    yield env
    env.close()


def parts_of(env: VecEnv) -> list[RemoteMembers]:
    """The processes behind a training environment."""
    made = env.unwrapped
    assert isinstance(made, DistillationVecEnv)
    parts = made._pool._parts
    assert all(isinstance(part, RemoteMembers) for part in parts)
    return parts  # type: ignore[return-value]


def test_checkpoint_does_not_ask_workers_that_are_in_the_middle_of_a_step(
    two_workers: VecEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C their pipes may hold the answer to another question."""
    hyperparameters = load_hyperparameters("ppo", PPO.env_id, PPO.hyperparameters | {"n_envs": 2})
    model = build_model("ppo", two_workers, hyperparameters, seed=0)
    two_workers.reset()
    for part in parts_of(two_workers):
        part.begin("step", {0: np.zeros(5, dtype=np.float32)})
        monkeypatch.setattr(part, "begin", lambda *_: pytest.fail("a worker was asked in the middle of a step"))
    config = {"algorithm": "ppo", "hyperparameters": hyperparameters, "env_id": PPO.env_id, "env_kwargs": {}}
    training._save_checkpoint(RunFolder(tmp_path / "run", {}), model, config)
    state = read_sampler(find_sampler_file(tmp_path / "run"))
    assert state["names"] == {"observation": list(make().observation_names), "action": list(make().action_names)}
    TrainedSampler(find_sampler_file(tmp_path / "run"), make())


def test_environments_in_processes_train_together(
    tmp_path: Path, two_cores: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(PPO, hyperparameters=PPO.hyperparameters | {"n_envs": 2}, checkpoint_every=7)
    _, outcome = run(tmp_path / "run", config)
    assert outcome == "finished"
    assert "environments: 2, process in 2 processes" in capsys.readouterr().out
    assert checkpoints(tmp_path / "run") == [8, 12], "two steps at once: the first multiple of two from 7 on"
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


# --- going on ---


def test_resumed_run_is_one_curve(tmp_path: Path) -> None:
    run(tmp_path / "run")
    assert go_on(tmp_path / "run", replace(PPO, timesteps=24)) == "finished"
    assert checkpoints(tmp_path / "run") == [5, 10, 12, 17, 22, 24]
    lines = read_lines(tmp_path / "run" / "episodes.jsonl")
    assert [line["timesteps"] for line in lines] == list(range(3, 25, 3))
    curve = scalars(tmp_path / "run", "rollout/ep_rew_mean")
    assert [step for step, _ in curve] == sorted({step for step, _ in curve}), "no step twice, none back in time"
    assert {6, 12, 18, 24} <= {step for step, _ in curve}
    state = read_sampler(find_sampler_file(tmp_path / "run"))
    assert state["counters"]["num_timesteps"] == 24
    assert state["counters"]["n_updates"] == 4 * 2
    assert state["normalization"]["observation"]["count"] == pytest.approx(13 + 13, abs=0.01)


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The seed of every reset of an environment in this process."""
    seen: list[int | None] = []
    original = SSDKDEnv.reset_course

    def reset_course(self: SSDKDEnv, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        seen.append(seed)
        return original(self, seed=seed, options=options)

    monkeypatch.setattr(SSDKDEnv, "reset_course", reset_course)
    return seen


def test_resumed_run_plays_other_episodes_than_before(tmp_path: Path, seeds: list[int | None]) -> None:
    """Otherwise the agent would learn from the same episodes again."""
    run(tmp_path / "run", replace(PPO, timesteps=6))
    go_on(tmp_path / "run", replace(PPO, timesteps=12))
    given = [seed for seed in seeds if seed is not None]
    assert len(given) == len(set(given)) == 2
    assert all(0 <= seed < HELD_OUT_SEED for seed in given)


def test_run_that_is_done_is_not_resumed(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    for timesteps in (12, 3):
        with pytest.raises(
            InvalidInputError, match=rf"timesteps={timesteps}: the run in .* has already done 12; ask for"
        ):
            go_on(finished, replace(PPO, timesteps=timesteps))
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_run_without_a_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", asdict(PPO))
    with pytest.raises(InvalidInputError, match="holds no checkpoint yet"):
        go_on(tmp_path / "run", PPO)


def test_damaged_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", asdict(PPO))
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "6.safetensors").write_bytes(b"half")
    with pytest.raises(InvalidInputError, match=r"6\.safetensors"):
        go_on(tmp_path / "run", PPO)


# --- Ctrl-C ---


@pytest.mark.parametrize("config", [PPO, SAC], ids=["ppo", "sac"])
@pytest.mark.parametrize("steps", [0, 4, 8])
def test_interrupted_run_loses_nothing(steps: int, config: TrainingConfig, tmp_path: Path) -> None:
    """The step in which Ctrl-C falls may count or not."""
    with interrupt_after(steps):
        _, outcome = run(tmp_path / "run", config)
    assert outcome == "interrupted"
    done = max(checkpoints(tmp_path / "run"))
    assert done in (steps, steps + 1)
    lines = read_lines(tmp_path / "run" / "episodes.jsonl") if done >= ROUNDS else []
    assert len(lines) == done // ROUNDS
    assert read_sampler(find_sampler_file(tmp_path / "run"))["counters"]["num_timesteps"] == done
    assert go_on(tmp_path / "run", replace(config, timesteps=done + 6)) == "finished"
    assert max(checkpoints(tmp_path / "run")) == done + 6


class InterruptedPipe:
    """A worker's pipe; Ctrl-C is pressed while the parent waits for its fourth answer."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.answers = pipe, 0

    def recv(self) -> Any:
        self.answers += 1
        if self.answers == 4:
            signal.raise_signal(signal.SIGINT)
        return self.pipe.recv()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)


@pytest.mark.timeout(60)
def test_interrupt_between_the_answers_of_two_workers_neither_hangs_nor_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_cores: None
) -> None:
    """The first worker has answered then, and will not answer again."""
    original = make_training_env

    def make_env(*arguments: Any, **keywords: Any) -> VecEnv:
        env = original(*arguments, **keywords)
        second = parts_of(env)[1]
        monkeypatch.setattr(second, "_connection", InterruptedPipe(second._connection))
        return env

    monkeypatch.setattr(training, "make_training_env", make_env)
    with interrupt_after(1000):
        _, outcome = run(tmp_path / "run", replace(PPO, hyperparameters=PPO.hyperparameters | {"n_envs": 2}))
    assert outcome == "interrupted"
    assert max(checkpoints(tmp_path / "run")) > 0
    TrainedSampler(find_sampler_file(tmp_path / "run"), make())


def test_interrupt_while_a_checkpoint_is_written_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = os.replace, []

    def rename(source: Path, target: Path) -> None:
        if Path(target).parent.name == "checkpoints":
            calls.append(target)
            if len(calls) == 1:
                signal.raise_signal(signal.SIGINT)
        original(source, target)

    monkeypatch.setattr(os, "replace", rename)
    with interrupt_after(1000):
        _, outcome = run(tmp_path / "run")
    assert outcome == "interrupted"
    assert checkpoints(tmp_path / "run") in ([5], [5, 6])
    for steps in checkpoints(tmp_path / "run"):
        read_sampler(tmp_path / "run" / "checkpoints" / f"{steps}.safetensors")


def test_error_of_the_environment_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step_course(self: SSDKDEnv, action: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(SSDKDEnv, "step_course", step_course)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path / "run")


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": 1000}, "seed=1000"),
        ({"seed": -1}, "seed=-1"),
        ({"timesteps": -1}, "timesteps"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"image_every": 0}, "image_every"),
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
        ({"env_id": "SSDKD/Nope-v1"}, "env='SSDKD/Nope-v1' is unknown"),
        ({"env_id": "CartPole-v1", "env_kwargs": {}}, "env='CartPole-v1' is no distillation environment"),
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
    assert checkpoints(tmp_path / "run") == [5, 6]


def test_training_environments_never_use_held_out_seeds(seeds: list[int | None]) -> None:
    env = make_training_env(replace(PPO, seed=999), {"n_envs": 1}, first_seed=999_999)
    env.reset()
    assert seeds == [HELD_OUT_SEED - 1]
    with pytest.raises(AssertionError):
        make_training_env(PPO, {"n_envs": 1}, first_seed=HELD_OUT_SEED)


@pytest.mark.parametrize("normalize", [False, True])
def test_normalisation_follows_the_hyperparameters(normalize: bool) -> None:
    env = make_training_env(PPO, {"n_envs": 1, "normalize": normalize, "gamma": 0.5}, first_seed=0)
    assert isinstance(env, VecNormalize) == normalize
    if isinstance(env, VecNormalize):
        assert env.gamma == 0.5


def test_progress_bar_is_shown_when_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = replace(PPO, timesteps=6)
    assert train(config, RunFolder(tmp_path / "run", asdict(config)), progress_bar=True) == "finished"
    captured = capfd.readouterr()
    assert "6/6" in captured.out + captured.err


def test_flat_values_can_be_shown_by_tensorboard() -> None:
    assert training._flat({"a": 1, "b": {"c": 2}, "d": None, "e": True, "f": "x", "g": [1]}) == {
        "a": 1,
        "b": "{'c': 2}",
        "d": "None",
        "e": True,
        "f": "x",
        "g": "[1]",
    }
