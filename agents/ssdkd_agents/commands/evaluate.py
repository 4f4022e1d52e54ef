"""Compare samplers on held-out seeds: the same episodes for each, a table with intervals, JSON lines.

Examples:
  ssdkd evaluate --out runs/evaluation --samplers runs/ppo paper uniform --episodes 20
  ssdkd evaluate --out runs/seeds --samplers ppo=runs/ppo-0,runs/ppo-1,runs/ppo-2 paper
  ssdkd evaluate --out runs/evaluation --resume

The second makes one row of three training runs, whose intervals cover the noise of training too. Ctrl-C keeps the
episodes that were played to their end, and writes the table of them; --resume plays the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ssdkd_agents.analysis.results import Result
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episodes, validate
from ssdkd_agents.benchmarking.sampler_report import intervals, make_sampler_table, note
from ssdkd_agents.benchmarking.suites import sampler_runs
from ssdkd_agents.commands.command_line import Plugins, as_settings, launch, refuse_beside_resume, resuming
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.executing import SIDE_BY_SIDE, SideBySide, executor_of
from ssdkd_agents.environments import instances_of, make_env
from ssdkd_agents.inputs import check_inputs
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.places import located
from ssdkd_agents.policies.storage import face_of, taken_of
from ssdkd_agents.progress import progress
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.schemas import ResultLine, config_of
from ssdkd_agents.seeds import HELD_OUT_SEED, unequally_shared
from ssdkd_agents.stopping import Stopper
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Executor
from ssdkd_env.files import write_atomically

RESULTS = "results.jsonl"
#: Said of a table whose seeds are not held out.
SEEN = (
    f"Seeds below {HELD_OUT_SEED:,} are those of trainings, searches and validations: a trained sampler may have been "
    "made on these episodes."
)


@dataclass
class Arguments(SideBySide, Plugins):
    """Command line of `ssdkd evaluate`."""

    out: Path
    """Folder for the results; must be new or empty, unless --resume."""
    samplers: tuple[str, ...] = ("paper", "uniform", "random")
    """Baselines by name, files or run folders of trained samplers, or groups of these such as ppo=runs/a,runs/b."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    episodes: int = 20
    """Episodes of each sampler."""
    first_seed: int = HELD_OUT_SEED
    """Seed of the first episode; from 1,000,000 on no training has seen them."""
    resume: bool = False
    """Continue the evaluation in --out, with its own settings: play what is missing."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation depends on; it lies in `config.json`, beside what was given.

    Attributes:
        rows: name of each sampler, the same from any folder → the row that it belongs to.
        env_id: registered id.
        episodes: of each sampler.
        first_seed: seed of the first.
        env_kwargs: JSON-able arguments of the environment.
    """

    rows: dict[str, str]
    env_id: str
    episodes: int
    first_seed: int
    env_kwargs: dict[str, Any]

    @cached_property
    def env(self) -> SSDKDEnv:
        """One of the kind that is played."""
        return make_env(self.env_id, self.env_kwargs)

    def configs(self) -> list[EpisodeConfig]:
        """Every episode, seeds outermost; the instances of a set take turns."""
        kwargs = {run: {**face_of(run), **self.env_kwargs} for run in self.rows}
        seeds = enumerate(instances_of(self.env, self.episodes, self.first_seed), self.first_seed)
        return [
            EpisodeConfig(self.env_id, run, seed, of, instance)
            for seed, instance in seeds
            for run, of in kwargs.items()
        ]


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if args.episodes < 1:
        raise InvalidInputError(f"--episodes {args.episodes}: expected at least 1")
    with executor_of(args) as executor:
        evaluate(args, executor)


