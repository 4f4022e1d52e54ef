"""An episode as one file, from which another process goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from ssdkd_env import ENV_VERSION
from ssdkd_env.envs.snapshot import Snapshot
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state

if TYPE_CHECKING:
    from ssdkd_env.envs.distillation import SSDKDEnv
    from ssdkd_env.tasks import Task


def save_episode(env: SSDKDEnv, path: str | Path) -> None:
    """Write the episode so far as one safetensors file.

    Raises:
        ResetNeeded: before the first reset.
        InvalidInputError: when the file cannot be written.
    """
    if env.run is None:
        raise gym.error.ResetNeeded("Cannot call env.save() before calling env.reset()")
    save_state(
        path,
        {
            "arguments": _fingerprint(env, env.task),
            "instance": env.instances.index,
            "seed": env.run.seed,
            "run": env.run.state_dict(),
            "np_random": env.np_random.bit_generator.state,
            "last_action": env._last_action.tolist(),
            "snapshots": [env._previous.state_dict(), env._snapshot.state_dict()],
            "score": env._score,
            "paid": env._paid,
            "frames": [frame.tolist() for frame in env._observer.frames],
            "curve": env.curve,
        },
    )


def load_episode(env: SSDKDEnv, path: str | Path) -> None:
    """Continue the episode that `save_episode` wrote, in an environment made with the same arguments.

    Raises:
        InvalidInputError: when the file is unreadable or belongs to an environment with other arguments.
    """
    state = load_state(path)
    number = state.get("instance") if isinstance(state, dict) else None
    task = env.instances.tasks[number] if isinstance(number, int) and 0 <= number < len(env.instances) else None
    if task is None or state.get("arguments") != _fingerprint(env, task):
        raise InvalidInputError(
            f"{path} was saved by an environment with other arguments; make this one with the same task, networks, "
            "method, budget, backend, precision, kind of device, observation, action, rounds_per_step and reward"
        )
    run = env._make_run(task, state["seed"])
    run.load_state_dict(state["run"])
    previous, snapshot = map(Snapshot.from_state, state["snapshots"])
    # From here on nothing fails, so that a file that does not fit leaves the environment as it was.
    env.instances.index = state["instance"]
    env._take_task(task)
    env.np_random.bit_generator.state = state["np_random"]
    env.run, env._previous, env._snapshot = run, previous, snapshot
    env._last_action = np.array(state["last_action"], dtype=np.float32)
    env._score, env._paid, env.curve = state["score"], state["paid"], state["curve"]
    env._observer.frames = [np.array(frame, dtype=np.float32) for frame in state["frames"]]


def _fingerprint(env: SSDKDEnv, task: Task) -> str:
    """What an episode depends on beside its state."""
    # Functions have an address in their repr, files another folder elsewhere: neither is the same in every process.
    spec = replace(task.spec, teacher_weights=task.teacher_digest(), evaluation=None, teacher_data=None)
    engine = (env.method, env.backend, env.precision, env.device.type)
    face: tuple[object, ...] = (env.instances.name, env.reward_name, type(env.action_scheme).__name__)
    if env.rounds_per_step != 1:  # as all episodes had that were saved before there was a choice
        face = (*face, env.rounds_per_step)
    return repr((ENV_VERSION, spec, *engine, *face, env.observation_names, env.observation_space))
