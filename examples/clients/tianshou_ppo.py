# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "tianshou==2.0.1"]
# ///
"""Tianshou trains PPO on environments in processes of their own, which it makes and resets by itself."""

import gymnasium
import numpy as np
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import SubprocVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch.distributions import Independent, Normal

ROUNDS, MEMBERS, EPISODES = 4, 2, 4
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}


def make() -> gymnasium.Env:
    """One environment, with one torch thread: side by side, more threads only wait for each other."""
    torch.set_num_threads(1)
    return gymnasium.make("ssdkd_env:SSDKD/Digits-v2", budget=BUDGET)


def distribution(mean_and_deviation: tuple[torch.Tensor, torch.Tensor]) -> Independent:
    """Of an action."""
    return Independent(Normal(*mean_and_deviation), 1)


if __name__ == "__main__":
    torch.manual_seed(0)
    one = make()
    seen, parts = one.observation_space.shape, one.action_space.shape
    actor = ContinuousActorProbabilistic(
        preprocess_net=Net(state_shape=seen, hidden_sizes=[32]), action_shape=parts, unbounded=True
    )
    critic = ContinuousCritic(preprocess_net=Net(state_shape=seen, hidden_sizes=[32]))
    policy = ProbabilisticActorPolicy(actor=actor, dist_fn=distribution, action_space=one.action_space)
    algorithm = PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=3e-4))

    envs = SubprocVectorEnv([make] * MEMBERS)
    envs.seed(0)  # members get 0 and 1
    buffer = VectorReplayBuffer(total_size=ROUNDS * EPISODES, buffer_num=MEMBERS)
    collector = Collector(algorithm, envs, buffer)
    collector.reset()
    result = collector.collect(n_episode=EPISODES)
    assert list(result.lens) == [ROUNDS] * EPISODES
    assert buffer.obs_next[buffer.done].any(axis=1).all(), "a last observation is lost"
    assert len(np.unique(buffer.obs[:, 3])) > ROUNDS, "members play the same episodes"

    params = OnPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=ROUNDS * EPISODES,
        collection_step_num_episodes=MEMBERS,
        collection_step_num_env_steps=None,
        batch_size=ROUNDS,
    )
    trained = algorithm.run_training(params)
    envs.close()

    assert trained.train_episode == EPISODES
    assert actor.sigma_param.isfinite().all()
    assert actor.sigma_param.any(), "nothing was learnt: it begins with 0"
    print("returns:", result.returns.round(3).tolist())
