#!/usr/bin/env bash
# TorchRL 0.14.1 with Gymnasium 1.4.0 (PyTorch 2.13.0, CPU): GymEnv(name, num_envs=2) gives zeros in place of the last observation
# of every episode, be it terminated or cut off at a limit of steps.
#
# The good guess: what GymEnv(name) gives, only batched. The last observation is the next state of the last step; a value is
# bootstrapped from it where an episode was cut off, and a score of the end state is read from it.
#
# The cause: it makes a vector environment of the mode NEXT_STEP, for which its own GymWrapper refuses one that the user has made,
# and a transform that expects the last observation in the info, as in the mode SAME_STEP; it fills with zeros what is not there.
# Make the vector environment with autoreset_mode=AutoresetMode.DISABLED and wrap that.
#
# Seen, observations (steps done, plus ten) after the three steps of an episode that a limit cuts off:
#   GymEnv(name) 11, 12, 13; GymEnv(name, num_envs=2) 11, 12, 0; GymWrapper of DISABLED 11, 12, 13
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 torchrl==0.14.1 gymnasium==1.4.0 2>/dev/null
cat >"$folder/program.py" <<'PYTHON'
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from torchrl.envs import GymEnv, GymWrapper


class Counting(gymnasium.Env):
    """The observation is the number of steps, plus ten."""

    observation_space = gymnasium.spaces.Box(0, 1000, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen = 10
        return np.array([self.seen], np.float32), {}

    def step(self, action):
        self.seen += 1
        return np.array([self.seen], np.float32), 1.0, False, False, {}


gymnasium.register("Counting-v0", Counting, max_episode_steps=3)

if __name__ == "__main__":
    disabled = {"autoreset_mode": AutoresetMode.DISABLED}
    envs = {
        "one": GymEnv("Counting-v0"),
        "its own vector": GymEnv("Counting-v0", num_envs=2),
        "a vector of the user's": GymWrapper(gymnasium.make_vec("Counting-v0", 2, "sync", vector_kwargs=disabled)),
    }
    seen = {name: env.rollout(3)["next", "observation"].reshape(-1, 3)[0].tolist() for name, env in envs.items()}
    print(seen)
    assert list(seen.values()) == [[11, 12, 13], [11, 12, 0], [11, 12, 13]], "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
