"""Play result lines again and check that every number comes out as it was written.

Examples:
  ssdkd results replay --results runs/evaluation/results.jsonl
  ssdkd results replay --results runs/evaluation/results.jsonl --lines 1 4 8
  ssdkd results replay --results results/digits-methods.jsonl.gz --sample 5 --tolerance 0.05

Each line is played from its trace of actions, and from its sampler too where that is a baseline. Numbers must be
bit-identical where processor, torch threads and PyTorch are those of the line, and within --tolerance elsewhere. Exits
with 1 when a line does not replay.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssdkd_agents.analysis.markdown import table_row
from ssdkd_agents.analysis.results import Result, read_results, row_name
from ssdkd_agents.benchmarking.replay import Replayed, check_replayable, is_baseline, other_versions, replay
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.schemas import check_settings_of
from ssdkd_env.errors import InvalidInputError


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results replay`."""

    results: Path
    """results.jsonl of ssdkd evaluate or ssdkd benchmark, or compressed as .jsonl.gz."""
    lines: tuple[int, ...] = ()
    """Numbers of the lines to replay, from 1 on; all where neither these nor --sample are given."""
    sample: int | None = None
    """Replay so many lines, drawn by chance but the same ones each time."""
    tolerance: float = 0.0
    """|a − b| ≤ tolerance · max(1, |a|, |b|) counts as equal where bit-identity is not promised."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if not args.tolerance >= 0:
        raise InvalidInputError(f"--tolerance {args.tolerance}: expected a number of at least 0")
    chosen = choose(args, read_results(args.results, whole=True))
    for number, line in chosen.items():
        played = [line[name] for name in ("env_id", "env_kwargs", "sampler")]
        check_settings_of(played, f"{args.results}, line {number}")
        check_replayable(line, f"{args.results}, line {number}", args.tolerance)
    print("| line | sampler | seed | actions from | return | return here | verdict |")
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for number, line in chosen.items():
        for source in ("trace", "sampler") if is_baseline(line) else ("trace",):
            replayed = replay(line, source, args.tolerance)
            failed += bool(replayed.difference)
            cells = (number, row_name(line), line["seed"], source, f"{line['return']:.6f}", f"{replayed.value:.6f}")
            print(table_row((*cells, verdict(line, replayed, args.tolerance))), flush=True)
    if failed:
        print(f"{failed} replays differ", file=sys.stderr)
        sys.exit(1)


def choose(args: Arguments, lines: Sequence[Result]) -> dict[int, Result]:
    """The lines to replay, by number."""
    if args.lines and args.sample is not None:
        raise InvalidInputError("--lines and --sample exclude each other; give one of them")
    numbers = list(args.lines) or list(range(1, len(lines) + 1))
    if args.sample is not None:
        if not 1 <= args.sample <= len(lines):
            raise InvalidInputError(f"--sample {args.sample}: expected 1 to {len(lines)}, the number of lines")
        numbers = sorted((np.random.default_rng(0).permutation(len(lines))[: args.sample] + 1).tolist())
    odd = [number for number in numbers if not 1 <= number <= len(lines)]
    if odd:
        raise InvalidInputError(f"--lines {odd[0]}: expected numbers from 1 to {len(lines)}")
    return {number: lines[number - 1] for number in numbers}


def verdict(line: Result, replayed: Replayed, tolerance: float) -> str:
    """Equal or not, by which measure, and what is other here."""
    measure = "bit-identical" if replayed.exact else f"equal within {tolerance:g}"
    other = "; ".join((*replayed.reasons, *filter(None, [other_versions(line)])))
    if not replayed.difference:
        return measure + (f" ({'; '.join(replayed.reasons)})" if replayed.reasons else "")
    hint = "" if replayed.exact or tolerance else "; give --tolerance"
    return f"DIFFERS, {replayed.difference}" + (f" (made with {other}{hint})" if other else "")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results replay", arguments)
