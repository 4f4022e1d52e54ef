"""Finished episodes are logged whatever the algorithm shows its callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import ARS
from ssdkd_agents.lines import read_lines
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.training.callbacks import EPISODE_TAGS, ROUND_TAGS, DistillationCallback
from ssdkd_agents.training.recording import EpisodeLog, StepRecorder
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from ssdkd_env.envs import SSDKDEnv
from tests.agents.trainings import curves
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, make


class TwoPlans(gym.ActionWrapper[Any, Any, Any]):
    """Chooses between the paper's action and the uniform one."""

    def __init__(self, env: SSDKDEnv) -> None:
        super().__init__(env)
        self.action_space = spaces.Discrete(2)
        self.plans = (env.paper_action, env.uniform_action)

    def action(self, action: Any) -> Any:
        return self.plans[int(action)]


def recorded(count: int = 1, discrete: bool = False) -> tuple[VecNormalize, StepRecorder]:
    made: VecEnv = DistillationVecEnv(count, {"budget": BUDGET, "probe": SMALL_PROBE}, "loop")
    if discrete:
        made = DummyVecEnv([lambda: TwoPlans(make())] * count)
    made.seed(0)
    recorder = StepRecorder(VecMonitor(made))
    return VecNormalize(recorder), recorder


def learn(model: Any, steps: int, folder: Path, recorder: StepRecorder) -> list[dict[str, Any]]:
    run = RunFolder(folder, {})
    model.learn(steps, callback=CallbackList([EpisodeLog(run, recorder), DistillationCallback(image_every_episodes=1)]))
    return read_lines(folder / "episodes.jsonl")


def test_ars_is_logged_though_it_hides_its_steps(tmp_path: Path) -> None:
    env, recorder = recorded()
    model = ARS("LinearPolicy", env, n_delta=2, seed=0, tensorboard_log=str(tmp_path / "run" / "tb"))
    with pytest.MonkeyPatch.context() as patch:
        returns: list[float] = []
        original = ARS._mimic_monitor_wrapper

        def keep(self: ARS, rewards: Any, lengths: Any) -> None:
            returns.extend(rewards)
            original(self, rewards, lengths)

        patch.setattr(ARS, "_mimic_monitor_wrapper", keep)
        (tmp_path / "run").mkdir()
        lines = learn(model, 12, tmp_path / "log", recorder)
    assert [line["return"] for line in lines] == pytest.approx(returns)
    assert [line["timesteps"] for line in lines] == [ROUNDS * (i + 1) for i in range(len(returns))]
    tags = curves(tmp_path / "run")
    assert set(EPISODE_TAGS) - {"student/mean_iou"} | set(ROUND_TAGS) <= set(tags)
    assert len(tags["student/accuracy"]) == 1, "one population"


def test_ars_without_a_recorder_does_not_crash(tmp_path: Path) -> None:
    env = DistillationVecEnv(1, {"budget": BUDGET, "probe": SMALL_PROBE}, "loop")
    model = ARS("LinearPolicy", VecMonitor(env), n_delta=1, seed=0)
    model.learn(6, callback=DistillationCallback())


def test_discrete_actions_are_logged(tmp_path: Path) -> None:
    env, recorder = recorded(2, discrete=True)
    model = DQN("MlpPolicy", env, learning_starts=2, buffer_size=100, batch_size=4, seed=0, device="cpu")
    lines = learn(model, 12, tmp_path / "log", recorder)
    assert [line["timesteps"] for line in lines] == [6, 6, 12, 12]
    assert all(-1 <= line["return"] <= 1 for line in lines)


def test_recorder_keeps_what_the_environments_received_and_gave(tmp_path: Path) -> None:
    env, recorder = recorded(2)
    model = PPO("MlpPolicy", env, n_steps=3, batch_size=6, n_epochs=1, seed=0, device="cpu")
    model.learn(6)
    assert recorder.steps == 3
    assert recorder.actions.shape == (2, 5)
    assert np.abs(recorder.actions).max() <= 1
    assert recorder.dones.tolist() == [True, True]
    assert all("episode" in info for info in recorder.infos)


def test_a_step_is_logged_once_however_often_callbacks_are_called(tmp_path: Path) -> None:
    env, recorder = recorded()
    log = EpisodeLog(RunFolder(tmp_path / "log", {}), recorder, seconds=100.0)
    log.init_callback(PPO("MlpPolicy", env, n_steps=6, batch_size=6, seed=0, device="cpu"))
    env.reset()
    for _ in range(ROUNDS):
        env.step(np.zeros((1, 5), dtype=np.float32))
        log.on_step()
        log.on_step()
    (line,) = read_lines(tmp_path / "log" / "episodes.jsonl")
    assert line["seconds"] >= 100, "the time before an interruption counts"
