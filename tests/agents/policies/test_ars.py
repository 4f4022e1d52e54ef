"""Augmented random search: every candidate plays its own episodes, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import ARS
from ssdkd_agents.policies.algorithms import build_model, load_hyperparameters
from ssdkd_agents.training.callbacks import DistillationCallback
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from tests.agents.stand_in import STEPS, agent, config_of, environments
from tests.envs.episodes import BUDGET, SMALL_PROBE


class Watch(BaseCallback):
    """Keeps what callbacks see, and stops after `most` steps."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.most = most
        self.steps: list[int] = []
        self.seen: list[dict[str, Any]] = []
        self.ended = 0

    def _on_step(self) -> bool:
        self.steps.append(self.num_timesteps)
        self.seen.append({name: self.locals[name] for name in ("infos", "dones", "actions")})
        return len(self.steps) < self.most

    def _on_training_end(self) -> None:
        self.ended += 1


def returns_of(model: Any, candidates: torch.Tensor) -> list[float]:
    """Each candidate's return by Stable-Baselines3's own evaluation."""
    policy: Any = model.policy
    result: list[float] = []
    for weights in candidates:
        policy.load_from_vector(weights.numpy())
        rewards, _ = evaluate_policy(policy, environments("ars", 1), model.n_eval_episodes, return_episode_rewards=True)
        result.append(sum(rewards))  # type: ignore[arg-type]
    return result


@pytest.mark.parametrize(("count", "episodes"), [(4, 1), (3, 1), (2, 2), (8, 1), (1, 1)])
def test_candidates_get_their_own_returns(count: int, episodes: int) -> None:
    """Whatever the number of environments; rewards as they are, not as the normalisation makes them."""
    config = config_of("ars", n_envs=count, n_eval_episodes=episodes)
    model = agent(config, normalize=False)
    model._setup_learn(1)
    torch.manual_seed(3)
    candidates = torch.randn(model.pop_size, model.n_params)
    callback = model._init_callback(None)
    with torch.no_grad():
        found = model.evaluate_candidates(candidates, callback, None)
    assert found.tolist() == pytest.approx(returns_of(model, candidates), abs=1e-5)
    assert len(set(found.tolist())) == model.pop_size


def test_normalised_rewards_do_not_reach_the_search() -> None:
    def found(normalize: bool) -> list[float]:
        model = agent(config_of("ars"), normalize=normalize)
        if normalize:
            model.get_vec_normalize_env().norm_obs = False
        model._setup_learn(1)
        candidates = torch.linspace(-1, 1, model.pop_size * model.n_params).reshape(model.pop_size, -1)
        with torch.no_grad():
            return model.evaluate_candidates(candidates, model._init_callback(None), None).tolist()  # type: ignore[no-any-return]

    assert found(True) == pytest.approx(found(False))


def test_steps_are_counted_once_and_callbacks_see_every_one() -> None:
    watch = Watch()
    model = agent(config_of("ars"))  # 4 candidates in 2 environments: 2 × 4 steps of both
    model.learn(2 * 2 * STEPS, callback=watch)
    assert watch.steps == list(range(2, 2 * 2 * STEPS + 1, 2))
    assert [bool(seen["dones"].all()) for seen in watch.seen] == [False, False, False, True] * 2
    assert all(len(seen["infos"]) == 2 and seen["actions"].shape == (2, 2) for seen in watch.seen)
    assert model._n_updates == 1
    assert watch.ended == 1
    assert len(model.ep_info_buffer) == 4


def test_original_gives_callbacks_nothing_to_see() -> None:
    """The reason for a class of our own; when this fails, it may be gone."""
    watch = Watch()
    env = environments("ars")
    with pytest.raises(KeyError, match="infos"):
        ARS("LinearPolicy", env, n_delta=1, seed=0).learn(8, callback=watch)


def test_training_stops_when_a_callback_says_so() -> None:
    watch = Watch(most=5)
    model = agent(config_of("ars"))
    before = model.weights.clone()
    model.learn(1000, callback=watch)
    assert len(watch.steps) == 5
    assert watch.ended == 1
    assert torch.equal(model.weights, before), "half an evaluation moves nothing"


def test_search_finds_better_policies() -> None:
    model = agent(config_of("ars", n_delta=4, n_top=2, n_envs=4, learning_rate=0.2, delta_std=0.2))

    def score() -> float:
        return float(np.mean(evaluate_policy(model, model.get_vec_normalize_env(), 4, warn=False)[0]))

    before = score()
    model.learn(2000)
    assert score() > before + 0.5


def test_schedule_goes_over_all_steps_of_a_resumed_training() -> None:
    model = agent(config_of("ars", learning_rate="lin_1"))
    model.learn(32)
    model.learn(32, reset_num_timesteps=False)
    assert model._current_progress_remaining == pytest.approx(1 - 48 / 64), "before the last update of 16 steps"


def test_real_environments_and_callbacks_work_with_it() -> None:
    """One vector environment of the distillation, monitored and normalised, with what train_sampler logs."""
    kwargs = {"task": "digits", "budget": BUDGET, "probe": SMALL_PROBE}
    venv = VecNormalize(VecMonitor(DistillationVecEnv(4, kwargs, "grouped", 1)))
    try:
        hyperparameters = load_hyperparameters("ars", "SSDKD/Digits-v2", {"n_delta": 2, "n_top": 1, "gamma": 0.9})
        model = build_model("ars", venv, hyperparameters, seed=0)
        watch = Watch()
        model.learn(12, callback=CallbackList([watch, DistillationCallback()]))
        assert watch.steps == [4, 8, 12]
        assert [info["episode"]["l"] for info in watch.seen[-1]["infos"]] == [3, 3, 3, 3]
        assert "student/accuracy" in model.logger.name_to_value or model._n_updates == 1
    finally:
        venv.close()
