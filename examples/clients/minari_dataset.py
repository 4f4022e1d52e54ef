# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "minari[create,hdf5]==0.5.4"]
# ///
"""Minari records episodes of the paper's sampler, as a data set for offline learning, and plays one of them again."""

import os
import tempfile

import gymnasium
import numpy as np

import ssdkd_env  # noqa: F401 (registers the environments)

ROUNDS, EPISODES = 4, 3
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        import minari

        env = minari.DataCollector(gymnasium.make("ssdkd_env:SSDKD/Digits-v2", budget=BUDGET))
        for seed in range(EPISODES):
            env.reset(seed=seed)  # without a seed it would draw one from the operating system, and not go on with ours
            ended = False
            while not ended:
                _, _, ended, _, _ = env.step(env.unwrapped.paper_action)
        env.create_dataset("ssdkd/paper-v0", algorithm_name="the paper's sampler", author="me", description="small")
        env.close()

        dataset = minari.load_dataset("ssdkd/paper-v0")
        episodes = list(dataset.iterate_episodes())
        assert [len(episode.rewards) for episode in episodes] == [ROUNDS] * EPISODES
        again = dataset.recover_environment()
        for seed, episode in enumerate(episodes):
            assert episode.observations.shape == (ROUNDS + 1, *env.observation_space.shape)
            assert np.isfinite(episode.rewards).all()
            assert episode.observations[-1].any(), "the last observation is lost"
            first, _ = again.reset(seed=seed)
            played = [first, *(again.step(action)[0] for action in episode.actions)]
            np.testing.assert_array_equal(played, episode.observations)
        print("returns:", [round(float(episode.rewards.sum()), 3) for episode in episodes])
