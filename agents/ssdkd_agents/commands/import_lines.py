"""Bring result lines into a store, one Parquet file, of which tables read no more than the columns that they need.

Examples:
  ssdkd results import --results runs/*/results.jsonl --out campaign.parquet
  ssdkd results compare --results campaign.parquet
  ssdkd results rank --results campaign.parquet --out LEADERBOARD.md

A store has the numbers of the tables as columns, and every line as it was: `ssdkd results export` writes them again.
DuckDB, Polars and pandas read it, too. Needs pip install 'ssdkd-env[store]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.analysis.store import ENDING, is_store, write_store
from ssdkd_agents.commands.command_line import Plugins, launch, refuse_existing
from ssdkd_env.errors import InvalidInputError


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results import`."""

    results: tuple[Path, ...]
    """results.jsonl files of ssdkd evaluate or ssdkd benchmark, of any size, also compressed (.jsonl.gz)."""
    out: Path
    """Store to write; its name ends in .parquet, and it must not exist."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if not args.results:
        raise InvalidInputError("--results: none given; name at least one results.jsonl")
    if not is_store(args.out):
        raise InvalidInputError(f"--out {args.out}: expected a name that ends in {ENDING}")
    refuse_existing("out", args.out)
    print(f"{write_store(args.results, args.out)} lines: {args.out}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results import", arguments)
