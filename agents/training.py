"""Training a sampler with a Stable-Baselines3 algorithm."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from agents.algorithms import build_model, load_hyperparameters
from agents.callbacks import DistillationCallback
from agents.environments import make_env, make_vec_env, use_one_thread
from agents.experiments import HELD_OUT_SEED
from agents.runs import RunFolder
from agents.stopping import Stopper
from agents.storage import find_sampler_file, read_sampler, restore_model, save_sampler
from ssdkd_env.envs.pool import check_backend
from ssdkd_env.errors import InvalidInputError


@dataclass(frozen=True)
class TrainingConfig:
    """What a training depends on; it lies as `config.json` in the run's folder.

    Attributes:
        env_id: registered id.
        algorithm: key of `ALGORITHMS`.
        seed: of agent and environments, below 1,000 (seeds of evaluation begin at 1,000,000).
        timesteps: environment steps; 0 takes the hyper-parameter file's `n_timesteps`.
        env_kwargs: JSON-able arguments of the environment.
        hyperparameters: values that replace the file's.
        checkpoint_every: environment steps between checkpoints.
        image_every: episodes between pictures of the buffer in TensorBoard.
        vector_backend: how the work of several environments is done; see `EnvironmentPool`.
    """

    env_id: str
    algorithm: str
    seed: int = 0
    timesteps: int = 0
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: int = 400
    image_every: int = 20
    vector_backend: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1000:
            raise InvalidInputError(
                f"seed={self.seed}: expected a number from 0 to 999, so that evaluation is held out"
            )
        check_backend(self.vector_backend)
        if self.timesteps < 0 or self.checkpoint_every < 1 or self.image_every < 1:
            raise InvalidInputError("timesteps must be ≥ 0, checkpoint_every and image_every ≥ 1")


def config_of_run(folder: RunFolder) -> TrainingConfig:
    """The settings of an earlier training.

    Raises:
        InvalidInputError: when the folder was made by another command.
    """
    known = {field.name for field in fields(TrainingConfig)}
    settings = {name: value for name, value in folder.config.items() if name != "versions"}
    if set(settings) != known:
        raise InvalidInputError(f"{folder.path} was not made by train_sampler; give the folder of a training")
    return TrainingConfig(**settings)


def train(config: TrainingConfig, folder: RunFolder, resume: bool = False, progress_bar: bool = True) -> str:
    """Train until the steps are done or Ctrl-C, leaving checkpoints, TensorBoard logs and `episodes.jsonl`.

    Args:
        config: what to train.
        folder: where everything goes.
        resume: continue from the last checkpoint in `folder`.
        progress_bar: show one.

    Returns:
        `"finished"` or `"interrupted"`. In both cases the last checkpoint is on disk.
    """
    hyperparameters = check_settings(config)
    total = config.timesteps or hyperparameters["n_timesteps"]
    saved = read_sampler(find_sampler_file(folder.path)) if resume else None
    done = int(saved["counters"]["num_timesteps"]) if saved else 0
    if done >= total:
        raise InvalidInputError(
            f"timesteps={total}: the run in {folder.path} has already done {done}; ask for more to continue it"
        )
    use_one_thread()
    env = make_training_env(config, hyperparameters, first_seed=training_seed(config.seed, done))
    try:
        model = build_model(
            config.algorithm, env, hyperparameters, seed=config.seed + done, tensorboard_log=str(folder.path)
        )
        if saved:
            restore_model(model, saved)
        sampler_config = {
            "algorithm": config.algorithm,
            "hyperparameters": hyperparameters,
            "env_id": config.env_id,
            "env_kwargs": config.env_kwargs,
        }
        save = partial(_save_checkpoint, folder, model, sampler_config)
        stop = Stopper()
        callbacks: list[BaseCallback] = [
            EpisodeLog(folder),
            CheckpointCallback(config.checkpoint_every, save),
            DistillationCallback(
                hyperparameters=_flat(asdict(config) | {"algorithm": config.algorithm} | hyperparameters),
                image_every=config.image_every,
            ),
            StopCallback(stop),
        ]
        with stop:
            model.learn(
                total - done,
                callback=CallbackList(callbacks),
                reset_num_timesteps=not resume,
                tb_log_name="tensorboard",
                log_interval=1,
                progress_bar=progress_bar,
            )
        save()
        return "interrupted" if stop.interrupted else "finished"
    finally:
        env.close()


def check_settings(config: TrainingConfig) -> dict[str, Any]:
    """Refuse what cannot be trained before anything is written; returns the hyper-parameters.

    Raises:
        InvalidInputError: when algorithm, environment, one of its arguments or a hyper-parameter is unusable.
    """
    hyperparameters = load_hyperparameters(config.algorithm, config.env_id, config.hyperparameters)
    for name, low in (("n_envs", 1), ("n_timesteps", 1)):
        value = hyperparameters.setdefault(name, low)
        if not isinstance(value, int) or value < low:
            raise InvalidInputError(f"hyperparameters[{name!r}]={value!r}: expected a whole number of at least {low}")
    gamma = hyperparameters.setdefault("gamma", 0.99)
    if not isinstance(gamma, int | float) or not 0 <= gamma <= 1:
        raise InvalidInputError(f"hyperparameters['gamma']={gamma!r}: expected a number from 0 to 1")
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        partial(make_env, config.env_id, config.env_kwargs) for _ in range(hyperparameters["n_envs"])
    ]
    build_model(config.algorithm, DummyVecEnv(makers), hyperparameters, seed=0)
    return hyperparameters


def training_seed(seed: int, done: int) -> int:
    """Seed of the first environment after `done` steps: another for every resume, and never a held-out one."""
    return seed * 900 + done % 900


def make_training_env(config: TrainingConfig, hyperparameters: dict[str, Any], first_seed: int) -> VecEnv:
    """`n_envs` environments side by side, monitored and normalised."""
    count = int(hyperparameters.get("n_envs", 1))
    assert first_seed + count <= HELD_OUT_SEED
    made = make_vec_env(config.env_id, config.env_kwargs, count, config.vector_backend)
    print(f"environments: {count}, {made.choice}")
    made.seed(first_seed)
    venv: VecEnv = VecMonitor(made)
    if hyperparameters.get("normalize"):
        venv = VecNormalize(venv, gamma=float(hyperparameters.get("gamma", 0.99)))
    return venv


def _save_checkpoint(folder: RunFolder, model: BaseAlgorithm, config: dict[str, Any]) -> None:
    save_sampler(folder.path / "checkpoints" / f"{model.num_timesteps}.safetensors", model, config, with_replay=True)


def _flat(values: dict[str, Any]) -> dict[str, bool | str | float | int]:
    """Values that TensorBoard's hyper-parameter page can show."""
    return {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in values.items()}


class StopCallback(BaseCallback):
    """Ends the training after the step in progress when `stop` says so.

    An exception in the middle of a step would leave the workers' pipes with answers that nobody has read.
    """

    def __init__(self, stop: Stopper) -> None:
        super().__init__()
        self._stop = stop

    def _on_step(self) -> bool:
        return not self._stop()


class CheckpointCallback(BaseCallback):
    """Saves every `every` environment steps (not calls: N environments step N at once).

    Args:
        every: environment steps between checkpoints.
        save: writes one.
    """

    def __init__(self, every: int, save: Callable[[], None]) -> None:
        super().__init__()
        self._every, self._save = every, save
        self._next = 0

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps + self._every

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next:
            self._save()
            self._next += self._every
        return True


class EpisodeLog(BaseCallback):
    """Writes one line of `episodes.jsonl` for every training episode.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self._folder = folder
        self._started = time.time()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._folder.append(
                    {
                        "timesteps": self.num_timesteps,
                        "return": float(info["episode"]["r"]),
                        "accuracy": info.get("accuracy"),
                        "probe_agreement": info["probe_agreement"],
                        "seconds": time.time() - self._started,
                    },
                    file="episodes.jsonl",
                )
        return True
