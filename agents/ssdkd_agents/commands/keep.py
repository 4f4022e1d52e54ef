"""Keep what a run gave: its lines compressed, the tables and pictures asked for, and an entry of the manifest.

Examples:
  ssdkd results keep --run runs/ablation --name digits-ablation --into results --files table.md distributions.png
  ssdkd results keep --run runs/plans.jsonl --name digits-plans --into results --files plans.txt plans.png
  ssdkd results keep --run runs/cma --name digits-cma --lines episodes.jsonl --files constant.json
  ssdkd results keep --run runs/cifar --name cifar10 --files table.md --unfinished --overwrite

--run is the folder of a run, or the .jsonl file of a measurement, beside which its tables and pictures lie. Writes
NAME.jsonl.gz, the other files under names that begin with NAME, manifest.json and the table in README.md; the documents
that show it are looked for in the README.md and docs/ beside the folder. Nothing is overwritten without --overwrite,
which also deletes files that the experiment no longer has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.keeping.entry import Played, keep


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results keep`."""

    run: Path
    """Folder of a run, or the .jsonl file of a measurement."""
    name: str
    """Of the experiment: small letters, digits and hyphens."""
    into: Path = Path("results")
    """Folder of results."""
    lines: str = "results.jsonl"
    """The file of lines in the folder of a run."""
    files: tuple[str, ...] = ()
    """Tables and pictures to keep, by their names beside the lines."""
    about: str | None = None
    """What it shows, in a line; where an experiment is replaced, what was said of it."""
    command: str | None = None
    """What was typed, where the run's folder does not say it."""
    commits: tuple[str, ...] = ()
    """Commits that play it."""
    unfinished: bool = False
    """More lines are to come: they are kept uncompressed, beside the run's config.json, with which it can go on."""
    root: Path = Path()
    """Paths below this folder are kept relative to it; a line that names one elsewhere is refused."""
    overwrite: bool = False
    """Replace the experiment of this name."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    said = {"about": args.about, "command": args.command, "commits": list(args.commits) or None}
    played = Played(args.run, args.lines, args.files, args.unfinished, said, args.root)
    experiment = keep(played, args.name, args.into, args.overwrite)
    print(f"{args.into}: {args.name}, {experiment.lines} lines, in {', '.join(experiment.files)}")
    unknown = [key for key, value in vars(experiment).items() if value is None]
    if unknown:
        print(f"not known: {', '.join(unknown)}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results keep", arguments)
