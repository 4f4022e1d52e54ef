#!/usr/bin/env bash
# TorchRL 0.14.1 with Gymnasium 1.4.0 (PyTorch 2.13.0, CPU): of a vector environment with AutoresetMode.SAME_STEP whose members'
# episodes end together, a Collector gives every second episode only. The others are begun and thrown away without a word.
#
# The good guess: GymWrapper accepts two modes, DISABLED and SAME_STEP, and refuses NEXT_STEP in words; so with both of them every
# episode that the environments begin is collected. Where a reset is dear (it trains a network, it loads a scene), or where an
# environment counts its own episodes, as a curriculum does, that matters, and nothing in the data shows it.
#
# The cause: in this mode the environment has begun the next episode when it gives the last step; TorchRL, seeing that all have
# ended, resets it once more. Where episodes end at different steps, the first observation that the environment gave is used.
#
# Seen, first observations of four episodes that follow each other, which are numbers that the environment counts:
#   DISABLED 1, 2, 3, 4; SAME_STEP every second number
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 torchrl==0.14.1 gymnasium==1.4.0 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper


class Numbered(gymnasium.Env):
    """Episodes of so many steps; the observation is the number of the episode."""

    observation_space = gymnasium.spaces.Box(0, 1000, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    episode = 0

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return np.array([self.episode], np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.array([self.episode], np.float32), 1.0, self.steps == self.length, False, {}


def collected(mode, lengths):
    """Numbers of the first member's episodes, after those that checks of the environment have used up."""
    envs = SyncVectorEnv([lambda length=length: Numbered(length) for length in lengths], autoreset_mode=mode)
    (batch,) = Collector(GymWrapper(envs), None, frames_per_batch=24, total_frames=24)
    return np.unique(batch["observation"][0].numpy()).astype(int)


found = {
    "disabled": collected(AutoresetMode.DISABLED, (3, 3)),
    "same step": collected(AutoresetMode.SAME_STEP, (3, 3)),
    "same step, other lengths": collected(AutoresetMode.SAME_STEP, (3, 5)),
}
print({name: numbers.tolist() for name, numbers in found.items()})
assert [set(np.diff(numbers).tolist()) for numbers in found.values()] == [{1}, {2}, {1}], "this has changed"
PYTHON
