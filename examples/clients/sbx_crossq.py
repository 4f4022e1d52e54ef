# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "sbx-rl==0.28.0"]
# ///
"""SBX (Stable-Baselines3 in JAX) trains CrossQ on environments that work side by side."""

import numpy as np
from sbx import CrossQ
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3.common.vec_env import VecMonitor

ROUNDS, MEMBERS, EPISODES = 4, 2, 6
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}

if __name__ == "__main__":
    envs = VecMonitor(DistillationVecEnv(MEMBERS, {"task": "digits", "budget": BUDGET}))
    model = CrossQ("MlpPolicy", envs, learning_starts=8, batch_size=8, seed=0)
    nothing = np.zeros(envs.observation_space.shape, np.float32)
    before, _ = model.predict(nothing, deterministic=True)
    model.learn(EPISODES * ROUNDS)
    after, _ = model.predict(nothing, deterministic=True)

    episodes = list(model.ep_info_buffer)
    assert [episode["l"] for episode in episodes] == [ROUNDS] * EPISODES
    assert np.isfinite([episode["r"] for episode in episodes]).all()
    assert (before != after).any(), "nothing was learnt"
    print("returns:", [round(float(episode["r"]), 3) for episode in episodes])
    envs.close()
