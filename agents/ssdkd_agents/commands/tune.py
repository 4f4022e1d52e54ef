"""Tune an algorithm's hyper-parameters: Optuna suggests them, and ends poor trainings early.

Examples:
  ssdkd tune --out runs/tune-ppo --algo ppo --trials 30 --timesteps 6400
  ssdkd tune --out runs/tune-sac --algo sac --pruner none --hyperparameters gamma=0.98
  ssdkd tune --out runs/tune-ppo --resume --trials 60

Each trial is a training in trials/N, and what counts is the mean return of its last validation, on seeds that neither
trainings nor comparisons use. Writes trials.jsonl, a line a trial, and best.json into the folder, and says the options
of ssdkd train that are the best ones. What --hyperparameters gives is fixed. Ctrl-C saves a checkpoint of the trial
that is under way; --resume goes on with it.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ssdkd_agents.commands.command_line import Plugins, launch, refuse_beside_resume, resuming
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.given import as_words
from ssdkd_agents.commands.train import training_of
from ssdkd_agents.environments import make_env
from ssdkd_agents.inputs import inputs_of
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.schemas import BestTrial
from ssdkd_agents.training.config import TrainingConfig
from ssdkd_agents.tuning.study import (
    BEST_TRIAL_FILE,
    TRIALS_FOLDER,
    StudyConfig,
    check_study,
    config_of_study,
    play_study,
)
from ssdkd_env.reading import conform, printable, read_json

#: Of a study that is told nothing else.
TRIALS = 30


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd tune`."""

    out: Path
    """Folder of the study; must be new or empty, unless --resume."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    algo: str = "ppo"
    """As of ssdkd train."""
    trials: int | None = None
    """Trainings, those that end early included; 30 where nothing is said. With --resume, a study may get more."""
    timesteps: int = 0
    """Environment steps of each; 0 takes the number from the hyper-parameter file."""
    episodes: int = 0
    """Episodes of each, in place of steps."""
    pruner: str = "median"
    """median (ends a trial below the median of the earlier ones) or none."""
    startup: int = 8
    """Trials at random, of which none ends early."""
    seed: int = 0
    """Of suggestions and trainings, 0 to 999."""
    hyperparameters: tuple[str, ...] = ()
    """Values that are fixed, such as gamma=0.98 n_envs=4."""
    evaluate_every_steps: int = 640
    """Environment steps between validations, after each of which a trial may end."""
    evaluation_episodes: int = 16
    """Episodes of a validation."""
    start: list[float] | None = None
    """Action that every agent begins with; see ssdkd train."""
    common_random_numbers: bool = False
    """See ssdkd train."""
    vectorization: str = "by_size"
    """See ssdkd train."""
    resume: bool = False
    """Continue the study in --out, with its own settings."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if args.resume:
        refuse_beside_resume(args, ("trials",))
        folder = RunFolder.resume(args.out)
        config = config_of_study(folder)
        if args.trials is not None:
            config = replace(config, trials=args.trials)
            folder.change(trials=args.trials)
    else:
        config = StudyConfig(
            training_of(args), TRIALS if args.trials is None else args.trials, args.pruner, args.startup, args.seed
        )
        check_study(config)
        inputs = inputs_of(make_env(config.training.env_id, config.training.env_kwargs))
        folder = RunFolder(args.out, asdict(config), inputs)
    print(f"curves: tensorboard --logdir {folder.path}")
    if play_study(config, folder) == "interrupted":
        print(f"interrupted; continue with: {resuming(folder.path)}")
        sys.exit(130)
    best = folder.path / BEST_TRIAL_FILE
    if not best.is_file():
        print(f"finished; no trial was validated to its end: {folder.path}")
        return
    found = read_json(best)
    conform(found, BestTrial, best, "delete it, and continue the study")
    print(f"finished; best trial {found['number']}, mean return {found['value']:.4f}: {best}")
    words = [printable(f"{name}={_plain(value)}") for name, value in found["hyperparameters"].items()]
    print(f"its agent: {folder.path / TRIALS_FOLDER / str(found['number'])}")
    print(f"to train longer: {shlex.join(_longer(config.training))} --hyperparameters {shlex.join(words)}")


def _longer(training: TrainingConfig) -> list[str]:
    """The command line of ssdkd train for what the trials were, but for their length and their hyper-parameters."""
    words = ["ssdkd", "train", "--env-id", training.env_id, "--algo", training.algorithm]
    if training.start is not None:
        words += as_words("--", {"start": training.start})
    if training.common_random_numbers:
        words.append("--common-random-numbers")
    return [*words, *as_words("--env.", training.env_kwargs)]


def _plain(value: object) -> str:
    """A value as `parse_settings` reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd tune", arguments)
