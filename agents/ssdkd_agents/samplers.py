"""Samplers: whoever answers an observation with an action. The protocol is Stable-Baselines3's own `predict`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ssdkd_agents.families import FAMILIES, Constants, FamilySampler, make_family
from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.distillation import Action
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.registry import Registry, is_import_path, reserve_prefix

FloatArray = NDArray[np.float32]
#: A recurrent policy's memory.
State = tuple[FloatArray, ...] | None


class Sampler(Protocol):
    """Any Stable-Baselines3 model is one; so are the paper's sampler and the baselines below."""

    def predict(
        self,
        observation: FloatArray,
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], State]:
        """Answer observations (n, observation size) or (observation size,) with as many actions."""
        ...


@runtime_checkable
class PlanningSampler(Protocol):
    """A sampler whose wish an action scheme may not be able to say, beside `predict`."""

    def plan_for(self, env: SSDKDEnv, action: Any) -> Action:
        """What it wants done in `env`, where `predict` has just given `action`."""
        ...


class ConstantSampler:
    """Gives one action whatever it observes.

    Args:
        action: (action size,) float32 in [−1, 1], or a whole number for a discrete scheme.
    """

    def __init__(self, action: Any) -> None:
        self.action = np.array(action)

    def predict(
        self,
        observation: FloatArray,
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], State]:
        """The constant action, once for each observation."""
        return np.broadcast_to(self.action, (*observation.shape[:-1], *self.action.shape)).copy(), state


class PlanSampler(ConstantSampler):
    """Follows one sampling plan, which the environment's action scheme may not be able to say.

    `predict` gives the action that comes nearest; `decide` gives the plan itself.

    Args:
        plan: to follow.
        env: whose action scheme `predict` answers in.
    """

    def __init__(self, plan: SamplingPlan, env: SSDKDEnv) -> None:
        super().__init__(env.action_scheme.from_plan(plan))
        self._plan = plan

    def plan_for(self, env: SSDKDEnv, action: Any) -> Action:
        """The plan."""
        return self._plan


class InstanceSampler:
    """Gives each instance of a set an action of its own: what an oracle would do, who knows the instance by its number.

    Args:
        actions: (instances, parts) float32 in [−1, 1].
        env: that it drives, which says what is played.
    """

    def __init__(self, actions: FloatArray, env: SSDKDEnv) -> None:
        self.actions, self._env = actions, env

    def predict(self, *args: Any, **kwargs: Any) -> tuple[NDArray[Any], State]:
        """The instance's action, as `ConstantSampler` gives it."""
        return ConstantSampler(self.actions[self._env.instances.index]).predict(*args, **kwargs)


class RandomReplacement:
    """Another sampler's baseline: replaces as many images, but both who enters and who leaves is a matter of chance.

    What the student studies is still the other sampler's choice. After Fan et al. 2018 (Learning to Teach), whose
    control drops at random at the learnt rate.

    Args:
        inner: the other sampler.
    """

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def predict(
        self,
        observation: FloatArray,
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], State]:
        """The other sampler's action."""
        return self._inner.predict(observation, state, episode_start, deterministic)

    def plan_for(self, env: SSDKDEnv, action: Any) -> Action:
        """The plan of the other sampler's action, with replacement by chance."""
        decision = self._inner.plan_for(env, action) if isinstance(self._inner, PlanningSampler) else action
        return replace(env.plan_of(decision), replacement="random")


class RandomSampler:
    """Draws every action uniformly from the action space, whether or not `deterministic` is asked for.

    Args:
        space: the action space, a Box(−1, 1) or discrete.
        seed: of the draws.
    """

    def __init__(self, space: spaces.Space[Any], seed: int = 0) -> None:
        self._space = space
        self._random = np.random.default_rng(seed)

    def predict(
        self,
        observation: FloatArray,
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], State]:
        """A fresh random action for each observation."""
        count = observation.shape[:-1]
        if isinstance(self._space, spaces.Discrete):
            return np.asarray(self._random.integers(self._space.n, size=count)), state
        shape = (*count, *(self._space.shape or ()))
        return self._random.uniform(-1.0, 1.0, shape).astype(np.float32), state


