"""What an agent's next update depends on besides its weights, so that a training can go on exactly."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from ssdkd_env.errors import InvalidInputError

#: Name in the file → attribute of the agent, where it has it.
COUNTERS = {
    "num_timesteps": "num_timesteps",
    "n_updates": "_n_updates",
    "total_timesteps": "_total_timesteps",
    "progress_remaining": "_current_progress_remaining",
    "episode_num": "_episode_num",
    "n_calls": "_n_calls",
    "exploration_rate": "exploration_rate",
}
#: Arrays of Stable-Baselines3's replay buffer; a memory-saving one has no `next_observations`.
REPLAY_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
#: What the agent saw last, which `learn` begins with where it does not reset the environments.
LAST = {"observation": "_last_obs", "original": "_last_original_obs", "starts": "_last_episode_starts"}


def counters_state(model: BaseAlgorithm) -> dict[str, int | float]:
    """Counters and the places that schedules have reached."""
    return {name: getattr(model, attribute) for name, attribute in COUNTERS.items() if hasattr(model, attribute)}


def load_counters(model: BaseAlgorithm, state: dict[str, int | float]) -> None:
    """Set them."""
    for name in ("num_timesteps", "n_updates", *state):
        if not isinstance(state[name], int | float):
            raise ValueError(f"the counter {name} is no number")
        setattr(model, COUNTERS[name], state[name])


def replay_state(model: BaseAlgorithm) -> dict[str, Any] | None:
    """The filled part of an off-policy agent's replay buffer; None for other agents."""
    if not isinstance(model, OffPolicyAlgorithm):
        return None
    buffer = model.replay_buffer
    assert isinstance(buffer, ReplayBuffer)
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {
        name: torch.from_numpy(getattr(buffer, name)[:filled].copy()) for name in REPLAY_ARRAYS if hasattr(buffer, name)
    }
    return arrays | {"pos": buffer.pos, "full": buffer.full}


def load_replay(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Fill the replay buffer."""
    assert isinstance(model, OffPolicyAlgorithm)
    buffer = model.replay_buffer
    assert isinstance(buffer, ReplayBuffer)
    for name in REPLAY_ARRAYS:
        if hasattr(buffer, name):
            saved = state[name].numpy()
            getattr(buffer, name)[: len(saved)] = saved
    buffer.pos, buffer.full = state["pos"], state["full"]


def random_state(model: BaseAlgorithm) -> dict[str, Any]:
    """States of the generators that agents draw from: numpy's, Python's, PyTorch's and the action space's."""
    _, keys, pos, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (the one that the agents draw from)
    version, internal, gauss = random.getstate()
    return {
        "numpy": {"keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)), "rest": (pos, has_gauss, cached)},
        "python": {"keys": torch.tensor(internal), "rest": (version, gauss)},
        "torch": torch.get_rng_state(),
        "action_space": model.action_space.np_random.bit_generator.state,
    }


def load_random(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Set them."""
    keys = state["numpy"]["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, *state["numpy"]["rest"]))  # noqa: NPY002
    version, gauss = state["python"]["rest"]
    random.setstate((version, tuple(state["python"]["keys"].tolist()), gauss))
    torch.set_rng_state(state["torch"])
    model.action_space.np_random.bit_generator.state = state["action_space"]


def last_state(model: BaseAlgorithm) -> dict[str, Any]:
    """What the agent saw last, and the returns and lengths of the last episodes, which the logs average."""
    seen = {name: getattr(model, attribute) for name, attribute in LAST.items()}
    arrays = {name: None if value is None else torch.from_numpy(np.array(value)) for name, value in seen.items()}
    episodes = [{key: float(episode[key]) for key in ("r", "l")} for episode in model.ep_info_buffer or ()]
    return arrays | {"episodes": episodes}


def load_last(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Set them; `learn(reset_num_timesteps=False)` will then not reset the environments.

    Raises:
        InvalidInputError: when there were another number of environments.
    """
    starts = state["starts"]
    if starts is not None and len(starts) != model.n_envs:
        raise InvalidInputError(
            f"the saved training had n_envs={len(starts)}, not {model.n_envs}; give the same to go on exactly"
        )
    for name, attribute in LAST.items():
        setattr(model, attribute, None if state[name] is None else state[name].numpy().copy())
    size = model._stats_window_size
    model.ep_info_buffer, model.ep_success_buffer = deque(state["episodes"], maxlen=size), deque(maxlen=size)
