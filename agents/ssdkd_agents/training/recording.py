"""What the training environments did in their last step, and the log of finished episodes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from ssdkd_agents.runs import EPISODES_FILE, RunFolder


class StepRecorder(VecEnvWrapper):
    """Keeps the last step for callbacks, whatever the algorithm.

    ARS plays whole episodes in `evaluate_policy` and tells its callbacks that there was a step, not what it gave.
    Place it around `VecMonitor`, inside `VecNormalize`.

    Attributes:
        steps: taken so far; a callback that is called twice for one step sees it here.
        actions: (num_envs, ...) as the environments received them.
        dones: (num_envs,) bool.
        infos: one a environment; a finished episode's holds `"episode"`.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.steps = 0
        self.actions: NDArray[Any] = np.zeros(0)
        self.dones: NDArray[np.bool_] = np.zeros(venv.num_envs, dtype=bool)
        self.infos: list[dict[str, Any]] = []

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        return self.venv.reset()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions and pass them on."""
        self.actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Pass on what the step gave and keep it."""
        observations, rewards, self.dones, self.infos = self.venv.step_wait()
        self.steps += 1
        return observations, rewards, self.dones, self.infos


class EpisodeLog(BaseCallback):
    """Writes one line of `episodes.jsonl` for every training episode.

    Args:
        folder: the run's.
        recorder: around the training environments.
        seconds: that the run has taken so far.
        episodes: that have ended so far.
    """

    def __init__(self, folder: RunFolder, recorder: StepRecorder, seconds: float = 0.0, episodes: int = 0) -> None:
        super().__init__()
        self.episodes = episodes
        self._folder, self._recorder = folder, recorder
        self._started = time.time() - seconds
        self._seen = recorder.steps

    @property
    def seconds(self) -> float:
        """Wall time of the run, that before an interruption included."""
        return time.time() - self._started

    def _on_step(self) -> bool:
        if self._recorder.steps == self._seen:
            return True
        self._seen = self._recorder.steps
        for info in self._recorder.infos:
            if "episode" in info:
                line = {
                    "timesteps": self.num_timesteps,
                    "rounds": info["round"],
                    "return": float(info["episode"]["r"]),
                    "accuracy": info.get("accuracy"),
                    "probe_agreement": info["probe_agreement"],
                    "seconds": self.seconds,
                } | ({"mean_iou": info["mean_iou"]} if "mean_iou" in info else {})
                self._folder.append(line, file=EPISODES_FILE)
                self.episodes += 1
        return True
