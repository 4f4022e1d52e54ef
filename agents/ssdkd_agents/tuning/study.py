"""A study: trials of hyper-parameters, each a training of its own, of which poor ones end early.

Optuna suggests and prunes; what came of each trial lies in `trials.jsonl`, and its training in `trials/N`. A study that
was stopped or killed goes on from these: the trial that was under way from its last checkpoint, and later ones with the
suggestions that they would have had.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ssdkd_agents.environments import make_env
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.algorithms import load_hyperparameters
from ssdkd_agents.runs import EVALUATIONS_FILE, RunFolder
from ssdkd_agents.schemas import MeanLine, Outcome, TrialLine, config_of
from ssdkd_agents.training.config import TrainingConfig, check_settings, config_of_run, decides_length
from ssdkd_agents.training.train import OUTCOME_FILE, train
from ssdkd_agents.training.validation import Evaluation
from ssdkd_agents.tuning.spaces import Choice, Space, chosen, nested, space_of
from ssdkd_env.errors import InvalidInputError, check_choice, one_line
from ssdkd_env.extras import load_extra
from ssdkd_env.files import write_json
from ssdkd_env.reading import conform, fitting, read_json

PRUNERS = ("median", "none")
TRIALS_FILE, BEST_TRIAL_FILE, TRIALS_FOLDER = "trials.jsonl", "best.json", "trials"
#: How a trial ended.
FINISHED, PRUNED, FAILED = "finished", "pruned", "failed"


@dataclass(frozen=True)
class StudyConfig:
    """What a study depends on.

    Attributes:
        training: of each trial, with the hyper-parameters that are fixed; its validations are what is maximised.
        trials: how many, pruned ones included.
        pruner: one of `PRUNERS`.
        startup: trials at random before any suggestion, and before any is pruned.
        seed: of the suggestions.
    """

    training: TrainingConfig
    trials: int = 30
    pruner: str = "median"
    startup: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("pruner", self.pruner, PRUNERS)
        for name in ("trials", "startup"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name}={getattr(self, name)}: expected a whole number of at least 1")
        if self.seed < 0:
            raise InvalidInputError(f"seed={self.seed}: expected a whole number of at least 0")
        if not self.training.evaluate_every_steps:
            raise InvalidInputError("evaluate_every_steps=0: a study maximises what validations give; set it above 0")


def config_of_study(folder: RunFolder) -> StudyConfig:
    """The settings of an earlier study.

    Raises:
        InvalidInputError: when the folder was made by another command, or a setting does not fit.
    """
    return config_of(folder.config, StudyConfig, folder.path, "ssdkd tune")


@dataclass(frozen=True)
class Trial:
    """A line of `trials.jsonl`.

    Attributes:
        number: from 0.
        state: how it ended.
        value: mean return of its last validation; None where there was none.
        params: name of a space → value.
        values: steps → mean return of each validation.
        error: why it failed.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    values: dict[int, float] = field(default_factory=dict)
    error: str = ""


def check_study(config: StudyConfig) -> None:
    """Refuse what no trial could begin with.

    Raises:
        InvalidInputError: when the package `optuna` is missing, a setting does not fit, or trials that may end early
            have no validation before their end.
    """
    load_extra("optuna", "ssdkd tune")
    training = config.training
    _space(config)
    hyperparameters = check_settings(training)
    steps = training.timesteps or hyperparameters["n_timesteps"]
    if not training.episodes and config.pruner != "none" and training.evaluate_every_steps >= steps:
        raise InvalidInputError(
            f"evaluate_every_steps={training.evaluate_every_steps}: a trial has {steps} steps and is validated at its "
            f"end alone, where pruner={config.pruner!r} can end nothing early; choose fewer, or pruner='none'"
        )


def play_study(config: StudyConfig, folder: RunFolder) -> str:
    """Play the trials that are left; writes the best one's hyper-parameters after each.

    Returns:
        `"finished"` or `"interrupted"`.
    """
    space = _space(config)
    path = folder.path / TRIALS_FILE
    done = [_trial(line) for line in read_lines(path, TrialLine)] if path.exists() else []
    for number in range(len(done), config.trials):
        trial = _play(config, folder, space, done, number)
        if trial is None:
            return "interrupted"
        done.append(trial)
        folder.append(asdict(trial), file=TRIALS_FILE)
        best = best_of(done)
        if best is not None:
            write_json(folder.path / BEST_TRIAL_FILE, asdict(best) | {"hyperparameters": _given(config, best.params)})
        print(f"trial {number} {trial.state}: {_shown(trial)}", flush=True)
    return "finished"


def best_of(trials: list[Trial]) -> Trial | None:
    """The finished trial with the highest value; None without any."""
    finished = [trial for trial in trials if trial.state == FINISHED and trial.value is not None]
    return max(finished, key=lambda trial: trial.value or 0.0, default=None)


