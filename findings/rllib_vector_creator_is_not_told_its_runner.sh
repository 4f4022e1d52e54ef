#!/usr/bin/env bash
# RLlib 2.60.0 (PyTorch 2.13.0, CPU): a registered creator is told the number of its environment runner where it makes single
# environments, and is not where it makes a vector environment.
#
# The good guess: RLlib hands every creator that was registered an EnvContext, whose worker_index says for which runner it is, so that
# runners can be given data, ports or seeds of their own.
#
# The cause: for gym_env_vectorize_mode="VECTOR_ENTRY_POINT" the number of environments is added with dict's operator |, which of
# a subclass of dict makes a plain one, without its attributes.
#
# Seen, in runners 1 and 2: SYNC gives EnvContext with worker_index 1 and 2, VECTOR_ENTRY_POINT gives dict without one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 "ray[rllib]==2.60.0" 2>/dev/null
cd "$folder"
HOME="$folder" "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
from pathlib import Path

import gymnasium as gym
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

told = Path("told")


def create(context):
    with told.open("a") as file:  # Ray has a copy of this function
        print(type(context).__name__, getattr(context, "worker_index", None), file=file)
    if "num_envs" in context:
        return gym.make_vec("CartPole-v1", num_envs=context["num_envs"], vectorization_mode="sync")
    return gym.make("CartPole-v1")


register_env("ours", create)
seen = {}
for mode in (gym.VectorizeMode.SYNC, gym.VectorizeMode.VECTOR_ENTRY_POINT):
    told.write_text("")
    for number in (1, 2):
        config = PPOConfig().environment("ours").env_runners(num_env_runners=2, gym_env_vectorize_mode=mode)
        SingleAgentEnvRunner(config=config, worker_index=number)
    seen[mode.value] = sorted(set(told.read_text().splitlines()))
print(seen)
assert seen == {"sync": ["EnvContext 1", "EnvContext 2"], "vector_entry_point": ["dict None"]}, "this has changed"
PYTHON
