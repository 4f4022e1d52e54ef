"""Training a sampler with a Stable-Baselines3 algorithm."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, unwrap_vec_wrapper

from ssdkd_agents.environments import env_arguments, make_vec_env, use_one_thread
from ssdkd_agents.machine import machine
from ssdkd_agents.manifests import forget_old
from ssdkd_agents.policies.algorithms import build_model
from ssdkd_agents.policies.normalization import MovedNormalize, normalization_options
from ssdkd_agents.policies.starting import begin_at
from ssdkd_agents.policies.storage import restore_model
from ssdkd_agents.progress import progress as show_progress
from ssdkd_agents.runs import EPISODES_FILE, EVALUATIONS_FILE, RunFolder
from ssdkd_agents.stopping import Stopper
from ssdkd_agents.training.callbacks import DistillationCallback, StepsDone
from ssdkd_agents.training.checkpoints import (
    FOLDER,
    KEPT,
    Checkpoint,
    begin_anew,
    drop_lines_after,
    load_episodes,
    read_checkpoint,
)
from ssdkd_agents.training.config import TrainingConfig, check_settings, training_seed
from ssdkd_agents.training.extent import UNLIMITED, announce, follow_episodes, last_step
from ssdkd_agents.training.loop import GivesUp, PatienceEnds, Progress, TrainingLoop, TrainingStopped, is_validated
from ssdkd_agents.training.loop_state import before_each_iteration, prepare
from ssdkd_agents.training.recording import EpisodeLog, StepRecorder
from ssdkd_agents.training.validation import Validation
from ssdkd_agents.vec_env import DistillationVecEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Executor
from ssdkd_env.files import write_json
from ssdkd_env.reading import conform, fitting, read_json

#: How the environments are stepped, and where: a grouped run's numbers depend on it by rounding.
MACHINE_FILE = "machine.json"
#: How the run ended.
OUTCOME_FILE = "outcome.json"


def train(
    config: TrainingConfig,
    folder: RunFolder,
    resume: bool = False,
    progress_bar: bool = True,
    gives_up: GivesUp | None = None,
    executor: Executor | None = None,
) -> str:
    """Train until the steps are done, patience ends or Ctrl-C.

    Leaves checkpoints, `best.safetensors`, TensorBoard logs, `episodes.jsonl`, `evaluations.jsonl`, and what it ran on.

    A run that is interrupted or killed, and resumed, gives the episodes and the weights of one that is not,
    bit-identically on the CPU with the `"loop"` and `"process"` backends, and with `"grouped"` where as many
    environments share a process. More steps than the run was made for change schedules that depend on their number.

    Args:
        config: what to train.
        folder: where everything goes.
        resume: continue from the last sound checkpoint in `folder`, from the beginning where there is none yet. Other
            timesteps than the run's are its own from then on; those that are done already are refused.
        progress_bar: show one, or lines now and then where stderr is no terminal.
        gives_up: told what each validation gave; true ends the training early.
        executor: whose workers have the environments; None for this machine. It changes no number but by rounding.

    Returns:
        `"finished"`, `"stopped early"`, `"interrupted"`, or `"diverged"` where the agent's answers are no numbers any
        more; `outcome.json` says it too.
    """
    hyperparameters = check_settings(config)
    total = config.episodes or config.timesteps or hyperparameters["n_timesteps"]
    checkpoint = read_checkpoint(folder) if resume else None
    if resume and checkpoint is None:
        print(f"{folder.path} has no checkpoint yet: it begins anew")
        begin_anew(folder)
    if checkpoint:  # an earlier version may have begun it with another
        hyperparameters["gamma"] = checkpoint.sampler["config"]["hyperparameters"].get(
            "gamma", hyperparameters["gamma"]
        )
    progress = _progress(folder.path, checkpoint) if checkpoint else Progress()
    steps = checkpoint.steps if checkpoint else 0
    done = progress.episodes if config.episodes else steps
    lengthens = resume and config.timesteps != folder.config.get("timesteps", config.timesteps)
    if checkpoint and done >= total and (lengthens or is_validated(config, progress, steps)):
        if config.episodes and has_ended(folder.path):
            raise InvalidInputError(f"episodes={total}: the run in {folder.path} has already done {done}")
        if not config.episodes and (lengthens or (folder.path / OUTCOME_FILE).exists()):
            raise InvalidInputError(
                f"timesteps={total}: the run in {folder.path} has already done {done}; ask for more to continue it"
            )
        forget_old(folder.path / FOLDER, KEPT)  # it ended after its last checkpoint
        _write_outcome(folder.path, "finished", steps, progress)
        return "finished"
    if lengthens:
        folder.change(timesteps=config.timesteps)  # so that the next --resume goes there, too
    use_one_thread()
    env = make_training_env(config, hyperparameters, _recorded_choice(folder.path) if checkpoint else None, executor)
    made, recorder = env.unwrapped, unwrap_vec_wrapper(env, StepRecorder)
    assert isinstance(made, DistillationVecEnv)
    assert recorder is not None
    arguments = env_arguments(config.env_id, config.env_kwargs)
    rest = made.rest if executor is not None else None
    validation = Validation(arguments, config.evaluation_episodes, made.choice, made.instances, rest)
    try:
        model = build_model(config.algorithm, env, hyperparameters, seed=config.seed, tensorboard_log=str(folder.path))
        # After the model, which seeds its environments by its own seed.
        ended = progress.episodes if checkpoint else None
        made.seed_each(training_seed(config.seed), config.common_random_numbers, ended)
        if checkpoint:
            _go_on(model, checkpoint, progress, folder.path)
        else:
            if config.start is not None:
                begin_at(model, config.start)
            chosen = {name: made.get_attr(name, 0)[0] for name in ("precision", "precision_reason")}
            facts = asdict(made.choice) | machine(made.device) | chosen
            write_json(folder.path / MACHINE_FILE, facts)
        stop, log = Stopper(), EpisodeLog(folder, recorder, progress.seconds, progress.episodes)
        loop = TrainingLoop(
            model, folder, config, hyperparameters, validation, stop, log, progress, checkpoint, gives_up
        )
        before_each_iteration(model, loop)
        if config.episodes:
            follow_episodes(model, log, total)
            print(f"episodes: {total} at least; whole rollouts or generations are played to their end")
        else:
            for line in announce(model, total, done, config.evaluate_every_steps):
                print(line)
        shown = asdict(config) | hyperparameters
        del shown["timesteps"]  # of a run that is lengthened TensorBoard would go on showing the first number
        shows = DistillationCallback(shown, config.image_every_episodes, validated=config.evaluate_every_steps > 0)
        callbacks = CallbackList([log, shows, PatienceEnds(stop)])
        end, unit = (total, "episode") if config.episodes else (last_step(model, total, done) or total, "step")
        with stop, show_progress(end, unit, done, progress_bar) as bar:
            shows_done = StepsDone(bar, log if config.episodes else None)
            left = max(total - done, 0)
            outcome = _learn(
                model,
                UNLIMITED if config.episodes and left else left,
                CallbackList([callbacks, shows_done]),
                checkpoint is not None,
            )
            if outcome == "finished" and not loop.finish():
                outcome = "interrupted"
        if outcome == "finished" and model._n_updates == 0:
            print("nothing was learnt: the training ended before the first update; give more episodes")
        _write_outcome(folder.path, outcome, model.num_timesteps, progress)
        return outcome
    finally:
        env.close()
        validation.close()


def _write_outcome(run: Path, outcome: str, steps: int, progress: Progress) -> None:
    best = {"best_return": progress.best_return, "best_timesteps": progress.best_timesteps}
    write_json(run / OUTCOME_FILE, {"outcome": outcome, "timesteps": steps} | best)


def has_ended(run: Path) -> bool:
    """Whether a run has said how it ended, and it was no interruption."""
    return (run / OUTCOME_FILE).is_file() and read_json(run / OUTCOME_FILE)["outcome"] != "interrupted"


def _go_on(model: BaseAlgorithm, checkpoint: Checkpoint, progress: Progress, run: Path) -> None:
    """Bring agent, environments and the run's files to where the checkpoint was taken."""
    restore_model(model, checkpoint.sampler)
    with fitting(checkpoint.episodes.with_suffix(".state.safetensors"), "delete this checkpoint's manifest"):
        prepare(model, checkpoint.loop)
    load_episodes(model, checkpoint.episodes)
    drop_lines_after(run / EPISODES_FILE, checkpoint.steps)
    drop_lines_after(run / EVALUATIONS_FILE, progress.evaluated)
    (run / OUTCOME_FILE).unlink(missing_ok=True)


