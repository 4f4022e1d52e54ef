#!/usr/bin/env bash
# RLlib 2.60.0 with Gymnasium 1.2.2 (PyTorch 2.13.0, CPU): with a seed, several environment runners of several members begin the same
# episodes; and with batch_mode="complete_episodes" every sample that a runner collects begins with the same ones, for ever.
#
# The good guess: a seed makes a training repeatable, and leaves its episodes as different from each other as without a seed. What
# an episode begins with (a level, a goal, an opponent, initial weights) is drawn anew in each.
#
# The cause: a runner is seeded with the seed and its number, and its member i with i more, so that member 1 of runner 1 has the
# seed of member 0 of runner 2. With complete episodes every sample begins with a reset that counts as the first one, and is
# seeded again. What helps: one runner, or one member each; and batch_mode="truncate_episodes".
#
# Seen, what the reset has drawn, with two runners of two members, three samples of each:
#   truncate_episodes: half of the numbers of runner 1 are numbers of runner 2;
#   complete_episodes: every sample of a runner begins with the two numbers of its first one. Without a seed all differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 "ray[rllib]==2.60.0" 2>/dev/null
HOME="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner


class Drawn(gym.Env):
    """Episodes of two steps; the observation is a number that the reset has drawn."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config=None):
        pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.drawn, self.steps = self.np_random.random(1).astype(np.float32), 0
        return self.drawn, {}

    def step(self, action):
        self.steps += 1
        return self.drawn, 0.0, self.steps == 2, False, {}


def drawn(batch_mode, seed):
    """By two runners of two members, in three samples each."""
    config = (
        PPOConfig()
        .environment(Drawn)
        .env_runners(num_env_runners=2, num_envs_per_env_runner=2, batch_mode=batch_mode, rollout_fragment_length=4)
        .debugging(seed=seed)
    )
    runners = [SingleAgentEnvRunner(config=config, worker_index=number) for number in (1, 2)]
    return [
        [[float(episode.get_observations(0)[0]) for episode in runner.sample(random_actions=True)] for _ in range(3)]
        for runner in runners
    ]


def shared(runners):
    """The share of the first runner's numbers that the second one has, too."""
    first, second = (set(np.ravel(samples)) for samples in runners)
    return len(first & second) / len(first)


def repeated(runners):
    """Whether every sample of a runner is its first one."""
    return all(sample == samples[0] for samples in runners for sample in samples)


found = {}
for mode in ("truncate_episodes", "complete_episodes"):
    for seed in (0, None):
        runners = drawn(mode, seed)
        found[mode, seed] = (shared(runners), repeated(runners))
print(found)
assert list(found.values()) == [(0.5, False), (0.0, False), (0.5, True), (0.0, False)], "this has changed"
PYTHON
