"""Saving and safe loading of trained samplers: one file, nothing pickled.

The file holds the agent's tensors as safetensors, and everything else (algorithm, hyper-parameters, counters,
normalisation statistics) as JSON in its header, so that the statistics cannot be separated from the weights.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from ssdkd_agents.environments import make_env
from ssdkd_agents.families import Constants
from ssdkd_agents.policies.algorithms import build_model
from ssdkd_agents.policies.exported import SETTINGS, check_network, check_tensors, read_exported
from ssdkd_agents.policies.normalization import frozen_normalization, load_normalization, normalization_state
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.resume import counters_state, load_counters, load_replay, replay_state
from ssdkd_agents.runs import BEST_FILE, CONSTANT_FILE
from ssdkd_agents.samplers import (
    PER_INSTANCE,
    RANDOM_REPLACEMENT_PREFIX,
    SAMPLERS,
    RandomReplacement,
    Sampler,
    State,
    make_sampler,
    member_of,
    names_baseline,
)
from ssdkd_agents.schemas import FoundPlan, SamplerState, check_settings_of
from ssdkd_env import ENV_VERSION
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.reading import conform, fitting, read_json
from ssdkd_env.renamed import with_new_names

FloatArray = NDArray[np.float32]

FORMAT = "ssdkd sampler 3"

#: Families that read no observation.
BLIND = (Constants.name, PER_INSTANCE)


def save_sampler(path: str | Path, model: BaseAlgorithm, config: dict[str, Any], with_replay: bool = False) -> None:
    """Write a trained agent as one safetensors file, atomically.

    Args:
        path: the file.
        model: agent on a vector environment, inside `VecNormalize` or not.
        config: JSON-able; needs `algorithm`, `hyperparameters` and `env_id`.
        with_replay: keep an off-policy agent's replay buffer too, which only a resumption needs.
    """
    names, variables = model._get_torch_save_params()
    # A fresh environment, not the model's: after Ctrl-C a worker may be in the middle of a step.
    env = make_env(config["env_id"], config.get("env_kwargs", {}))
    environment = model.get_vec_normalize_env()
    state: dict[str, Any] = {
        "format": FORMAT,
        "config": config,
        "names": {
            "observation": list(env.observation_names),
            "action": list(env.action_names),
        },
        "face": env.face,
        "counters": counters_state(model),
        "parameters": {name: recursive_getattr(model, name).state_dict() for name in names},
        "variables": {name: recursive_getattr(model, name) for name in variables},
        "normalization": None if environment is None else normalization_state(environment),
        "replay": replay_state(model) if with_replay else None,
    }
    save_state(path, state)


def read_sampler(path: str | Path) -> dict[str, Any]:
    """Read a sampler file without building anything.

    Raises:
        InvalidInputError: when it is missing, cut short, or no sampler.
    """
    state = load_state(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InvalidInputError(f"{path} holds no trained sampler; expected a file that ssdkd train wrote")
    conform(state, SamplerState, f"{path} is damaged", "train or copy it again")
    config = state["config"]
    check_settings_of([config, state["face"], state["names"]], path)
    policy = state["parameters"].get("policy")
    if not isinstance(policy, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in policy.values()):
        raise InvalidInputError(f"{path} is damaged: it has no tensors of a policy; train or copy it again")
    check_network(Path(path), config["hyperparameters"], policy)
    config["env_kwargs"] = with_new_names(config.get("env_kwargs", {}))
    return state | {"face": with_new_names(state["face"])}


def restore_model(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Put a saved state into a model that `build_model` made with the same hyper-parameters.

    Restored are weights (targets and batch statistics included), optimisers with their moments, entropy coefficient,
    counters, exploration rate, normalisation statistics and replay buffer. What a training needs beside its agent to go
    on exactly is in `ssdkd_agents.training.loop_state`.

    Args:
        model: on an environment with the same spaces.
        state: of `read_sampler`.

    Raises:
        InvalidInputError: when the saved weights do not fit the model.
    """
    remedy = "use the observation and action scheme and the hyper-parameters that it was trained with"
    with fitting("the saved sampler: it", remedy):
        model.set_parameters(state["parameters"], device="cpu")
        for name, value in state["variables"].items():
            recursive_getattr(model, name).data.copy_(value)
        if hasattr(model, "weights"):  # ARS keeps them beside the policy's
            weights: Any = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
            model.weights = weights
        load_counters(model, state["counters"])
        environment = model.get_vec_normalize_env()
        if environment is not None and state["normalization"] is not None:
            load_normalization(environment, state["normalization"])
        if state["replay"] is not None:
            load_replay(model, state["replay"])