def _play(config: StudyConfig, folder: RunFolder, space: Space, done: list[Trial], number: int) -> Trial | None:
    """Play a trial, or go on with it; None where it was interrupted."""
    place = folder.path / TRIALS_FOLDER / str(number)
    study = _study(config, space, done)
    begun = (place / "config.json").is_file()
    if begun:
        with fitting(place / "config.json", "delete the folder of that trial, to play it anew"):
            study.enqueue_trial(chosen(space, config_of_run(RunFolder(place, None)).hyperparameters))
        if not any((place / "checkpoints").glob("*.state.safetensors")):
            shutil.rmtree(place)  # killed before there was anything to go on from
            begun = False
    asked = study.ask(_distributions(space))
    training = replace(config.training, hyperparameters=_given(config, asked.params))
    values = _validations(place)
    for turn, value in _by_turn(values).items():
        asked.report(value, turn)

    def prune(evaluation: Evaluation) -> bool:
        if evaluation.timesteps not in values:
            asked.report(evaluation.mean_return, len(values))
        values[evaluation.timesteps] = evaluation.mean_return
        return bool(asked.should_prune())

    ended = _outcome(place / OUTCOME_FILE)
    if values and ended == "interrupted" and asked.should_prune():  # it was killed before it could end
        return Trial(number, PRUNED, values[max(values)], asked.params, values)
    try:
        check_settings(training)
    except InvalidInputError as error:  # what is fixed may not go with what is suggested
        return Trial(number, FAILED, None, asked.params, values, one_line(error))
    run = RunFolder(place, None if begun else asdict(training))
    try:
        if ended == "interrupted":
            ended = train(training, run, resume=begun, progress_bar=False, gives_up=prune)
    except InvalidInputError:
        raise
    except ValueError as error:  # such as NaN in a policy's distribution, which these hyper-parameters have led to
        return Trial(number, FAILED, None, asked.params, values, one_line(error))
    if ended == "interrupted":
        return None
    if ended == "diverged":
        return Trial(number, FAILED, None, asked.params, values, "the agent diverged")
    last = values[max(values)] if values else None
    return Trial(number, FINISHED if ended == "finished" else PRUNED, last, asked.params, values)


def _outcome(path: Path) -> str:
    """How a trial's training ended; one without an outcome was interrupted."""
    if not path.exists():
        return "interrupted"
    said: dict[str, Any] = read_json(path)
    conform(said, Outcome, path, "delete the study's folder, and start anew")
    return str(said["outcome"])


def _given(config: StudyConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters of a training: fixed ones, and a trial's."""
    file = load_hyperparameters(config.training.algorithm, config.training.env_id)
    return nested(params, file, config.training.hyperparameters)


def _validations(place: Path) -> dict[int, float]:
    path = place / EVALUATIONS_FILE
    lines = read_lines(path, MeanLine) if path.exists() else []
    return {line["timesteps"]: line["mean_return"] for line in lines}


def _by_turn(values: Mapping[int, float]) -> dict[int, float]:
    """Number of the validation → mean return: pruners compare equal numbers, and trials need not have equal steps."""
    return dict(enumerate(value for _, value in sorted(values.items())))


def _space(config: StudyConfig) -> Space:
    """What is looked for; no discount for each step where agents decide how many there are."""
    training = config.training
    fixed = dict(training.hyperparameters)
    if decides_length(make_env(training.env_id, training.env_kwargs)):
        fixed.setdefault("gamma", 1.0)
    return space_of(training.algorithm, fixed)


def _study(config: StudyConfig, space: Space, done: list[Trial]) -> Any:
    """Optuna's study of the trials so far, whose next suggestion depends on them and on nothing else."""
    optuna = load_extra("optuna", "ssdkd tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=config.startup),
        "none": optuna.pruners.NopPruner,
    }
    seed = config.seed * 100_003 + len(done)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup, multivariate=True)
    study = optuna.create_study(sampler=sampler, pruner=pruners[config.pruner](), direction="maximize")
    states = {FINISHED: optuna.trial.TrialState.COMPLETE, PRUNED: optuna.trial.TrialState.PRUNED}
    distributions = _distributions(space)
    for trial in done:
        try:
            made = optuna.trial.create_trial(
                state=states.get(trial.state, optuna.trial.TrialState.FAIL),
                value=trial.value if trial.state == FINISHED else None,
                params=trial.params,
                distributions=distributions,
                intermediate_values=_by_turn(trial.values),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{TRIALS_FILE}: trial {trial.number} is none of this study's ({one_line(error)}); delete its line and "
                "those after it"
            ) from error
        study.add_trial(made)
    return study


def _distributions(space: Space) -> dict[str, Any]:
    optuna = load_extra("optuna", "ssdkd tune")
    return {
        name: optuna.distributions.CategoricalDistribution(where.values)
        if isinstance(where, Choice)
        else optuna.distributions.FloatDistribution(where.low, where.high, log=where.log)
        for name, where in space.items()
    }


def _trial(line: dict[str, Any]) -> Trial:
    try:
        values = {int(steps): value for steps, value in line["values"].items()}
    except ValueError as error:
        raise InvalidInputError(
            f"{TRIALS_FILE}: values of trial {line['number']} are not by steps; start anew"
        ) from error
    return Trial(**{each.name: line[each.name] for each in fields(Trial)} | {"values": values})


def _shown(trial: Trial) -> str:
    params = (
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in trial.params.items()
    )
    return f"{trial.error or trial.value} ({', '.join(params)})"