def decide(
    sampler: Sampler, env: SSDKDEnv, observation: FloatArray, state: State, begins: bool
) -> tuple[Action, State]:
    """What a sampler wants done: its deterministic action, or a plan where no action can say it.

    Args:
        sampler: asked for its answer.
        env: the environment that it drives.
        observation: (observation size,) float32.
        state: as it gave it last time; None at first.
        begins: whether an episode begins.
    """
    action, state = sampler.predict(observation, state, np.array([begins], dtype=bool), deterministic=True)
    return (sampler.plan_for(env, action) if isinstance(sampler, PlanningSampler) else action), state


#: What a plan says in numbers and names; its scorer, if it has one, is the action's.
_PLAIN_FIELDS = tuple(field.name for field in fields(SamplingPlan) if field.name not in ("logits", "scorer"))


def write_decision(env: SSDKDEnv, decision: Action) -> Any:
    """A decision as JSON: the action's numbers, and for a plan the action that comes nearest and what it leaves out."""
    action = np.asarray(env.action_of(decision)).tolist()
    if not isinstance(decision, SamplingPlan):
        return action
    plain = {name: getattr(decision, name) for name in _PLAIN_FIELDS}
    return {"action": action, "scored": decision.scorer is not None, **plain}


def read_decision(env: SSDKDEnv, written: Any) -> Action:
    """The decision that `write_decision` wrote."""
    plain = dict(written) if isinstance(written, dict) else {"action": written}
    action = np.array(plain.pop("action"))
    action = action if isinstance(env.action_space, spaces.Discrete) else action.astype(np.float32)
    if not isinstance(written, dict):
        return action
    plan = env.plan_of(action)
    return replace(plan, **plain) if plain.pop("scored") else replace(plan, scorer=None, **plain)


def _always(decision: Any, env: SSDKDEnv) -> Sampler:
    """The sampler that always says the same: an action, or a plan that no action means."""
    return PlanSampler(decision, env) if isinstance(decision, SamplingPlan) else ConstantSampler(decision)


def paper_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """SSD-KD's hand-written sampler, reconstructed: P ∝ |δ| + ε, importance weights, all candidates compete."""
    return _always(env.paper_action, env)


def uniform_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """No priority at all: uniform draws and uniform replacement. The baseline of δ."""
    return _always(env.uniform_action, env)


def own_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """What the method's authors do: the paper's sampler for SSD-KD, uniform for the other methods."""
    return _always(env.own_action, env)


def random_sampler(env: SSDKDEnv, seed: int = 0) -> Sampler:
    """A random action every step. What an untrained agent does at the most."""
    return RandomSampler(env.action_space, seed)


def plan_sampler(env: SSDKDEnv, seed: int = 0, *, name: str) -> Sampler:
    """One of `NAMED_PLANS`, whatever the environment's action scheme."""
    return PlanSampler(NAMED_PLANS[name], env)


#: Makes a sampler for an environment, with the seed of its draws.
SamplerMaker = Callable[[SSDKDEnv, int], Sampler]

_BASELINES: dict[str, SamplerMaker] = {name: partial(plan_sampler, name=name) for name in NAMED_PLANS} | {
    "own": own_sampler,
    "paper": paper_sampler,
    "uniform": uniform_sampler,
    "random": random_sampler,
}
SAMPLERS: Registry[SamplerMaker] = Registry("sampler", None, _BASELINES)


def names_baseline(name: str) -> bool:
    """Whether a name is that of a baseline: registered, constant, or an import path."""
    prefixed = name.startswith(RANDOM_REPLACEMENT_PREFIX)
    return name in SAMPLERS or family_of(name) is not None or (is_import_path(name) and not prefixed)