class TrainedSampler:
    """A trained agent as a sampler: normalises observations as in training, then asks the policy.

    Recurrent policies are asked with the state that the last answer came with.

    Args:
        path: file that `save_sampler` wrote, or folder that `write_exported` wrote.
        env: environment that it will drive; its spaces must be those of the training.

    Raises:
        InvalidInputError: when the file is unusable or the environment has other observations or actions.
    """

    def __init__(self, path: str | Path, env: SSDKDEnv) -> None:
        path = Path(path)
        exported = (path / SETTINGS).exists()
        state = read_exported(path) if exported else read_sampler(path)
        check_version(path, state["config"]["env_id"])
        check_face(path, {"rounds_per_step": 1} | state["face"], env)  # which older files do not name
        for what, names in (("observation", env.observation_names), ("action", env.action_names)):
            if list(names) != state["names"].get(what):
                raise InvalidInputError(
                    f"{path} was trained with other {what} entries than this environment has; it needs a task with as "
                    "many classes, and the same version of this package"
                )
        self._model = untrained_model(state["config"], env)
        if exported:
            load_policy(self._model, state["parameters"]["policy"], str(path), "export it again")
        else:
            restore_model(self._model, state | {"replay": None})
        self._normalize: VecNormalize | None = None
        if state["normalization"] is not None:
            venv = self._model.get_env()
            assert venv is not None
            self._normalize = frozen_normalization(venv, state["normalization"])

    def predict(
        self,
        observation: FloatArray,
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], State]:
        """The policy's action for raw observations."""
        if self._normalize is not None:
            observation = self._normalize.normalize_obs(observation)  # type: ignore[assignment]
        return self._model.predict(observation, state, episode_start, deterministic)


def untrained_model(config: dict[str, Any], env: SSDKDEnv) -> BaseAlgorithm:
    """A model to put a saved policy into; it trains no more.

    Args:
        config: `algorithm` and `hyperparameters`.
        env: tells the spaces.

    Raises:
        InvalidInputError: as `build_model`.
    """
    # Two, because a rollout of one environment may be a single step, which PPO refuses.
    venv = DummyVecEnv([lambda: _Spaces(env.observation_space, env.action_space)] * 2)
    of_training = {"buffer_size": 2, "train_freq": 1}  # which two environments need not fit
    unused = {name: value for name, value in of_training.items() if name in config["hyperparameters"]}
    with warnings.catch_warnings():  # the mini-batch need not fit these environments' rollouts
        warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
        return build_model(config["algorithm"], venv, config["hyperparameters"] | unused, seed=0)


def load_policy(model: BaseAlgorithm, tensors: dict[str, torch.Tensor], what: str, remedy: str) -> None:
    """Put a policy's tensors into a model; see `check_tensors`."""
    check_tensors(what, model.policy.state_dict(), tensors, remedy)
    model.policy.load_state_dict(tensors)


class _Spaces(gym.Env[FloatArray, FloatArray]):
    """Stands in for the environment where a model only needs to know its spaces."""

    def __init__(self, observation_space: spaces.Space[FloatArray], action_space: spaces.Space[FloatArray]) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def check_face(path: Path, face: dict[str, Any], env: SSDKDEnv) -> None:
    """Refuse an environment that shows or takes something else than a sampler is used to.

    Raises:
        InvalidInputError: when it has another action scheme, form of observation, history or number of rounds a step.
    """
    for name, value in face.items():
        if env.face.get(name) != value:
            raise InvalidInputError(
                f"{path} was made with {name}={value!r}, this environment has {name}={env.face.get(name)!r}; make it "
                f"with {name}={value!r}"
            )


def check_version(path: Path, env_id: Any) -> None:
    """Refuse what was learnt on another version of this package's environments, where numbers mean something else.

    Args:
        path: of the sampler.
        env_id: that it was made on, perhaps with a module before it; ids of the user's own say nothing.

    Raises:
        InvalidInputError: when the versions differ.
    """
    found = re.search(r"(?:^|:)SSDKD/\w+-v(\d+)$", str(env_id))
    if found is not None and int(found[1]) != ENV_VERSION:
        raise InvalidInputError(
            f"{path} was made on {env_id}; observations and plans mean something else in -v{ENV_VERSION}: train or "
            "search it anew"
        )


