"""Compare samplers of several result files with one of them: differences and probabilities, with intervals.

Examples:
  ssdkd results compare --results runs/a/results.jsonl runs/b/results.jsonl
  ssdkd results compare --results runs/a/results.jsonl --against uniform --out table.md
  ssdkd results compare --results runs/a/results.jsonl --against uniform --instances

Takes any row of one sampler for the reference, where ssdkd evaluate compares with the paper's sampler. Of an episode
that several files have, the first one's counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.analysis.instances import instance_means
from ssdkd_agents.analysis.results import SCORES, Result, common_score, instance_of, paper_lines, read_results, row_name
from ssdkd_agents.benchmarking.leaderboard import environment_of, method_of, settings_of
from ssdkd_agents.benchmarking.sampler_report import EPISODES, INSTANCES, intervals, make_sampler_table, note
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.inputs import SHOWN
from ssdkd_agents.samplers import family_of
from ssdkd_env.envs.settings import FACE
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results compare`."""

    results: tuple[Path, ...]
    """results.jsonl files of ssdkd evaluate or ssdkd benchmark, under any name, also compressed (.jsonl.gz)."""
    against: str | None = None
    """Row that the others are compared with; without it the paper's sampler."""
    score: str | None = None
    """Compare by this score alone, such as accuracy; without it by the most telling accuracy, and the return."""
    instances: bool = False
    """Compare means of each instance over its episodes, in place of single episodes."""
    out: Path | None = None
    """Markdown file to write, beside printing it."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if not args.results:
        raise InvalidInputError("--results: none given; name at least one results.jsonl")
    lines = merge(args.results)
    if args.against is None and not paper_lines(lines):
        raise InvalidInputError("--results: no episode of the paper's sampler; give --against another row")
    if args.score is not None and common_score(lines, [args.score]) is None:
        raise InvalidInputError(f"--score {args.score}: not every episode has it; choose among {', '.join(SCORES)}")
    unit = INSTANCES if args.instances else EPISODES
    compared = instance_means(lines, args.score) if args.instances else lines
    table = make_sampler_table(compared, args.against, args.score, unit)
    print(f"{table}\n\n{intervals(unit)}")
    if args.out is not None:
        text = f"{table}\n\n{note(args.against, unit)}\n"
        write_atomically(args.out, lambda temporary: temporary.write_text(text))


def merge(paths: tuple[Path, ...]) -> list[Result]:
    """Lines of all files, each episode once.

    Raises:
        InvalidInputError: when they are of different environments or budgets, or a sampler is not the same in all.
    """
    lines: dict[tuple[str, str, int], Result] = {}
    instances: dict[int, tuple[int | None, Path]] = {}
    played: dict[tuple[str, str], tuple[Path, Result]] = {}
    made: dict[tuple[str, str], tuple[str, Path]] = {}
    for path in paths:
        for line in read_results(path):
            row, sampler = row_name(line), line["sampler"]
            played.setdefault((environment_of(line), settings_of(line)), (path, line))
            instance, where = instances.setdefault(line["seed"], (instance_of(line), path))
            if instance != instance_of(line):
                raise InvalidInputError(
                    f"--results: seed {line['seed']} is of instance {instance} in {where}, of {instance_of(line)} in "
                    f"{path}: equal seeds are compared, and these are other tasks; play one of them anew"
                )
            identity = identity_of(line)
            first, earlier = made.setdefault((row, sampler), (identity, path))
            if first != identity:
                two = f"{first} in {earlier}, {identity} in {path}"
                raise InvalidInputError(f"--results: {sampler!r} is {two}; compare them apart")
            lines.setdefault((row, line.get("sampler_digest") or sampler, line["seed"]), line)
    if len(played) > 1:
        (one, (at, first_line)), (another, (other, second_line)) = list(played.items())[:2]
        raise InvalidInputError(
            f"--results: {at} has episodes of {' '.join(one)}, {other} of {' '.join(another)}, which cannot be "
            f"compared{_other_files(first_line, second_line)}; give files of one environment with one budget"
        )
    return list(lines.values())


def _other_files(first: Result, second: Result) -> str:
    """Which files, such as the teacher, were other ones, in words."""
    one, another = (line.get("inputs", {}) for line in (first, second))
    changed = sorted(path for path in one.keys() & another.keys() if one[path] != another[path])
    if changed:
        return f": {changed[0]} had another content (SHA-256 {one[changed[0]][:SHOWN]}, {another[changed[0]][:SHOWN]})"
    alone = sorted(set(one.values()) ^ set(another.values()))
    names = [path for path, digest in (one | another).items() if digest in alone]
    return f": {names[0]} was not read for both" if names else ""


def identity_of(line: Result) -> str:
    """What a sampler's name leaves open: which file it was, and for what it was asked."""
    asked = {}
    if line["sampler"] == "random" or family_of(line["sampler"]):  # other baselines can say it in any
        asked = {name: value for name, value in line["env_kwargs"].items() if name in FACE}
    return json.dumps([line.get("sampler_digest"), method_of(line), asked], sort_keys=True)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results compare", arguments)
