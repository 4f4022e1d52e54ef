"""Training a sampler with a Stable-Baselines3 algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList, ProgressBarCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize, unwrap_vec_wrapper

from agents.algorithms import build_model, load_hyperparameters
from agents.callbacks import DistillationCallback
from agents.checkpoints import Checkpoint, drop_lines_after, load_episodes, read_checkpoint
from agents.environments import env_arguments, make_env, make_vec_env, use_one_thread
from agents.evaluation import Validation
from agents.loop import PatienceEnds, Progress, TrainingLoop, TrainingStopped
from agents.loop_state import before_each_iteration, prepare
from agents.machine import machine
from agents.normalization import normalization_options
from agents.recording import EpisodeLog, StepRecorder
from agents.runs import EPISODES_FILE, EVALUATIONS_FILE, RunFolder
from agents.seeds import HELD_OUT_SEED, VALIDATION_SEED
from agents.stopping import Stopper
from agents.storage import restore_model
from agents.vec_env import DistillationVecEnv
from ssdkd_env.envs.pool import check_backend
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import read_json, write_json

#: How the environments are stepped, and where: a grouped run's numbers depend on it by rounding.
MACHINE_FILE = "machine.json"
#: How the run ended.
OUTCOME_FILE = "outcome.json"
#: Environments side by side; as far apart are the seeds of two trainings.
MOST_ENVIRONMENTS = 500


@dataclass(frozen=True)
class TrainingConfig:
    """What a training depends on; it lies as `config.json` in the run's folder.

    Attributes:
        env_id: registered id.
        algorithm: key of `ALGORITHMS`.
        seed: of agent and environments, below 1,000 (seeds of validation begin at 500,000, of evaluation at 1,000,000).
        timesteps: environment steps; 0 takes the hyper-parameter file's `n_timesteps`.
        env_kwargs: JSON-able arguments of the environment.
        hyperparameters: values that replace the file's.
        checkpoint_every: environment steps between checkpoints, which lie between an update and the next rollout.
        image_every: episodes between pictures of the buffer in TensorBoard.
        vector_backend: how the work of several environments is done; see `EnvironmentPool`.
        evaluate_every: environment steps between validations of the deterministic policy; 0 for none. Eight episodes
            of 16 rounds every 1,280 steps add an eighth to the time.
        evaluation_episodes: episodes of a validation, the same ones each time.
        patience: validations without improvement of the mean return after which training ends; 0 for never.
    """

    env_id: str
    algorithm: str
    seed: int = 0
    timesteps: int = 0
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: int = 128
    image_every: int = 20
    vector_backend: str = "auto"
    evaluate_every: int = 1280
    evaluation_episodes: int = 8
    patience: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1000:
            raise InvalidInputError(
                f"seed={self.seed}: expected a number from 0 to 999, so that evaluation is held out"
            )
        check_backend(self.vector_backend)
        if self.timesteps < 0 or self.checkpoint_every < 1 or self.image_every < 1:
            raise InvalidInputError("timesteps must be ≥ 0, checkpoint_every and image_every ≥ 1")
        if self.evaluate_every < 0 or self.patience < 0:
            raise InvalidInputError("evaluate_every and patience must be ≥ 0; 0 switches them off")
        if not 1 <= self.evaluation_episodes <= HELD_OUT_SEED - VALIDATION_SEED:
            raise InvalidInputError(f"evaluation_episodes={self.evaluation_episodes}: expected a number of at least 1")
        if self.patience and not self.evaluate_every:
            raise InvalidInputError(f"patience={self.patience} counts validations; set evaluate_every too")


def config_of_run(folder: RunFolder) -> TrainingConfig:
    """The settings of an earlier training.

    Raises:
        InvalidInputError: when the folder was made by another command.
    """
    known = {field.name for field in fields(TrainingConfig)}
    settings = {name: value for name, value in folder.config.items() if name != "versions"}
    if not {"env_id", "algorithm"} <= set(settings) <= known:
        raise InvalidInputError(f"{folder.path} was not made by train_sampler; give the folder of a training")
    return TrainingConfig(**settings)


def train(config: TrainingConfig, folder: RunFolder, resume: bool = False, progress_bar: bool = True) -> str:
    """Train until the steps are done, patience ends or Ctrl-C.

    Leaves checkpoints, `best.safetensors`, TensorBoard logs, `episodes.jsonl`, `evaluations.jsonl`, and what it ran on.

    A run that is interrupted or killed, and resumed, gives the episodes and the weights of one that is not,
    bit-identically on the CPU with the `"loop"` and `"process"` backends, and with `"grouped"` where as many
    environments share a process. More steps than the run was made for change schedules that depend on their number.

    Args:
        config: what to train.
        folder: where everything goes.
        resume: continue from the last checkpoint in `folder`.
        progress_bar: show one.

    Returns:
        `"finished"`, `"stopped early"` or `"interrupted"`, which `outcome.json` says too.
    """
    hyperparameters = check_settings(config)
    total = config.timesteps or hyperparameters["n_timesteps"]
    checkpoint = read_checkpoint(folder.path) if resume else None
    done = checkpoint.steps if checkpoint else 0
    if done >= total:
        raise InvalidInputError(
            f"timesteps={total}: the run in {folder.path} has already done {done}; ask for more to continue it"
        )
    use_one_thread()
    env = make_training_env(config, hyperparameters, _recorded_choice(folder.path) if resume else None)
    made, recorder = env.unwrapped, unwrap_vec_wrapper(env, StepRecorder)
    assert isinstance(made, DistillationVecEnv)
    assert recorder is not None
    validation = Validation(env_arguments(config.env_id, config.env_kwargs), config.evaluation_episodes, made.choice)
    try:
        model = build_model(config.algorithm, env, hyperparameters, seed=config.seed, tensorboard_log=str(folder.path))
        env.seed(training_seed(config.seed))  # after the model, which seeds its environments by its own seed
        progress = Progress()
        if checkpoint:
            progress = _go_on(model, checkpoint, folder.path)
        else:
            write_json(folder.path / MACHINE_FILE, asdict(made.choice) | machine(made.device))
        stop, log = Stopper(), EpisodeLog(folder, recorder, progress.seconds)
        loop = TrainingLoop(model, folder, config, hyperparameters, validation, stop, log, progress, checkpoint)
        before_each_iteration(model, loop)
        shown = _flat(asdict(config) | {"algorithm": config.algorithm} | hyperparameters)
        callbacks = CallbackList([log, DistillationCallback(shown, config.image_every), PatienceEnds(stop)])
        bar = ProgressBarCallback() if progress_bar else None
        with stop:
            outcome = _learn(model, total - done, callbacks, bar, resume)
            if outcome == "finished":
                loop.finish()
        best = {"best_return": progress.best_return, "best_timesteps": progress.best_timesteps}
        write_json(folder.path / OUTCOME_FILE, {"outcome": outcome, "timesteps": model.num_timesteps} | best)
        return outcome
    finally:
        env.close()
        validation.close()


def _go_on(model: BaseAlgorithm, checkpoint: Checkpoint, run: Path) -> Progress:
    """Bring agent, environments and the run's files to where the checkpoint was taken."""
    restore_model(model, checkpoint.sampler)
    prepare(model, checkpoint.loop)
    load_episodes(model, checkpoint.episodes)
    progress = Progress(**checkpoint.progress)
    drop_lines_after(run / EPISODES_FILE, checkpoint.steps)
    drop_lines_after(run / EVALUATIONS_FILE, progress.evaluated)
    (run / OUTCOME_FILE).unlink(missing_ok=True)
    return progress


