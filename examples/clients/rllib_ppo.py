# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "ray[rllib]==2.60.0"]
# ///
"""RLlib trains PPO on whole episodes, which two environment runners of two members each play in processes of their own.

A runner is seeded with the seed and its own number, its member i with i more, and with complete episodes at every
sample anew: member 1 of runner 1 would play what member 0 of runner 2 plays, and each the same episode for ever.
`OwnSeeds` makes of each such seed one of the runner's own, another one every time.
"""

from itertools import chain

import gymnasium
import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

ROUNDS, RUNNERS, MEMBERS, EPISODES, ITERATIONS = 4, 2, 2, 8, 2
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}


class OwnSeeds(gymnasium.Wrapper):
    """An environment whose seeds no other runner's has, nor itself a second time."""

    def __init__(self, env, runner):
        super().__init__(env)
        self.runner, self.seeds = runner, []

    def reset(self, *, seed=None, options=None):
        """Begin an episode."""
        if seed is not None:
            drawn = np.random.SeedSequence((seed, self.runner, len(self.seeds)))
            seed = int(drawn.generate_state(1)[0])
        self.seeds.append(seed)
        return self.env.reset(seed=seed, options=options)


def make_env(context):
    """The environment of a runner, in whose process this package is not imported yet: the prefixed id."""
    return OwnSeeds(gymnasium.make("ssdkd_env:SSDKD/Digits-v2", **context), context.worker_index)


def seeds_of(runner):
    """All that the members of a runner were reset with; they go on by themselves where it is None."""
    return [
        seed for member in runner.env.unwrapped.envs for seed in member.get_wrapper_attr("seeds") if seed is not None
    ]


if __name__ == "__main__":
    ray.init(address="local", num_cpus=RUNNERS + 1, include_dashboard=False, object_store_memory=200_000_000)
    register_env("digits", make_env)
    config = (
        PPOConfig()
        .environment("digits", env_config={"budget": BUDGET})
        .env_runners(
            num_env_runners=RUNNERS,
            num_envs_per_env_runner=MEMBERS,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.SYNC,
            batch_mode="complete_episodes",
            sample_timeout_s=600,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32]))
        .training(train_batch_size_per_learner=ROUNDS * EPISODES, minibatch_size=8, num_epochs=2)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    before = algorithm.get_module().get_state()
    results = [algorithm.train()["env_runners"] for _ in range(ITERATIONS)]
    after = algorithm.get_module().get_state()
    seeds = list(chain(*algorithm.env_runner_group.foreach_env_runner(seeds_of, local_env_runner=False)))
    algorithm.stop()
    ray.shutdown()

    episodes = results[-1]
    assert episodes["num_episodes_lifetime"] >= ITERATIONS * EPISODES
    assert episodes["episode_len_mean"] == ROUNDS
    assert len(set(seeds)) == len(seeds) >= RUNNERS * MEMBERS * ITERATIONS, "episodes were repeated"
    assert np.isfinite([episodes[f"episode_return_{which}"] for which in ("min", "mean", "max")]).all()
    assert any((before[name] != after[name]).any() for name in before), "nothing was learnt"
    print(f"mean return of the last {EPISODES} episodes: {episodes['episode_return_mean']:.3f}; {len(seeds)} seeds")
