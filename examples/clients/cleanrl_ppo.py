# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "tyro==1.0.17", "tensorboard==2.21.0"]
# ///
"""PPO in one file, in the form of CleanRL's `ppo_continuous_action.py`: to read, to change, and to log what you like.

The environments reset in the step after the last one (`"NextStep"`, the default); nothing is learnt from that step.
"""

import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import nn
from torch.distributions import Normal
from torch.utils.tensorboard import SummaryWriter

import ssdkd_env  # noqa: F401 (registers the environments)


@dataclass
class Args:
    """Command line."""

    env_id: str = "SSDKD/Digits-v2"
    """the id of the environment"""
    rounds: int = 4
    """rounds of an episode"""
    seed: int = 1
    """seed of the experiment"""
    total_timesteps: int = 40
    """total timesteps of the experiment"""
    num_envs: int = 2
    """the number of parallel game environments"""
    num_steps: int = 10
    """the number of steps to run in each environment per policy rollout"""
    learning_rate: float = 3e-4
    """the learning rate of the optimizer"""
    gamma: float = 0.99
    """the discount factor gamma"""
    gae_lambda: float = 0.95
    """the lambda for the general advantage estimation"""
    update_epochs: int = 2
    """the K epochs to update the policy"""
    minibatch_size: int = 8
    """the number of steps in a mini-batch"""
    clip_coef: float = 0.2
    """the surrogate clipping coefficient"""
    vf_coef: float = 0.5
    """coefficient of the value function"""
    max_grad_norm: float = 0.5
    """the maximum norm for the gradient clipping"""


class Agent(nn.Module):
    """Actor and critic."""

    def __init__(self, envs: gym.vector.VectorEnv) -> None:
        super().__init__()
        (seen,), (parts,) = envs.single_observation_space.shape, envs.single_action_space.shape
        self.critic = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor_mean = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, parts))
        self.actor_logstd = nn.Parameter(torch.full((1, parts), -1.0))

    def get_value(self, x: torch.Tensor) -> torch.Tensor:
        """What the critic expects."""
        return self.critic(x).flatten()

    def get_action_and_value(self, x: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """An action, drawn if none is given, the logarithm of its density, and the value."""
        mean = self.actor_mean(x)
        probs = Normal(mean, self.actor_logstd.exp().expand_as(mean))
        action = probs.sample() if action is None else action
        return action, probs.log_prob(action).sum(1), self.get_value(x)


def train(args: Args) -> RecordEpisodeStatistics:
    """Train, and return the environments, which have counted their episodes."""
    run_name = f"{args.env_id.replace('/', '-')}__{args.seed}__{int(time.time())}"
    writer = SummaryWriter(f"runs/{run_name}")
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)

    budget = {"rounds": args.rounds, "inversion_steps": 1, "student_steps": 1}
    envs = RecordEpisodeStatistics(gym.make_vec(args.env_id, args.num_envs, budget=budget))
    low, high = envs.single_action_space.low, envs.single_action_space.high
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    size = (args.num_steps, args.num_envs)
    obs = torch.zeros(*size, *envs.single_observation_space.shape)
    actions = torch.zeros(*size, *envs.single_action_space.shape)
    logprobs, rewards, dones, values = (torch.zeros(size) for _ in range(4))

    global_step = 0
    next_obs = torch.as_tensor(envs.reset(seed=args.seed)[0])
    next_done = torch.zeros(args.num_envs)
    for _ in range(args.total_timesteps // (args.num_steps * args.num_envs)):
        for step in range(args.num_steps):
            global_step += args.num_envs
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                actions[step], logprobs[step], values[step] = agent.get_action_and_value(next_obs)
            observed, reward, terminations, truncations, infos = envs.step(actions[step].numpy().clip(low, high))
            rewards[step] = torch.as_tensor(reward)
            next_obs, next_done = torch.as_tensor(observed), torch.as_tensor(terminations | truncations).float()
            for i in np.flatnonzero(terminations | truncations):
                writer.add_scalar("charts/episodic_return", infos["episode"]["r"][i], global_step)

        # bootstrap value if not done
        with torch.no_grad():
            next_value, lastgaelam = agent.get_value(next_obs), torch.zeros(args.num_envs)
            advantages = torch.zeros(size)
            for t in reversed(range(args.num_steps)):
                last = t == args.num_steps - 1
                nextnonterminal = 1.0 - (next_done if last else dones[t + 1])
                delta = rewards[t] + args.gamma * (next_value if last else values[t + 1]) * nextnonterminal - values[t]
                advantages[t] = lastgaelam = delta + args.gamma * args.gae_lambda * nextnonterminal * lastgaelam
            returns = advantages + values

        # a step that was taken behind an episode's end is the reset: its action did nothing
        b_inds = np.flatnonzero(1 - dones.flatten().numpy())
        b_obs, b_actions = obs.flatten(0, 1), actions.flatten(0, 1)
        b_logprobs, b_advantages, b_returns = logprobs.flatten(), advantages.flatten(), returns.flatten()
        for _ in range(args.update_epochs):
            rng.shuffle(b_inds)
            for mb_inds in np.array_split(b_inds, max(1, len(b_inds) // args.minibatch_size)):
                _, newlogprob, newvalue = agent.get_action_and_value(b_obs[mb_inds], b_actions[mb_inds])
                ratio = (newlogprob - b_logprobs[mb_inds]).exp()
                mb_advantages = b_advantages[mb_inds]
                mb_advantages = (mb_advantages - mb_advantages.mean()) / (mb_advantages.std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                pg_loss = -torch.min(mb_advantages * ratio, mb_advantages * clipped).mean()
                v_loss = 0.5 * (newvalue - b_returns[mb_inds]).square().mean()
                optimizer.zero_grad()
                (pg_loss + args.vf_coef * v_loss).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()
        writer.add_scalar("losses/policy_loss", pg_loss.item(), global_step)
        writer.add_scalar("losses/value_loss", v_loss.item(), global_step)
    writer.close()
    envs.close()
    return envs


if __name__ == "__main__":
    args = tyro.cli(Args)
    envs = train(args)
    steps = args.total_timesteps // args.num_envs
    assert list(envs.length_queue) == [args.rounds] * (steps // (args.rounds + 1) * args.num_envs)
    assert np.isfinite(envs.return_queue).all()
    print("returns:", [round(float(each), 3) for each in envs.return_queue])
