"""Files that a stranger might send: whether reading one imports, reaches out, fills the memory, or ends in a traceback.

Example:
  python scripts/measure_strangers.py --out runs/strangers.jsonl

Each file is a sound one with one thing in it that no honest one has (`laboratory/specimens*.py`), and harmless: what it
would import or call does nothing. Each is read by the command that a user would read it with, in a process of its own.
Appends a JSON line for each, prints a table, and exits with 1 where one is not refused, in one line and at little cost.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from laboratory.common import about
from laboratory.specimens import Specimen
from laboratory.specimens_of_arrays import of_arrays
from laboratory.specimens_of_checkpoints import of_checkpoints
from laboratory.specimens_of_data import of_data
from laboratory.specimens_of_results import of_results
from laboratory.specimens_of_settings import of_settings
from laboratory.specimens_of_stores import of_stores
from laboratory.strangers import Watched, plant, sound_runs, watch
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import use_one_thread
from ssdkd_agents.lines import append_line
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError

#: What reading a file may cost: MiB above what the command had, and seconds.
MOST_MEMORY, MOST_SECONDS = 500.0, 10.0


@dataclass
class Arguments(Plugins):
    """Command line of `measure_strangers`."""

    out: Path
    """JSON-lines file to write; must not exist."""
    only: str = ""
    """Of the files those whose kind, or what they hold, has this in it; all where it is empty."""


def main(args: Arguments) -> None:
    """Make, read, watch."""
    check_lines_file("out", args.out)
    out = args.out.resolve()  # because commands are given in a folder of their own
    tables = (of_settings, of_results, of_stores, of_checkpoints, of_arrays, of_data)
    chosen = [each for table in tables for each in table() if args.only in f"{each.kind}: {each.holds}"]
    if not chosen:
        raise InvalidInputError(f"--only {args.only!r}: no file is described so; leave it out to see them all")
    use_one_thread()
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in tried(chosen):
        append_line(out, line)
        kinds.setdefault(line["kind"], []).append(line)
        if not line["as_it_must_be"]:
            print(f"not as it must be: {line}", file=sys.stderr)
    append_line(out, about(torch.device("cpu")))
    rows = [
        [
            *(kind, str(len(lines)), str(sum(line["as_it_must_be"] for line in lines))),
            *(
                f"{max(line[cost] for line in lines):.{digits}f}"
                for cost, digits in (("memory_mib", 0), ("seconds", 1))
            ),
        ]
        for kind, lines in kinds.items()
    ]
    print(markdown_table(["file", "tried", "refused as it must be", "most memory, MiB", "most seconds"], rows))
    if any(not line["as_it_must_be"] for lines in kinds.values() for line in lines):
        sys.exit(1)


def tried(chosen: list[Specimen]) -> Iterator[dict[str, Any]]:
    """A line for each file."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as parent:
        plant(Path(parent))
        os.chdir(parent)  # where a call of a hostile pickle would leave its mark
        try:
            runs = sound_runs(Path(parent))
            for number, specimen in enumerate(tqdm(chosen, unit="file")):
                folder = Path(parent) / f"{number}"
                folder.mkdir()
                words = specimen.make(runs, folder)
                watched = watch(words, Path(parent) / "read.log")
                yield _judged(specimen, watched, executed=Path("executed").exists())
                shutil.rmtree(folder)
        finally:
            os.chdir(here)


def _judged(specimen: Specimen, watched: Watched, executed: bool) -> dict[str, Any]:
    cheap = watched.memory < MOST_MEMORY and watched.seconds <= MOST_SECONDS
    goes_on = "the one before it is sound" in specimen.holds  # so that nothing need be refused
    going_on = watched.code == 0 and "going on from" in watched.text and watched.printable
    ended = going_on if goes_on else watched.one_line
    return {
        "kind": specimen.kind,
        "holds": specimen.holds,
        "as_it_must_be": ended and cheap and not watched.reached and not executed,
        "code": watched.code,
        "reached": list(watched.reached) + ["a call"] * executed,
        "memory_mib": watched.memory,
        "seconds": watched.seconds,
        "said": watched.text[-400:],
    }


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
