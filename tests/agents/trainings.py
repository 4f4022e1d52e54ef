"""Small trainings, and what they leave."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.training.config import TrainingConfig
from ssdkd_agents.training.train import train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from ssdkd_env.envs import SSDKDEnv
from tests.envs.episodes import BUDGET, SMALL_PROBE

ROUNDS = BUDGET["rounds"]
ENDINGS = ("safetensors", "state.safetensors", "episodes", "manifest.json")
PPO = TrainingConfig(
    env_id="SSDKD/Digits-v2",
    algorithm="ppo",
    timesteps=12,
    env_kwargs={"budget": BUDGET, "probe": SMALL_PROBE},
    hyperparameters={"n_envs": 1, "n_steps": 6, "batch_size": 6, "n_epochs": 2, "normalize": True},
    checkpoint_every_steps=5,
    image_every_episodes=1,
    evaluate_every_steps=0,
)
SAC = replace(
    PPO,
    algorithm="sac",
    hyperparameters={"n_envs": 1, "learning_starts": 4, "batch_size": 4, "buffer_size": 100, "normalize": True},
)


def run(path: Path, config: TrainingConfig = PPO) -> tuple[RunFolder, str]:
    folder = RunFolder(path, asdict(config))
    return folder, train(config, folder, progress_bar=False)


def go_on(path: Path, config: TrainingConfig) -> str:
    return train(config, RunFolder.resume(path), resume=True, progress_bar=False)


def checkpoints(path: Path) -> list[int]:
    """Steps of the checkpoints, each of which must be whole; any other file there fails."""
    names = {file.name for file in (path / "checkpoints").iterdir()}
    steps = sorted(int(name.partition(".")[0]) for name in names if name.endswith(".episodes"))
    assert names == {f"{step}.{end}" for step in steps for end in ENDINGS}
    return steps


def scalars(path: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of a TensorBoard curve; there must be one folder of events."""
    return curves(path).get(tag, [])


def curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag → (step, value) of all TensorBoard curves; there must be one folder of events."""
    (folder,) = {file.parent for file in path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@contextmanager
def interrupt_after(steps: int) -> Iterator[None]:
    """Press Ctrl-C in the middle of an environment's next step."""
    original, done = SSDKDEnv.step, []

    def step(self: SSDKDEnv, action: Any) -> Any:
        done.append(1)
        if len(done) == steps + 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, action)

    # A shell's background job, in which these tests may run, ignores Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SSDKDEnv, "step", step)
            yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Ctrl-C works as before"
    finally:
        signal.signal(signal.SIGINT, handler)