def family_of(name: str) -> str | None:
    """The family of a sampler that is given by its numbers, such as `"schedule:[0, 0, 1, 1]"`; None for any other."""
    family, colon, _ = name.partition(":")
    return family if colon and family in FAMILIES else None


#: Of a `constant.json` whose plan depends on the instance.
PER_INSTANCE = "per_instance"
#: `"random_at_rate:runs/ppo"` is the baseline of another sampler; see `RandomReplacement`.
RANDOM_REPLACEMENT_PREFIX = reserve_prefix("random_at_rate:")


def member_of(family: str, numbers: Any, env: SSDKDEnv) -> Sampler | None:
    """The sampler of a family that these numbers are; None where they are no member of it in this environment.

    Args:
        family: key of `FAMILIES`, or `PER_INSTANCE`, whose numbers are the actions of all instances.
        numbers: a list with each in [−1, 1]; of the family constant in a discrete scheme one whole number.
        env: that it will drive.

    Raises:
        InvalidInputError: when the family does not fit the environment.
    """
    space = env.action_space
    if family == PER_INSTANCE:
        return _per_instance(numbers, env)
    made = None if family == Constants.name else make_family(family, env)  # any action is a constant, choices too
    try:
        found = np.array(numbers)
        found = found.astype(np.float32) if made is not None or isinstance(space, spaces.Box) else found
    except (ValueError, TypeError):
        return None
    if made is None:
        return ConstantSampler(found) if space.contains(found) else None
    return FamilySampler(made, found) if found.shape == (made.size,) and (np.abs(found) <= 1).all() else None


def _per_instance(numbers: Any, env: SSDKDEnv) -> Sampler | None:
    """Of the actions of all instances, one after the other."""
    try:
        actions = np.array(numbers, dtype=np.float32).reshape(len(env.instances), -1)
    except (ValueError, TypeError):
        return None
    return InstanceSampler(actions, env) if all(env.action_space.contains(action) for action in actions) else None


def parse_member(name: str, env: SSDKDEnv) -> Sampler:
    """Build the sampler of `"FAMILY:[...]"`: a JSON list with the numbers of a member, each in [−1, 1].

    `"constant:[0.5, 0, 0, -0.2, 1]"` gives one action; in a discrete scheme it is one whole number: `"constant:3"`.

    Raises:
        InvalidInputError: when it is no such thing, or the family does not fit the environment.
    """
    family, _, text = name.partition(":")
    try:
        numbers = json.loads(text)
    except json.JSONDecodeError:
        numbers = None
    sampler = member_of(family, numbers, env)
    if sampler is None:
        raise InvalidInputError(f"sampler={name!r}: expected {_form_of(family, env)}")
    return sampler


def _form_of(family: str, env: SSDKDEnv) -> str:
    """What a member of the family looks like in a name."""
    if family != Constants.name:
        return f"{family}:[...] with {make_family(family, env).size} numbers in [-1, 1]"
    wanted = f"[...] with {len(env.action_names)} numbers in [-1, 1]"
    if isinstance(env.action_space, spaces.Discrete):
        wanted = f"a whole number from 0 to {env.action_space.n - 1}"
    return f"{family}:{wanted}: {', '.join(env.action_names)}"


def make_sampler(name: str, env: gym.Env[Any, Any], seed: int = 0) -> Sampler:
    """Build a sampler by name.

    Args:
        name: a key of `SAMPLERS`, `"FAMILY:[...]"` with a key of `FAMILIES`, or import path of a `SamplerMaker`.
        env: the environment that it will drive; its action scheme says what the paper's action is.
        seed: of a sampler that draws.

    Raises:
        InvalidInputError: when the name is unknown.
    """
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, SSDKDEnv)
    if family_of(name) is not None:
        return parse_member(name, unwrapped)
    return SAMPLERS.find(name)(unwrapped, seed)
