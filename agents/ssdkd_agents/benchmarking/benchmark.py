"""A benchmark: entries × seeds, one result line each, in a folder that can be left and continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ssdkd_agents.benchmarking.experiments import EpisodeConfig, forget, play, validate
from ssdkd_agents.benchmarking.report import write_report
from ssdkd_agents.benchmarking.suites import (
    DEFAULT_ENV,
    SAMPLERS_SUITE,
    Entry,
    find_suite,
    grid,
    sampler_entries,
    with_face,
)
from ssdkd_agents.inputs import check_inputs
from ssdkd_agents.lines import append_line, read_lines
from ssdkd_agents.runs import RunFolder, refuse_content
from ssdkd_agents.schemas import BenchmarkLine, ResultLine, config_of
from ssdkd_agents.seeds import HELD_OUT_SEED
from ssdkd_agents.stopping import Stopper
from ssdkd_agents.workers import Outcome, run_jobs
from ssdkd_env.envs.settings import FACE
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Executor
from ssdkd_env.reading import conform

DEFAULT_SEEDS, MOST_SEEDS = 5, 100_000
RESULTS, FAILURES, UNFINISHED = "results.jsonl", "failures.jsonl", "unfinished"


@dataclass(frozen=True)
class Settings:
    """What a benchmark compares; None where the user said nothing.

    Attributes:
        suite: name in `SUITES`, in place of methods and samplers.
        methods: presets of a grid.
        samplers: samplers of a grid, or further ones of the suite `samplers`.
        env_id: environment id.
        env_kwargs: arguments of every environment, with `budget`.
        seeds: episodes of each entry.
        first_seed: seed of the first.
    """

    suite: str | None = None
    methods: tuple[str, ...] | None = None
    samplers: tuple[str, ...] | None = None
    env_id: str | None = None
    env_kwargs: dict[str, Any] | None = None
    seeds: int | None = None
    first_seed: int | None = None


@dataclass(frozen=True)
class Plan:
    """Entries × seeds, resolved.

    Attributes:
        suite: name, or empty for a grid.
        env_id: environment id.
        env_kwargs: arguments of every environment.
        entries: the rows.
        seeds: episodes of each entry.
        first_seed: seed of the first.
    """

    suite: str
    env_id: str
    env_kwargs: dict[str, Any]
    entries: tuple[Entry, ...]
    seeds: int = DEFAULT_SEEDS
    first_seed: int = HELD_OUT_SEED

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InvalidInputError(f"seeds={self.seeds}: expected 1 to {MOST_SEEDS:,} episodes of each entry")
        if self.first_seed < 0:
            raise InvalidInputError(f"first_seed={self.first_seed}: expected a number of at least 0")
        labels = [entry.label for entry in self.entries]
        twice = [label for index, label in enumerate(labels) if label in labels[:index]]
        if twice:
            raise InvalidInputError(f"samplers: {twice[0]!r} is in the suite already; leave it out")

    @property
    def compares_samplers(self) -> bool:
        """Whether the entries differ in nothing but their samplers, and the arguments that these need."""
        rest = {
            json.dumps([e.method, dict(e.method_options), {k: v for k, v in e.env_kwargs.items() if k not in FACE}])
            for e in self.entries
        }
        return len(rest) == 1 and len({entry.sampler for entry in self.entries}) > 1

    @property
    def varies_buffer(self) -> bool:
        """Whether every entry has a size of the buffer of its own, as in the suite `scale`."""
        return all("buffer_scale" in entry.env_kwargs for entry in self.entries)

    def jobs(self) -> list[Job]:
        """Every episode, seeds outermost, so that a drift of the machine meets every entry alike."""
        return [
            Job(index, entry.label, entry.config(self.env_id, seed, self.env_kwargs), group=entry.group)
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for index, entry in enumerate(self.entries)
        ]


@dataclass(frozen=True)
class Job:
    """One episode of an entry.

    Attributes:
        index: of the entry.
        label: of the entry.
        config: the episode.
        folder: where it is kept when it is stopped.
        group: of the entry.
        inputs: of the benchmark; see `inputs.inputs_of`.
    """

    index: int
    label: str
    config: EpisodeConfig
    folder: str = ""
    group: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """Label and seed, which tell it from the others."""
        return self.label, self.config.seed

    @property
    def checkpoint(self) -> Path:
        """Where it is kept when it is stopped."""
        return Path(self.folder) / UNFINISHED / f"{self.index}-{self.config.seed}.json"


def make_plan(settings: Settings) -> Plan:
    """Resolve settings into a plan.

    Raises:
        InvalidInputError: when they name no comparison, or one that does not exist.
    """
    chosen = settings.methods is not None or settings.samplers is not None
    env_kwargs = settings.env_kwargs or {}
    for name in ("budget", "method_options"):
        if not isinstance(env_kwargs.get(name, {}), dict):
            raise InvalidInputError(f"env_kwargs[{name!r}]={env_kwargs[name]!r}: expected settings by name")
    if "method" in env_kwargs:
        raise InvalidInputError("env_kwargs['method']: the entries choose their methods; use --methods instead")
    extended = settings.suite == SAMPLERS_SUITE and settings.methods is None
    if settings.suite is not None and chosen and not extended:
        raise InvalidInputError(
            f"--suite and --methods or --samplers exclude each other; give one of them (--suite {SAMPLERS_SUITE} takes "
            "further --samplers)"
        )
    if settings.suite is None and not chosen:
        raise InvalidInputError("nothing to compare; give --suite, or --methods and --samplers")
    if settings.suite is not None:
        suite = find_suite(settings.suite)
        env_id = settings.env_id or suite.env_id
        entries = suite.entries_for(env_id, env_kwargs) + sampler_entries(settings.samplers or ())
    else:
        env_id = settings.env_id or DEFAULT_ENV
        entries = grid(settings.methods or (), settings.samplers or ())
    entries = tuple(with_face(entry, env_kwargs) for entry in entries)
    return Plan(
        settings.suite or "",
        env_id,
        env_kwargs,
        entries,
        DEFAULT_SEEDS if settings.seeds is None else settings.seeds,
        HELD_OUT_SEED if settings.first_seed is None else settings.first_seed,
    )


class Benchmark:
    """A folder with a plan and the result lines that there are of it.

    Make one with `new`, `resume` or `open`.

    Args:
        folder: `config.json`, `command.txt` and `results.jsonl` lie in it.
        plan: what is to be played.
        inputs: what it began with; see `inputs.inputs_of`.
    """

    def __init__(self, folder: Path, plan: Plan, inputs: Mapping[str, str]) -> None:
        self.folder = folder
        self.plan = plan
        self.jobs = [replace(job, folder=str(folder.resolve()), inputs=inputs) for job in plan.jobs()]

    @classmethod
    def new(cls, folder: Path, settings: Settings) -> Benchmark:
        """Check the whole plan, then start a folder for it.

        Raises:
            InvalidInputError: when an entry cannot be played, or the folder is not empty.
        """
        refuse_content(folder, "continue it with --resume, or choose another folder")
        plan = make_plan(settings)
        inputs = validate([job.config for job in plan.jobs()])
        RunFolder(folder, {"settings": asdict(settings), "plan": asdict(plan)}, inputs)
        return cls(folder, plan, inputs)

    @classmethod
    def open(cls, folder: Path) -> Benchmark:
        """Open the folder of an earlier benchmark.

        Raises:
            InvalidInputError: when there is none.
        """
        run = RunFolder(folder, None)
        config = run.config
        where, maker = folder / "config.json", "ssdkd benchmark"
        if not isinstance(config.get("settings"), dict) or not isinstance(config.get("plan"), dict):
            raise InvalidInputError(f"{where} is not that of a benchmark; give its folder")
        # Whose environment earlier versions called `env`.
        settings = {"env_id" if name == "env" else name: setting for name, setting in config["settings"].items()}
        config_of(settings, Settings, where, maker)
        return cls(folder, config_of(config["plan"], Plan, where, maker), run.inputs)

    @classmethod
    def resume(cls, folder: Path, given: Settings) -> Benchmark:
        """Open a folder to continue it; `given` must agree with it, but may ask for more seeds.

        Raises:
            InvalidInputError: when there is none, it was made with other settings, or an entry cannot be played.
        """
        run = RunFolder.resume(folder)
        opened = cls.open(folder)
        opened.results()
        validate([job.config for job in opened.jobs])
        return cls(folder, _extended(run, opened.plan, given), run.inputs)

    def results(self) -> list[dict[str, Any]]:
        """The result lines so far, in the order of the plan; half a last line does not count.

        Raises:
            InvalidInputError: when a line is damaged or belongs to another plan.
        """
        path = self.folder / RESULTS
        if not path.exists():
            return []
        planned = {job.key: json.loads(json.dumps(asdict(job.config))) for job in self.jobs}
        lines: dict[tuple[str, int], dict[str, Any]] = {}
        bins: dict[str, list[int]] = {}
        for line in read_lines(path, ResultLine):
            key = line.get("label", ""), line["seed"]
            where = f"{path}: the line of {key}"
            conform(line, BenchmarkLine, where, "delete it, to play it anew")
            _check_lengths(line, where)
            own = [len(counts) for counts in line["distributions"].values()]
            if bins.setdefault(line["label"], own) != own:
                raise InvalidInputError(f"{where} has other classes or bins than those before; delete it")
            if key not in planned:
                raise InvalidInputError(f"{path} has a line of {key}, which is not in config.json; use another --out")
            differing = [name for name, value in planned[key].items() if line.get(name) != value]
            if differing:
                raise InvalidInputError(f"{where} has another {differing[0]} than config.json")
            lines[key] = line
        return [lines[job.key] for job in self.jobs if job.key in lines]

    def run(self, executor: Executor, stop: Stopper) -> Iterator[Outcome[Job]]:
        """Play what is missing; every result line is on disk before it is yielded.

        Args:
            executor: whose workers play.
            stop: when to stop; unfinished episodes are then kept, and continued by the next `run`.

        Yields:
            An outcome for every episode that was begun.
        """
        done = {(line["label"], line["seed"]) for line in self.results()}
        (self.folder / FAILURES).unlink(missing_ok=True)
        missing = []
        for job in self.jobs:
            if job.key in done:
                forget(job.checkpoint)  # of a process that was killed right before it did so
            else:
                missing.append(job)
        for outcome in run_jobs(play_job, missing, executor, stop):
            if outcome.result is not None:
                append_line(self.folder / RESULTS, outcome.result)
                forget(outcome.job.checkpoint)
            if outcome.error:
                label, seed = outcome.job.key
                failure = {"label": label, "seed": seed, "error": outcome.error, "details": outcome.details}
                append_line(self.folder / FAILURES, failure)
            yield outcome
        unfinished = self.folder / UNFINISHED
        if unfinished.is_dir() and not any(unfinished.iterdir()):
            unfinished.rmdir()

    def report(self) -> str:
        """Write `table.md` and the pictures from the result lines; returns the table.

        Raises:
            InvalidInputError: when no episode is finished.
        """
        results = self.results()
        if not results:
            raise InvalidInputError(f"{self.folder} holds no finished episode yet; let the benchmark run for longer")
        return write_report(results, len(self.jobs), self.folder, self.plan.varies_buffer, self.plan.compares_samplers)


def play_job(job: Job, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """Play a job's episode from where it was left; a result line carries label and group of its entry.

    Raises:
        InvalidInputError: when the episode cannot be played, or a file that the benchmark began with is another one
            here.
    """
    check_inputs(job.inputs, Path(job.folder))
    # On a node of a cluster that does not share the folder there is nothing to go on from.
    checkpoint = job.checkpoint if Path(job.folder).is_dir() else None
    result = play(job.config, checkpoint, stop)
    if result is None:
        return None
    return {"label": job.label} | ({"group": job.group} if job.group else {}) | result


def _check_lengths(line: Mapping[str, Any], where: str) -> None:
    """Refuse a line whose curves are of different lengths: tables read them side by side.

    Raises:
        InvalidInputError: when they are.
    """
    lengths = {len(curve) for curve in line["curve"].values()}
    if len(lengths) > 1 or 0 in lengths:
        raise InvalidInputError(f"{where} has curves of {sorted(lengths)} steps; delete it, to play it anew")


def _extended(run: RunFolder, plan: Plan, given: Settings) -> Plan:
    """The folder's plan, with as many seeds as are asked for now.

    Raises:
        InvalidInputError: when anything else is asked for that is not the folder's.
    """
    stored = run.config["settings"] | {
        "suite": plan.suite or None,
        "env_id": plan.env_id,
        "env_kwargs": plan.env_kwargs,
        "first_seed": plan.first_seed,
    }
    for name, value in json.loads(json.dumps(asdict(given))).items():
        if name != "seeds" and value is not None and value != stored[name]:
            raise InvalidInputError(
                f"{name}={value!r}, but {run.path} was made with {name}={stored[name]!r}; leave it out to continue "
                "that one, or choose another --out"
            )
    if given.seeds is None or given.seeds == plan.seeds:
        return plan
    if given.seeds < plan.seeds:
        raise InvalidInputError(
            f"seeds={given.seeds}, but {run.path} was made with seeds={plan.seeds}; ask for as many or more"
        )
    plan = replace(plan, seeds=given.seeds)
    run.change(plan=asdict(plan))
    return plan