def _progress(run: Path, checkpoint: Checkpoint) -> Progress:
    return conform(checkpoint.progress, Progress, f"{run}: its checkpoint's progress", "start anew in another folder")


def _learn(model: BaseAlgorithm, steps: int, callbacks: CallbackList, resume: bool) -> str:
    """Run the algorithm's own loop for so many more steps; returns how it ended."""
    try:
        model.learn(
            steps,
            callback=callbacks,
            reset_num_timesteps=not resume,
            tb_log_name="tensorboard",
            log_interval=1,
        )
    except TrainingStopped as stopped:
        # ARS asks no callback whether to go on, so that the end has to be an exception.
        if str(stopped) != "interrupted":
            callbacks.on_training_end()  # which after an interruption would log half of what the resumed run logs
        return str(stopped)
    except ValueError as error:
        # PyTorch's distributions say so of NaN and infinity; environments refuse such actions in words of their own.
        finite = all(bool(weights.isfinite().all()) for weights in model.policy.parameters())
        if finite and "found invalid values" not in str(error):
            raise
        return "diverged"
    return "finished"


def make_training_env(
    config: TrainingConfig,
    hyperparameters: dict[str, Any],
    choice: tuple[str, int] | None = None,
    executor: Executor | None = None,
) -> VecEnv:
    """`n_envs` environments side by side, monitored, recorded and normalised.

    Args:
        config: of the training.
        hyperparameters: `n_envs`, `normalize` and `gamma` are used.
        choice: vector backend and number of processes, in place of the config's.
        executor: see `train`.
    """
    count = int(hyperparameters.get("n_envs", 1))
    backend, processes = choice or (config.vectorization, None)
    # On a cluster those of the validation are with the same workers, which have reserved all the room that there is.
    more = config.evaluation_episodes if executor and config.evaluate_every_steps else 0
    processes = min(executor.count, count) if executor and processes is None else processes
    made = make_vec_env(config.env_id, config.env_kwargs, count, backend, processes, executor, more)
    print(f"environments: {count}, {made.choice}")
    venv: VecEnv = StepRecorder(VecMonitor(made))
    options = normalization_options(hyperparameters)
    return venv if options is None else MovedNormalize(venv, **options)


def _recorded_choice(run: Path) -> tuple[str, int] | None:
    """How a run's environments were stepped before: grouped otherwise, its numbers would go on with other rounding."""
    if not (run / MACHINE_FILE).exists():
        return None
    recorded = read_json(run / MACHINE_FILE)
    try:
        return str(recorded["backend"]), int(recorded["processes"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"{run / MACHINE_FILE} is damaged; delete it to choose the backend anew") from error
