"""What an agent's next update depends on besides its weights: counters and replay buffer."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

#: Name in the file → attribute of the agent, where it has it.
COUNTERS = {
    "num_timesteps": "num_timesteps",
    "n_updates": "_n_updates",
    "n_calls": "_n_calls",
    "exploration_rate": "exploration_rate",
}
#: Arrays of Stable-Baselines3's replay buffer; a memory-saving one has no `next_observations`.
REPLAY_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def counters_state(model: BaseAlgorithm) -> dict[str, int | float]:
    """Counters and the exploration rate."""
    return {name: getattr(model, attribute) for name, attribute in COUNTERS.items() if hasattr(model, attribute)}


def load_counters(model: BaseAlgorithm, state: dict[str, int | float]) -> None:
    """Set them; a file may name others, of an earlier version."""
    for name in {"num_timesteps", "n_updates"} | (COUNTERS.keys() & state.keys()):
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
