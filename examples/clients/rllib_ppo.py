# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "ray[rllib]==2.60.0"]
# ///
"""RLlib trains PPO, in an environment runner of its own process with our vector environment in it.

Its processes import the package by the id's prefix. A runner is seeded with the seed and its own number, its member i
with i more: several runners of several members would play the same episodes. One runner is safe, or one member each.
"""

import gymnasium
import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

ROUNDS, MEMBERS, EPISODES = 4, 2, 8
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}

if __name__ == "__main__":
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=200_000_000)
    config = (
        PPOConfig()
        .environment("ssdkd_env:SSDKD/Digits-v2", env_config={"budget": BUDGET})
        .env_runners(
            num_env_runners=1,
            num_envs_per_env_runner=MEMBERS,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length="auto",
            sample_timeout_s=600,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32]))
        .training(train_batch_size_per_learner=ROUNDS * EPISODES, minibatch_size=8, num_epochs=2)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    before = algorithm.get_module().get_state()
    episodes = algorithm.train()["env_runners"]
    after = algorithm.get_module().get_state()
    algorithm.stop()
    ray.shutdown()

    assert episodes["num_episodes_lifetime"] == EPISODES
    assert episodes["episode_len_mean"] == ROUNDS
    assert np.isfinite([episodes[f"episode_return_{which}"] for which in ("min", "mean", "max")]).all()
    assert any((before[name] != after[name]).any() for name in before), "nothing was learnt"
    print(f"mean return of {EPISODES} episodes: {episodes['episode_return_mean']:.3f}")