def _learn(
    model: BaseAlgorithm, steps: int, callbacks: CallbackList, bar: ProgressBarCallback | None, resume: bool
) -> str:
    """Run the algorithm's own loop for so many more steps; returns how it ended."""
    try:
        model.learn(
            steps,
            callback=CallbackList([callbacks, *([bar] if bar else [])]),
            reset_num_timesteps=not resume,
            tb_log_name="tensorboard",
            log_interval=1,
        )
    except TrainingStopped as stopped:
        # ARS asks no callback whether to go on, so that the end has to be an exception.
        if str(stopped) != "interrupted":
            callbacks.on_training_end()  # which after an interruption would log half of what the resumed run logs
        if bar:
            bar.on_training_end()
        return str(stopped)
    return "finished"


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
    build_model(config.algorithm, DummyVecEnv(makers), hyperparameters, seed=0)
    return hyperparameters


def training_seed(seed: int) -> int:
    """Seed of the first environment: as many follow it, and all of them are below `VALIDATION_SEED`."""
    return seed * MOST_ENVIRONMENTS


def make_training_env(
    config: TrainingConfig, hyperparameters: dict[str, Any], choice: tuple[str, int] | None = None
) -> VecEnv:
    """`n_envs` environments side by side, monitored, recorded and normalised.

    Args:
        config: of the training.
        hyperparameters: `n_envs`, `normalize` and `gamma` are used.
        choice: vector backend and number of processes, in place of the config's.
    """
    count = int(hyperparameters.get("n_envs", 1))
    backend, processes = choice or (config.vector_backend, None)
    made = make_vec_env(config.env_id, config.env_kwargs, count, backend, processes)
    print(f"environments: {count}, {made.choice}")
    venv: VecEnv = StepRecorder(VecMonitor(made))
    options = normalization_options(hyperparameters)
    return venv if options is None else VecNormalize(venv, **options)


def _recorded_choice(run: Path) -> tuple[str, int] | None:
    """How a run's environments were stepped before: grouped otherwise, its numbers would go on with other rounding."""
    if not (run / MACHINE_FILE).exists():
        return None
    recorded = read_json(run / MACHINE_FILE)
    try:
        return str(recorded["backend"]), int(recorded["processes"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{run / MACHINE_FILE} is damaged; delete it to choose the backend anew") from error


def _flat(values: dict[str, Any]) -> dict[str, bool | str | float | int]:
    """Values that TensorBoard's hyper-parameter page can show."""
    return {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in values.items()}
