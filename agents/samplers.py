"""Samplers: whoever answers an observation with an action. The protocol is Stable-Baselines3's own `predict`."""

from __future__ import annotations

import json
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError, check_choice

FloatArray = NDArray[np.float32]


class Sampler(Protocol):
    """Any Stable-Baselines3 model is one; so are the paper's sampler and the controls below."""

    def predict(
        self,
        observation: FloatArray,
        state: tuple[FloatArray, ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[FloatArray, tuple[FloatArray, ...] | None]:
        """Answer observations (n, observation size) or (observation size,) with as many actions."""
        ...


class ConstantSampler:
    """Gives one action whatever it observes.

    Args:
        action: (action size,) float32 in [−1, 1].
    """

    def __init__(self, action: FloatArray) -> None:
        self.action = np.array(action, dtype=np.float32)

    def predict(
        self,
        observation: FloatArray,
        state: tuple[FloatArray, ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[FloatArray, tuple[FloatArray, ...] | None]:
        """The constant action, once for each observation."""
        return np.broadcast_to(self.action, (*observation.shape[:-1], len(self.action))).copy(), state


class RandomSampler:
    """Draws every action uniformly from the action space, whether or not `deterministic` is asked for.

    Args:
        action_size: length of an action.
        seed: of the draws.
    """

    def __init__(self, action_size: int, seed: int = 0) -> None:
        self.action_size = action_size
        self._random = np.random.default_rng(seed)

    def predict(
        self,
        observation: FloatArray,
        state: tuple[FloatArray, ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[FloatArray, tuple[FloatArray, ...] | None]:
        """A fresh random action for each observation."""
        shape = (*observation.shape[:-1], self.action_size)
        return self._random.uniform(-1.0, 1.0, shape).astype(np.float32), state


def paper_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """SSD-KD's hand-written sampler, reconstructed: P ∝ |δ| + ε, importance weights, all candidates compete."""
    return ConstantSampler(env.paper_action)


def uniform_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """No priority at all: uniform draws and uniform replacement. The control of δ."""
    return ConstantSampler(env.uniform_action)


def own_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """What the method's authors do: the paper's sampler for SSD-KD, uniform for the other methods."""
    return ConstantSampler(env.own_action)


def unweighted_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """The paper's sampler without importance weights (β = 0)."""
    return ConstantSampler(env.action_scheme.from_plan(SamplingPlan(importance_exponent=0.0)))


def random_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """A random action every round. What an untrained agent does at the most."""
    return RandomSampler(len(env.action_names), seed)


SAMPLERS = {
    "own": own_sampler,
    "paper": paper_sampler,
    "paper_unweighted": unweighted_sampler,
    "uniform": uniform_sampler,
    "random": random_sampler,
}


#: `"constant:[0.5, 0, 0, -0.2, 1]"` gives one action; the paper's sampler is such a point.
CONSTANT_PREFIX = "constant:"


def parse_constant(name: str, env: SSDKDEnv) -> ConstantSampler:
    """Build the sampler of `"constant:[...]"`, a JSON list with one number in [−1, 1] for each part of the action.

    Raises:
        InvalidInputError: when it is no such list.
    """
    try:
        action = np.array(json.loads(name.removeprefix(CONSTANT_PREFIX)), dtype=np.float32)
    except (json.JSONDecodeError, ValueError, TypeError):
        action = np.array([], dtype=np.float32)
    if not env.action_space.contains(action):
        raise InvalidInputError(
            f"sampler={name!r}: expected constant:[...] with {len(env.action_names)} numbers in [-1, 1]: "
            f"{', '.join(env.action_names)}"
        )
    return ConstantSampler(action)


def make_sampler(name: str, env: gym.Env[Any, Any], seed: int = 0) -> Sampler:
    """Build a sampler by name.

    Args:
        name: a key of `SAMPLERS`, or `"constant:[...]"`.
        env: the environment that it will drive; its action scheme says what the paper's action is.
        seed: of a sampler that draws.

    Raises:
        InvalidInputError: when the name is unknown.
    """
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, SSDKDEnv)
    if name.startswith(CONSTANT_PREFIX):
        return parse_constant(name, unwrapped)
    check_choice("sampler", name, SAMPLERS)
    return SAMPLERS[name](unwrapped, seed)
