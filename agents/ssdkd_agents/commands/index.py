"""Bring a folder of results up to date with its manifest and the documents beside it, and say what is wrong with it.

Examples:
  ssdkd results index --into results
  ssdkd results index --into results --check

Writes which documents show each file into manifest.json, and the table of experiments into README.md. Then it checks
that every file is in the manifest and the reverse, that the lines are those of the manifest's hashes, and that some
document shows every file. Exits with 1 when something is wrong; with --check nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.keeping.index import problems, shown, write_readme
from ssdkd_agents.keeping.manifest import MANIFEST, read_manifest, write_manifest
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import printable


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results index`."""

    into: Path
    """Folder of results."""
    check: bool = False
    """Write nothing."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if not (args.into / MANIFEST).is_file():
        raise InvalidInputError(f"--into {args.into}: no {MANIFEST}; keep a run in it with ssdkd results keep")
    manifest = read_manifest(args.into)
    if not args.check:
        manifest = shown(args.into, manifest)
        write_manifest(args.into, manifest)
        write_readme(args.into, manifest)
    found = list(problems(args.into, manifest))
    for problem in found:
        print(printable(problem), file=sys.stderr)
    print(f"{args.into}: {len(manifest)} experiments, {len(found)} problems")
    if found:
        sys.exit(1)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results index", arguments)
