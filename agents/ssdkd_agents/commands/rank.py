"""Rank samplers and methods from result files, as Markdown that the files alone decide.

Examples:
  ssdkd results rank --out LEADERBOARD.md --results runs/a/results.jsonl results/b.jsonl.gz
  ssdkd results rank --out LEADERBOARD.md --results runs/a/results.jsonl results/b.jsonl.gz --check

With --check nothing is written; it exits with 1 when the file is not what the results give.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.analysis.results import read_results
from ssdkd_agents.benchmarking.leaderboard import make_leaderboard
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results rank`."""

    out: Path
    """Markdown file to write, or to check."""
    results: tuple[Path, ...]
    """results.jsonl files of ssdkd evaluate or ssdkd benchmark, under any name, also compressed (.jsonl.gz)."""
    check: bool = False
    """Write nothing; exit with 1 when the file is not what the results give."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if not args.results:
        raise InvalidInputError("--results: none given; name at least one results.jsonl")
    links = {Path(os.path.relpath(path, args.out.parent)).as_posix(): path for path in args.results}
    board = make_leaderboard({link: read_results(path) for link, path in links.items()})
    if not args.check:
        write_atomically(args.out, lambda temporary: temporary.write_text(board))
        print(f"leaderboard: {args.out}")
    elif not args.out.is_file() or args.out.read_bytes() != board.encode():
        print(f"{args.out} is not what the results give; run this command again without --check", file=sys.stderr)
        sys.exit(1)
    else:
        print(f"{args.out} is what the results give")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results rank", arguments)
