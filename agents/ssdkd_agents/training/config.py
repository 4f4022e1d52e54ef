"""What a training depends on, and what of it is refused before anything is written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv

from ssdkd_agents.environments import make_env
from ssdkd_agents.policies.algorithms import build_model, load_hyperparameters
from ssdkd_agents.policies.starting import begin_at
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.schemas import config_of
from ssdkd_agents.seeds import HELD_OUT_SEED, VALIDATION_SEED
from ssdkd_agents.training.extent import UNLIMITED, check_learns
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.sub_environments import check_backend
from ssdkd_env.envs.work_actions import WORK_RANGES
from ssdkd_env.errors import InvalidInputError

#: Environments side by side; as far apart are the seeds of two trainings.
MOST_ENVIRONMENTS = 500


@dataclass(frozen=True)
class TrainingConfig:
    """What a training depends on; it lies as `config.json` in the run's folder.

    Attributes:
        env_id: registered id.
        algorithm: one of `ALGORITHMS`.
        seed: of agent and environments, below 1,000 (seeds of validation begin at 500,000, of evaluation at 1,000,000).
        timesteps: environment steps; 0 takes the hyper-parameter file's `n_timesteps`.
        episodes: in place of steps, where agents that are compared decide how long their episodes are: the training
            ends with the iteration in which so many have ended.
        env_kwargs: JSON-able arguments of the environment.
        hyperparameters: values that replace the file's.
        checkpoint_every_steps: environment steps between checkpoints, which lie between an update and the next rollout.
        image_every_episodes: episodes between pictures of the buffer in TensorBoard.
        vectorization: how the work of several environments is done; see `SubEnvironments`.
        evaluate_every_steps: environment steps between validations of the deterministic policy, of which the last
            agent always has one; 0 for none. Eight episodes of 16 rounds every 1,280 steps add an eighth to the time.
        evaluation_episodes: episodes of a validation, the same ones each time.
        patience: validations without improvement of the mean return after which training ends; 0 for never.
        start: action that the untrained agent's policy gives, whatever it sees; None leaves it to the algorithm.
        common_random_numbers: as many episodes as there are environments have one seed and play one instance; see
            `DistillationVecEnv.seed_each`.
    """

    env_id: str
    algorithm: str
    seed: int = 0
    timesteps: int = 0
    episodes: int = 0
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    checkpoint_every_steps: int = 128
    image_every_episodes: int = 20
    vectorization: str = "by_size"
    evaluate_every_steps: int = 1280
    evaluation_episodes: int = 8
    patience: int = 0
    start: list[float] | None = None
    common_random_numbers: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1000:
            raise InvalidInputError(
                f"seed={self.seed}: expected a number from 0 to 999, so that evaluation is held out"
            )
        check_backend(self.vectorization)
        if min(self.timesteps, self.episodes) < 0 or min(self.checkpoint_every_steps, self.image_every_episodes) < 1:
            raise InvalidInputError(
                "timesteps and episodes must be ≥ 0, checkpoint_every_steps and image_every_episodes ≥ 1"
            )
        if self.timesteps and self.episodes:
            raise InvalidInputError(
                f"timesteps={self.timesteps} and episodes={self.episodes} both say how long the training is; give one"
            )
        if self.evaluate_every_steps < 0 or self.patience < 0:
            raise InvalidInputError("evaluate_every_steps and patience must be ≥ 0; 0 switches them off")
        if not 1 <= self.evaluation_episodes <= HELD_OUT_SEED - VALIDATION_SEED:
            raise InvalidInputError(f"evaluation_episodes={self.evaluation_episodes}: expected a number of at least 1")
        if self.patience and not self.evaluate_every_steps:
            raise InvalidInputError(f"patience={self.patience} counts validations; set evaluate_every_steps too")


def config_of_run(folder: RunFolder) -> TrainingConfig:
    """The settings of an earlier training.

    Raises:
        InvalidInputError: when the folder was made by another command, or a setting does not fit.
    """
    return config_of(folder.config, TrainingConfig, folder.path, "ssdkd train")


def check_settings(config: TrainingConfig) -> dict[str, Any]:
    """Refuse what cannot be trained before anything is written; returns the hyper-parameters.

    Raises:
        InvalidInputError: when algorithm, environment, one of its arguments or a hyper-parameter is unusable, or
            nothing would be learnt in so few steps.
    """
    hyperparameters = load_hyperparameters(config.algorithm, config.env_id, config.hyperparameters)
    for name, low in (("n_envs", 1), ("n_timesteps", 1)):
        value = hyperparameters.setdefault(name, low)
        if not isinstance(value, int) or value < low:
            raise InvalidInputError(f"hyperparameters[{name!r}]={value!r}: expected a whole number of at least {low}")
    if hyperparameters["n_envs"] > MOST_ENVIRONMENTS:
        raise InvalidInputError(
            f"hyperparameters['n_envs']: at most {MOST_ENVIRONMENTS}, so that evaluation is held out"
        )
    gamma = hyperparameters.setdefault("gamma", 0.99)
    if not isinstance(gamma, int | float) or not 0 <= gamma <= 1:
        raise InvalidInputError(f"hyperparameters['gamma']={gamma!r}: expected a number from 0 to 1")
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        partial(make_env, config.env_id, config.env_kwargs) for _ in range(hyperparameters["n_envs"])
    ]
    with warnings.catch_warnings():  # the training itself builds its model again, and says them then
        warnings.simplefilter("ignore", UserWarning)
        venv = DummyVecEnv(makers)
        env = venv.envs[0].unwrapped
        if "gamma" not in config.hyperparameters and isinstance(env, SSDKDEnv) and decides_length(env):
            hyperparameters["gamma"] = 1.0
        model = build_model(config.algorithm, venv, hyperparameters, seed=0)
    # Nobody knows how many steps episodes have.
    check_learns(model, UNLIMITED if config.episodes else config.timesteps or hyperparameters["n_timesteps"])
    if config.start is not None:
        begin_at(model, config.start)
    return hyperparameters


def decides_length(env: SSDKDEnv) -> bool:
    """Whether an action says how much of the budget a step spends.

    A discount for each step would then favour few long ones: such agents have none, unless they are given one.
    """
    return env.budget.work > 0 and any(name in env.action_names for name in WORK_RANGES)


def training_seed(seed: int) -> int:
    """Seed of the first environment: as many follow it, and all of them are below `VALIDATION_SEED`."""
    return seed * MOST_ENVIRONMENTS
