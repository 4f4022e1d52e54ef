# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "skrl==2.1.1"]
# ///
"""skrl trains PPO on a vector environment; it wants one that resets within the last step."""

import tempfile

import gymnasium
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from skrl.utils.model_instantiators.torch import deterministic_model, gaussian_model

import ssdkd_env  # noqa: F401 (registers the environments)

ROUNDS, MEMBERS, EPISODES = 4, 2, 4
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}
LAYERS = [{"name": "net", "input": "OBSERVATIONS", "layers": [32], "activations": "tanh"}]

if __name__ == "__main__":
    set_seed(0)
    envs = gymnasium.make_vec("SSDKD/Digits-v2", MEMBERS, budget=BUDGET, autoreset_mode="SameStep")
    counted = RecordEpisodeStatistics(envs)
    env = wrap_env(counted)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    models = {
        "policy": gaussian_model(**spaces, network=LAYERS, output="ACTIONS", clip_actions=True),
        "value": deterministic_model(**spaces, network=LAYERS, output="ONE"),
    }
    with tempfile.TemporaryDirectory() as folder:
        cfg = PPO_CFG(rollouts=ROUNDS, learning_epochs=2, mini_batches=2)
        cfg.experiment.directory = folder
        memory = RandomMemory(memory_size=ROUNDS, num_envs=MEMBERS)
        agent = PPO(models=models, memory=memory, cfg=cfg, **spaces)
        SequentialTrainer(env=env, agents=agent, cfg={"timesteps": EPISODES * ROUNDS, "headless": True}).train()

    assert list(counted.length_queue) == [ROUNDS] * EPISODES * MEMBERS
    deviations = models["policy"].log_std_parameter
    assert deviations.isfinite().all()
    assert deviations.any(), "nothing was learnt: they begin with 0"
    print("returns:", [round(float(each), 3) for each in counted.return_queue])
