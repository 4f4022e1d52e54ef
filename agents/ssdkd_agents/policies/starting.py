"""Agents that begin with a plan that is known to be good, and look for better ones around it. Ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from ssdkd_env.errors import InvalidInputError

#: Behind a tanh the edge of the box is infinitely far away.
NEAREST_TO_THE_EDGE = 0.999


def begin_at(model: BaseAlgorithm, action: Sequence[float]) -> None:
    """Make an untrained agent's deterministic action this one, whatever it sees.

    The last layer of its policy loses its weights, which learning gives back, and its bias becomes the action.

    Args:
        model: of any algorithm with continuous actions.
        action: (parts,) in [−1, 1]; behind a tanh, ±1 is as near as `NEAREST_TO_THE_EDGE`.

    Raises:
        InvalidInputError: when the action does not fit, or the policy's last layer has no bias.
    """
    space = model.action_space
    if not isinstance(space, spaces.Box):
        raise InvalidInputError(f"start={list(action)}: the actions are {space}, not numbers; leave it out")
    if len(action) != space.shape[0] or not all(-1 <= part <= 1 for part in action):
        raise InvalidInputError(f"start={list(action)}: expected {space.shape[0]} numbers in [-1, 1], an action")
    layer, squashed = _last_layer(model)
    if layer.bias is None:
        raise InvalidInputError("start: the policy has no bias; add policy_kwargs={'with_bias': True}")
    wanted = torch.tensor(action, dtype=layer.bias.dtype)
    if squashed:
        wanted = wanted.clamp(-NEAREST_TO_THE_EDGE, NEAREST_TO_THE_EDGE).atanh()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(wanted)
    if hasattr(model, "weights"):  # ARS keeps them beside the policy's
        weights: Any = nn.utils.parameters_to_vector(model.policy.parameters()).detach()
        model.weights = weights
    target: Any = getattr(model, "actor_target", None)
    if target is not None:
        target.load_state_dict(model.actor.state_dict())  # type: ignore[attr-defined]


def _last_layer(model: BaseAlgorithm) -> tuple[nn.Linear, bool]:
    """The policy's layer that gives the action, and whether a tanh follows it."""
    policy: Any = model.policy
    actor = getattr(policy, "actor", None)
    network = policy.action_net if actor is None else actor.mu
    layers = [part for part in network.modules() if isinstance(part, nn.Linear)]
    # TD3 and ARS have it as a layer, SAC and its kin in their distribution.
    tanh = any(isinstance(part, nn.Tanh) for part in list(network.children())[-1:])
    return layers[-1], tanh or hasattr(actor, "log_std")