def face_of(name: str) -> dict[str, Any]:
    """Arguments of an environment that a sampler needs as it was made with; see `SSDKDEnv.face`.

    Args:
        name: as `load_sampler` takes it. Baselines need nothing.

    Raises:
        InvalidInputError: when a file or folder is no sampler's.
    """
    inner = name.removeprefix(RANDOM_REPLACEMENT_PREFIX)
    if names_baseline(inner) or not inner or not Path(inner).exists():
        return {}
    file = find_sampler_file(Path(inner))
    if file.name == CONSTANT_FILE:
        return _face_of_found(_read_constant(file))
    state = read_exported(file.parent) if file.name == SETTINGS else read_sampler(file)
    return dict(state["face"])


def _face_of_found(plan: dict[str, Any]) -> dict[str, Any]:
    """What a search's policy needs: its actions, and, where it reads observations, all that shapes them."""
    action = {"action": plan["env_kwargs"].get("action", "exponents")}
    return action if plan["family"] in BLIND else {**action, **plan.get("face", {})}


def taken_of(name: str) -> str | None:
    """Which checkpoint a training's folder stands for, in a line; None for whatever else a sampler's name may mean."""
    run = Path(name.removeprefix(RANDOM_REPLACEMENT_PREFIX))
    if not (run / "checkpoints").is_dir() or (file := find_sampler_file(run)).parent.name != "checkpoints":
        return None
    best = run / BEST_FILE
    if not best.is_file():
        return f"{run}: its last checkpoint, of {file.stem} steps, is taken; it has no best, because none was validated"
    steps = read_sampler(best)["counters"]["num_timesteps"]
    also = "its best in validation, too" if str(steps) == file.stem else f"{best} is the best, of {steps} steps"
    return f"{run}: its last checkpoint, of {file.stem} steps, is taken; {also}"


def load_constant(path: Path, env: SSDKDEnv) -> Sampler:
    """What a search has left in a `constant.json`: `{"family": …, "action": [...], "action_names": [...]}`.

    Raises:
        InvalidInputError: when it is damaged, or the environment has other actions.
    """
    plan = _read_constant(path)
    check_version(path, plan.get("env_id", ""))
    check_face(path, _face_of_found(plan), env)
    if plan["action_names"] != list(env.action_names):
        raise InvalidInputError(
            f"{path} was found with other action entries ({plan['action_names']}) than this environment has; it needs "
            "a task with as many classes, and the same version of this package"
        )
    if plan["family"] not in BLIND and plan.get("observation_names") != list(env.observation_names):
        raise InvalidInputError(f"{path} was found with another observation than this environment's; give that one")
    if plan["family"] == PER_INSTANCE and (known := plan["env_kwargs"].get("instances")) != env.instances.name:
        raise InvalidInputError(
            f"{path} has a plan for each instance of {known!r}, and this environment's are of {env.instances.name!r}; "
            "give --env.instances, or another sampler"
        )
    sampler = member_of(plan["family"], plan["action"], env)
    if sampler is None:
        raise InvalidInputError(
            f"{path}: action={plan['action']!r} is none of this environment's; expected "
            f"{len(env.action_names)} numbers in [-1, 1]"
        )
    return sampler


def _read_constant(path: Path) -> dict[str, Any]:
    plan: dict[str, Any] = read_json(path)
    conform(plan, FoundPlan, f"{path} holds no plan", "give what ssdkd search wrote")
    check_settings_of(plan, path)
    # Earlier searches were of constant plans.
    return {"family": Constants.name} | plan | {"env_kwargs": with_new_names(plan["env_kwargs"])}


def load_sampler(name: str, env: SSDKDEnv, seed: int = 0) -> Sampler:
    """A baseline by its name, or a sampler by its file or folder: of a training, of a search, or exported.

    `"random_at_rate:NAME"` is another sampler's baseline; see `RandomReplacement`.

    Raises:
        InvalidInputError: when there is no such baseline, file or folder.
    """
    if names_baseline(name):
        return make_sampler(name, env, seed)
    if name.startswith(RANDOM_REPLACEMENT_PREFIX):
        return RandomReplacement(load_sampler(name.removeprefix(RANDOM_REPLACEMENT_PREFIX), env, seed))
    path = Path(name)
    if not name or not path.exists():
        raise InvalidInputError(
            f"sampler={name!r} is neither a file, a run folder, constant:[...], random_at_rate:NAME, nor one of: "
            f"{', '.join(sorted(SAMPLERS))}; "
            "`ssdkd train` makes run folders"
        )
    file = find_sampler_file(path)
    if file.name == CONSTANT_FILE:
        return load_constant(file, env)
    return TrainedSampler(file.parent if file.name == SETTINGS else file, env)