def evaluate(args: Arguments, executor: Executor) -> None:
    """Play what is missing of an evaluation, new or begun, and report."""
    if args.resume:
        refuse_beside_resume(args, SIDE_BY_SIDE)
        folder = RunFolder.resume(args.out)
        evaluation = evaluation_of_run(folder)
        configs = evaluation.configs()
        refuse_others(validate(configs), folder)
    else:
        rows = {located(run): name for name, runs in sampler_runs(args.samplers).items() for run in runs}
        evaluation = Evaluation(rows, args.env_id, args.episodes, args.first_seed, args.env.settings())
        configs = evaluation.configs()
        inputs = validate(configs)
        if said := unequally_shared(args.episodes, len(evaluation.env.instances)):
            print(said)
        settings = {name: value for name, value in as_settings(args).items() if name != "resume"}
        folder = RunFolder(args.out, settings | {"rows": rows}, inputs)
    for taken in filter(None, map(taken_of, evaluation.rows)):
        print(taken)
    failure = None
    with Stopper() as stop:
        try:
            play(configs, evaluation.rows, folder, executor, stop)
        except InvalidInputError as error:  # of episodes that failed; what the others gave is kept
            failure = error
    played = report(configs, folder)
    if played < len(configs):
        print(f"{played} of {len(configs)} episodes are played; continue with:\n{resuming(folder.path)}")
    if failure is not None:
        raise failure
    if stop.interrupted and played < len(configs):
        raise KeyboardInterrupt


def refuse_others(inputs: dict[str, str], folder: RunFolder) -> None:
    """Refuse a sampler that is another one by now: a run's folder stands for its last checkpoint.

    Raises:
        InvalidInputError: when what would be read is not what the evaluation began with.
    """
    others = [path for path in inputs if path not in folder.inputs]
    if folder.inputs and others:
        raise InvalidInputError(
            f"{others[0]} is what would be evaluated now, and {folder.path} began with another file; start anew in "
            "another folder"
        )


def evaluation_of_run(folder: RunFolder) -> Evaluation:
    """The settings of an earlier evaluation.

    Raises:
        InvalidInputError: when the folder was made by another command.
    """
    names = [each.name for each in fields(Evaluation)]
    if not {*names, "samplers"} <= folder.config.keys():
        raise InvalidInputError(
            f"{folder.path} was not made by ssdkd evaluate of this version; give the folder of such a run"
        )
    return config_of({name: folder.config[name] for name in names}, Evaluation, folder.path, "ssdkd evaluate")


def played_of(folder: RunFolder, configs: Sequence[EpisodeConfig]) -> dict[tuple[str, int], Result]:
    """The lines so far, by sampler and seed.

    Raises:
        InvalidInputError: when one is of another instance than is wanted: earlier versions drew them.
    """
    path = folder.path / RESULTS
    lines = read_lines(path, ResultLine) if path.is_file() else []
    wanted = {config.seed: config.instance for config in configs}
    for line in lines:
        if line.get("instance") != wanted.get(line["seed"], line.get("instance")):
            raise InvalidInputError(
                f"{path}: seed {line['seed']} was played on another instance than now, by an earlier version; start "
                "anew in another folder"
            )
    return {(line["sampler"], line["seed"]): line for line in lines}


def play(
    configs: Sequence[EpisodeConfig], rows: dict[str, str], folder: RunFolder, executor: Executor, stop: Stopper
) -> None:
    """Play the episodes that are missing; every line is on disk before the next episode is waited for.

    Raises:
        InvalidInputError: after the last line, when episodes have failed; at once, when a training went on meanwhile.
    """
    played = played_of(folder, configs)
    missing = [config for config in configs if (config.sampler, config.seed) not in played]
    digests = {line["sampler"]: line["sampler_digest"] for line in played.values() if line.get("sampler_digest")}
    with progress(len(configs), "episode", len(configs) - len(missing)) as bar:
        for result in run_episodes(missing, executor, stop, partial(check_inputs, folder.inputs, folder.path)):
            if digests.setdefault(sampler := result["sampler"], digest := result["sampler_digest"]) != digest:
                raise InvalidInputError(
                    f"{sampler} is another one than in the episodes before: its training goes on; evaluate one of its "
                    "checkpoints by its file, or wait for the end, and start anew in another folder"
                )
            folder.append({"group": rows[result["sampler"]]} | result)
            bar.update(1)


def report(configs: Sequence[EpisodeConfig], folder: RunFolder) -> int:
    """Write and print the table of what has been played; returns how many episodes that are."""
    played = played_of(folder, configs)
    lines = [played[key] for config in configs if (key := (config.sampler, config.seed)) in played]
    if lines:
        table = make_sampler_table(lines)
        seen = f" {SEEN}" if any(config.seed < HELD_OUT_SEED for config in configs) else ""
        text = f"{table}\n\n{note()}{seen}\n"
        write_atomically(folder.path / "table.md", lambda temporary: temporary.write_text(text))
        print(f"{table}\n\n{intervals()}{seen}")
    return len(lines)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd evaluate", arguments)
