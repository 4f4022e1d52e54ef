"""Group relative policy optimisation, in the manner of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv

from ssdkd_agents.seeds import in_turn
from ssdkd_agents.vec_env import DistillationVecEnv
from ssdkd_env.errors import InvalidInputError


class GRPO(PPO):
    """PPO whose baseline is what others get in the same place (GRPO, Shao et al. 2024, section 4.1), without a critic.

    All environments play one episode from the same seed on the same instance. An action's advantage is its episode's
    return less the group's mean: what the instance and the seed's luck have given is taken off exactly, which a critic
    that knows neither the seed nor, from a thousand episodes, the instances does not. That is the difference between
    common random numbers and none. The group's standard deviation, by which the authors divide, is left out, because
    it makes much of groups in which nothing matters (Liu et al. 2025, *Understanding R1-Zero-like training*); there
    is no penalty for leaving the first policy. Actions of one episode share its advantage, without a discount.

    Args:
        policy: `"MlpPolicy"`; its value network stays as it was made.
        env: environments side by side, at least two: a group.
        groups: of a rollout, each on another instance.
        **options: those of `stable_baselines3.PPO`, but for what is the critic's: `gae_lambda`, `vf_coef`,
            `clip_range_vf`, and `n_steps`, because episodes are played to their end.

    Raises:
        InvalidInputError: when an option does not fit.
    """

    rollout_buffer: Any  # PPO asks it for minibatches, and for values and returns, of which there are none

    def __init__(self, policy: Any, env: Any, groups: int = 3, **options: Any) -> None:
        for name in sorted({"n_steps", "gae_lambda", "vf_coef", "clip_range_vf"} & options.keys()):
            raise InvalidInputError(
                f"hyperparameters[{name!r}]={options[name]!r}: grpo has none; it plays whole episodes, without a critic"
            )
        self.groups = groups
        # PPO warns of rollouts that are no whole number of batches; how long ours are nobody knows.
        super().__init__(policy, env, n_steps=options.get("batch_size", 64), vf_coef=0.0, **options)
        if self.n_envs < 2:
            raise InvalidInputError("hyperparameters['n_envs']=1: grpo compares environments; give at least 2")

    def _setup_model(self) -> None:
        super()._setup_model()
        self.rollout_buffer = _Transitions(self.device)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Play an episode of each member of each group; false where a callback has ended it."""
        self.policy.set_training_mode(False)
        self.rollout_buffer.reset()
        callback.on_rollout_start()
        for _ in range(self.groups):
            if not self._play_group(env, callback):
                return False
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Update the policy; nothing is logged of the critic that there is not."""
        super().train()
        for name in ("train/value_loss", "train/explained_variance"):
            self.logger.name_to_value.pop(name, None)
            self.logger.name_to_excluded.pop(name, None)

    def _play_group(self, env: VecEnv, callback: BaseCallback) -> bool:
        made = env.unwrapped
        if isinstance(made, DistillationVecEnv):
            made.play_once([in_turn(self.seed or 0, self._episode_num, made.instances)] * env.num_envs)
        self._episode_num += 1  # of groups; checkpoints keep it
        self._last_obs = env.reset()  # type: ignore[assignment]
        playing, returns = np.ones(env.num_envs, dtype=bool), np.zeros(env.num_envs)
        seen: list[tuple[NDArray[np.float32], NDArray[Any], torch.Tensor, NDArray[np.intp]]] = []
        while playing.any():
            observations = np.array(self._last_obs)
            with torch.no_grad():
                actions, _, log_probabilities = self.policy(torch.as_tensor(observations, device=self.device))
            actions = actions.cpu().numpy()
            infos: list[dict[str, Any]]
            self._last_obs, rewards, dones, infos = env.step(self._executed(actions))  # type: ignore[assignment]
            self._last_episode_starts = dones
            members = np.flatnonzero(playing)
            seen.append((observations[members], actions[members], log_probabilities[playing].cpu(), members))
            self.num_timesteps += len(members)
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            if self._vec_normalize_env is not None:  # statistics that change within a group would tell members apart
                rewards = self._vec_normalize_env.get_original_reward()
            returns[members] += rewards[members]
            playing &= ~dones
        self.rollout_buffer.add(seen, returns - returns.mean())
        return True

    def _executed(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions as the environments take them: a Gaussian's are unbounded."""
        if isinstance(self.action_space, spaces.Box):
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return actions


class _Transitions:
    """Steps of whole episodes, of which there is another number in every rollout."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._observations: list[torch.Tensor] = []
        self._actions: list[torch.Tensor] = []
        self._log_probabilities: list[torch.Tensor] = []
        self._advantages: list[torch.Tensor] = []

    def add(
        self,
        seen: list[tuple[NDArray[np.float32], NDArray[Any], torch.Tensor, NDArray[np.intp]]],
        advantages: NDArray[np.float64],
    ) -> None:
        """Take a group's steps.

        Args:
            seen: of each step observations, actions, and log-probabilities, of these members.
            advantages: (members,) of their episodes.
        """
        for observations, actions, log_probabilities, members in seen:
            self._observations.append(torch.from_numpy(observations))
            self._actions.append(torch.from_numpy(actions.reshape(len(members), -1)))
            self._log_probabilities.append(log_probabilities)
            self._advantages.append(torch.from_numpy(advantages[members]).float())

    def get(self, batch_size: int) -> Iterator[RolloutBufferSamples]:
        """Minibatches of all steps, in an order of chance."""
        joined = [
            torch.cat(parts).to(self._device)
            for parts in (self._observations, self._actions, self._log_probabilities, self._advantages)
        ]
        for chosen in torch.from_numpy(np.random.permutation(len(joined[0]))).split(batch_size):  # noqa: NPY002 (SB3's)
            observations, actions, log_probabilities, advantages = (part[chosen] for part in joined)
            nothing = torch.zeros_like(advantages)
            yield RolloutBufferSamples(observations, actions, nothing, log_probabilities, advantages, nothing)

    @property
    def values(self) -> NDArray[np.float32]:
        """Of a critic, which there is none."""
        return np.zeros(sum(map(len, self._advantages)), dtype=np.float32)

    returns = values
