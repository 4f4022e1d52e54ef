"""Augmented random search that tries one candidate in each environment."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sb3_contrib import ARS
from sb3_contrib.common.vec_env.async_eval import AsyncEval
from stable_baselines3.common.callbacks import BaseCallback

from ssdkd_agents.seeds import in_turn
from ssdkd_agents.vec_env import DistillationVecEnv

if TYPE_CHECKING:
    from typing_extensions import Self


class VectorARS(ARS):
    """`sb3_contrib.ARS` (Mania et al. 2018) with another way of playing the candidates' episodes.

    The candidates of a generation play the same seeds and instances, and each environment stops with its episode.

    The original plays them one after another, each in all environments at once, although one episode of each may be all
    that is wanted; it counts a step once for every environment, gives callbacks no `infos`, does not stop when a
    callback asks it to, and switches gradients off for environments in its own process, whose students need them. Here
    every environment plays another candidate: a population of 16 in 16 environments takes the time of one episode.
    """

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        """Train as `ARS.learn` does, until a callback asks to stop."""
        try:
            return super().learn(*args, **kwargs)
        except _StoppedError as stopped:
            stopped.callback.on_training_end()
            return self

    def evaluate_candidates(
        self, candidate_weights: torch.Tensor, callback: BaseCallback, async_eval: AsyncEval | None
    ) -> torch.Tensor:
        """Play `n_eval_episodes` episodes with each candidate.

        Args:
            candidate_weights: (candidates, weights of the policy) float32.
            callback: called after every step, with `infos`, `dones` and `actions` among its locals.
            async_eval: processes of sb3-contrib that do it instead.

        Returns:
            (candidates,) sums of the returns, before any normalisation.
        """
        if async_eval is not None:
            return super().evaluate_candidates(candidate_weights, callback, async_eval)
        env = self.env
        assert env is not None
        policies = [copy.deepcopy(self.policy) for _ in range(env.num_envs)]
        returns = torch.zeros(self.pop_size)
        # All candidates play one episode before any of them plays the next.
        turns = [(candidate, turn) for turn in range(self.n_eval_episodes) for candidate in range(self.pop_size)]
        for first in range(0, len(turns), env.num_envs):
            wave = turns[first : first + env.num_envs]
            for policy, (candidate, _) in zip(policies, wave, strict=False):
                policy.load_from_vector(candidate_weights[candidate].cpu().numpy())
            self._begin([turn for _, turn in wave])
            playing = dict(enumerate(candidate for candidate, _ in wave))
            while playing:
                observations = np.asarray(self._last_obs)
                actions = np.concatenate(
                    [policy.predict(observations[place : place + 1])[0] for place, policy in enumerate(policies)]
                )
                self._last_obs, rewards, dones, infos = env.step(actions)  # type: ignore[assignment]
                self._last_episode_starts = dones
                self.num_timesteps += len(playing)
                self._update_info_buffer(infos, dones)
                callback.update_locals(locals())
                if not callback.on_step():
                    raise _StoppedError(callback)
                if self._vec_normalize_env is not None:
                    rewards = self._vec_normalize_env.get_original_reward()
                for place, candidate in list(playing.items()):
                    returns[candidate] += float(rewards[place]) + self.alive_bonus_offset
                    if dones[place]:
                        del playing[place]
        callback.on_rollout_end()
        return returns

    def _begin(self, turns: list[int]) -> None:
        """Reset the environments, for one episode of each of the first ones.

        What is compared begins alike: in a turn of a generation all candidates have the same seed and the same
        instance, and over the turns of all generations every instance has its turn as often as any other.
        """
        env = self.env
        assert env is not None
        if isinstance(env.unwrapped, DistillationVecEnv):
            count, seed = env.unwrapped.instances, self.seed or 0
            numbers = [self._n_updates * self.n_eval_episodes + turn for turn in turns]
            env.unwrapped.play_once([in_turn(seed, number, count) for number in numbers])
        self._last_obs = env.reset()  # type: ignore[assignment]

    def _do_one_update(self, callback: BaseCallback, async_eval: AsyncEval | None) -> None:
        # Before the candidates are drawn: what a callback saves here goes on exactly.
        callback.on_rollout_start()
        super()._do_one_update(callback, async_eval)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # ARS.learn gives the steps of this call; after a resumption the schedule goes over those before it too.
        super()._update_current_progress_remaining(num_timesteps, self._total_timesteps)


class _StoppedError(Exception):
    """A callback asked to stop in the middle of an evaluation, whose returns mean nothing then."""

    def __init__(self, callback: BaseCallback) -> None:
        super().__init__()
        self.callback = callback
