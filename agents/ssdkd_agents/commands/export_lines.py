"""Write the lines of a store again as JSON lines, each as it was when it was imported.

Example: ssdkd results export --store campaign.parquet --out campaign.jsonl.gz
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.analysis.store import write_lines
from ssdkd_agents.commands.command_line import Plugins, launch, refuse_existing
from ssdkd_env.errors import InvalidInputError


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results export`."""

    store: Path
    """What ssdkd results import wrote."""
    out: Path
    """File of lines to write, .jsonl or, compressed, .jsonl.gz; must not exist."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if not args.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise InvalidInputError(f"--out {args.out}: expected a name that ends in .jsonl or .jsonl.gz")
    refuse_existing("out", args.out)
    print(f"{write_lines(args.store, args.out)} lines: {args.out}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results export", arguments)
