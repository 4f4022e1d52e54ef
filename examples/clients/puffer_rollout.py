# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "pufferlib-core==3.0.23", "psutil", "rich", "rich-argparse"]
#
# [tool.check_clients]
# without-requirements = ["pufferlib-core"]  # it pins another PyTorch, with CUDA
# ///
"""pufferlib-core collects episodes with its policy, from environments in two processes of their own.

It resets in the step after an episode's end, and gives its own arrays, which the next step overwrites. Its trainer
needs its compiled part, which is made for the PyTorch that it pins, and is not tried here.
"""

import gymnasium
import numpy as np
import pufferlib.vector
import torch
from pufferlib.emulation import GymnasiumPufferEnv
from pufferlib.models import Default
from pufferlib.pytorch import sample_logits

ROUNDS, MEMBERS, EPISODES = 4, 2, 3
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}


def make(buf: dict | None = None, seed: int = 0) -> GymnasiumPufferEnv:
    """One environment, with one torch thread: side by side, more threads only wait for each other."""
    torch.set_num_threads(1)
    creator = gymnasium.make
    arguments = {"id": "ssdkd_env:SSDKD/Digits-v2", "budget": BUDGET}
    return GymnasiumPufferEnv(env_creator=creator, env_kwargs=arguments, buf=buf, seed=seed)


if __name__ == "__main__":
    torch.manual_seed(0)
    envs = pufferlib.vector.make(make, num_envs=MEMBERS, num_workers=MEMBERS, backend="Multiprocessing")
    policy = Default(envs.driver_env, hidden_size=32)
    observed, _ = envs.reset(seed=0)
    first = observed.copy()
    assert (first[0] != first[1]).any(), "both processes play the same episode"
    returns, ended_at = np.zeros(MEMBERS), []
    for step in range(EPISODES * (ROUNDS + 1) - 1):
        with torch.no_grad():
            distribution, _ = policy(torch.as_tensor(observed))
            actions, *_ = sample_logits(distribution)
        observed, rewards, terminals, truncations, _ = envs.step(actions.clamp(-1, 1).numpy())
        returns += rewards
        if terminals.any():
            assert terminals.all()
            assert observed.any(axis=1).all(), "a last observation is lost"
            ended_at.append(step)
    envs.close()

    assert ended_at == [ROUNDS - 1 + (ROUNDS + 1) * episode for episode in range(EPISODES)]
    assert np.isfinite(returns).all()
    print(f"returns of {EPISODES} episodes in each process:", returns.round(3))
