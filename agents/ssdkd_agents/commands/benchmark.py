"""Compare methods and samplers over seeds: accuracy, seconds of synthesis and distillation, what was synthesised.

Examples:
  ssdkd benchmark --out runs/ablation --suite ablation --seeds 10
  ssdkd benchmark --out runs/grid --methods ssdkd fast5 --samplers own uniform runs/ppo
  ssdkd benchmark --out runs/samplers --suite samplers --samplers ppo=runs/ppo-0,runs/ppo-1 --seeds 20
  ssdkd benchmark --out runs/short --methods ssdkd cmi --env.budget.rounds 10
  ssdkd benchmark --out runs/ablation --resume

The folder then holds results.jsonl (a line a run), table.md and pictures; where samplers alone are compared, in the
manner of rliable, with several training runs of one algorithm (ppo=A,B) in one row. Ctrl-C and --minutes
keep what there is, the episodes in progress included.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssdkd_agents.benchmarking.benchmark import Benchmark, Job, Settings
from ssdkd_agents.commands.command_line import Plugins, launch, resuming
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.executing import SideBySide, executor_of
from ssdkd_agents.environments import use_one_thread
from ssdkd_agents.progress import progress
from ssdkd_agents.stopping import Stopper
from ssdkd_agents.workers import Outcome
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Executor


@dataclass
class Arguments(SideBySide, Plugins):
    """Command line of `ssdkd benchmark`."""

    out: Path
    """Folder for the results; new or empty, unless with --resume or --report-only."""
    suite: str | None = None
    """Comparison by name: methods, ablation, real-vs-synthetic, scale, generative, samplers, cifar-cpu, protocol, …"""
    methods: tuple[str, ...] | None = None
    """In place of a suite: methods, each with every sampler; ssdkd where only samplers are given."""
    samplers: tuple[str, ...] | None = None
    """Baselines by name, files or run folders, or groups of these such as ppo=runs/a,runs/b; further ones of the suite
    samplers; where only methods are given, each method's own."""
    env_id: str | None = None
    """Environment id; the suite's own, mostly SSDKD/Digits-v2, where none is given."""
    seeds: int | None = None
    """Episodes of each entry, 5 where none is given; --resume may ask for more than before."""
    first_seed: int | None = None
    """Seed of the first episode; 1,000,000 where none is given, from which on no training has seen them."""
    resume: bool = False
    """Continue the folder: play what is missing, failed or unfinished."""
    minutes: float | None = None
    """Stop after so many minutes, in a state that --resume continues."""
    report_only: bool = False
    """Play nothing; write table and pictures from the folder's result lines."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of every environment."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if args.report_only:
        print(Benchmark.open(args.out).report())
        return
    if args.minutes is not None and not args.minutes > 0:
        raise InvalidInputError(f"--minutes {args.minutes}: expected a number above 0")
    stop = Stopper(None if args.minutes is None else 60 * args.minutes)
    settings = read_settings(args)
    use_one_thread()
    with executor_of(args) as executor:
        benchmark = Benchmark.resume(args.out, settings) if args.resume else Benchmark.new(args.out, settings)
        with stop:
            failed = play(benchmark, executor, stop)
    finished = len(benchmark.results())
    if finished:
        print(benchmark.report())
    if finished < len(benchmark.jobs):
        print(f"{finished} of {len(benchmark.jobs)} episodes are finished; continue with:")
        print(resuming(args.out))
    for outcome in failed:
        label, seed = outcome.job.key
        print(f"failed: {label}, seed {seed}: {outcome.error}", file=sys.stderr)
    if stop.interrupted:
        raise KeyboardInterrupt
    if failed:
        print(f"tracebacks: {args.out / 'failures.jsonl'}", file=sys.stderr)
        sys.exit(1)


def read_settings(args: Arguments) -> Settings:
    """What is to be compared."""
    env_kwargs = args.env.settings() or None
    return Settings(args.suite, args.methods, args.samplers, args.env_id, env_kwargs, args.seeds, args.first_seed)


def play(benchmark: Benchmark, executor: Executor, stop: Stopper) -> Sequence[Outcome[Job]]:
    """Play what is missing, with a progress bar; returns the failures."""
    failed = []
    with progress(len(benchmark.jobs), "episode", len(benchmark.results())) as bar:
        for outcome in benchmark.run(executor, stop):
            if outcome.result is not None:
                bar.update(1)
            if outcome.error:
                failed.append(outcome)
    return failed


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd benchmark", arguments)
