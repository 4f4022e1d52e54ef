"""Break places of the engine, the environment and the agents on purpose, and see whether the test-suite finds it.

Example:
  python scripts/check_mutations.py --out runs/mutations.jsonl
  python scripts/check_mutations.py --out runs/all.jsonl --tests "-n 2"

Each mutation is one changed line in a copy of this checkout, whose tests then run until the first failure: those of the
changed file's folder first, then all. Appends a JSON line for each: whether it was found, by which test, and the
seconds; prints a Markdown table. The unchanged copy is tested first: a suite that fails anyway finds everything. Takes
a minute or so for a mutation that is found near by, and as long as the suite for one that is not found.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from laboratory.common import about
from laboratory.mutations import MUTATIONS, Mutation
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.lines import append_line
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[1]
#: What a copy of the checkout needs not, and the test that knows the mutations themselves.
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv", "runs", "build", "*.egg-info", "__pycache__", ".*_cache", "findings", "test_mutations.py")
)


@dataclass
class Arguments(Plugins):
    """Command line of check_mutations."""

    out: Path
    """JSON-lines file to write; must not exist."""
    tests: str = "-n 2 -m 'not slow'"
    """Arguments of pytest, in one word; those of `make test` without it."""
    only: tuple[str, ...] = ()
    """Names of the mutations to try; all without it."""


def main(args: Arguments) -> None:
    """Test the unchanged copy, then each mutation."""
    check_lines_file("out", args.out)
    unknown = [name for name in args.only if name not in MUTATIONS]
    if unknown:
        raise InvalidInputError(
            f"--only {unknown[0]}: there is no such mutation; choose one of: {', '.join(MUTATIONS)}"
        )
    tests = shlex.split(args.tests)
    wanted = {name: mutation for name, mutation in MUTATIONS.items() if not args.only or name in args.only}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        failed, seconds = run_tests(copy, tests)
        if failed:
            raise InvalidInputError(f"the unchanged checkout fails {failed}; mend it first")
        append_line(args.out, {"mutation": None, "tests": tests, "seconds": seconds} | about(torch.device("cpu")))
        for name, mutation in tqdm(wanted.items(), unit="mutation"):
            with changed(copy, mutation):
                failed, seconds = run_near_tests_first(copy, tests, mutation)
            append_line(args.out, {"mutation": name, "found_by": failed or None, "seconds": seconds} | asdict(mutation))
            rows.append([name, mutation.path, failed or "**not found**", f"{seconds:.0f}"])
    found = sum(row[2] != "**not found**" for row in rows)
    print(markdown_table(["mutation", "file", "found by", "seconds"], rows))
    print(f"\n{found} of {len(rows)} found.")


class changed:
    """A block in which one line of a copy is another."""

    def __init__(self, copy: Path, mutation: Mutation) -> None:
        self._file = copy / mutation.path
        self._text = self._file.read_text()
        if self._text.count(mutation.line) != 1:
            raise InvalidInputError(
                f"{mutation.path} has not exactly one {mutation.line!r}: bring the mutation up to date"
            )
        self._mutated = self._text.replace(mutation.line, mutation.instead)

    def __enter__(self) -> None:
        self._file.write_text(self._mutated)

    def __exit__(self, *_: object) -> None:
        self._file.write_text(self._text)


def tests_near(copy: Path, mutation: Mutation) -> Path | None:
    """The tests' folder that mirrors the changed file's, or that folder's nearest parent; None if it is `tests`."""
    parts = Path(mutation.path).parent.parts
    inner = parts[1:] if parts[:1] == ("ssdkd_env",) else ("agents", *parts[2:])
    folder = copy.joinpath("tests", *inner)
    while not folder.is_dir():
        folder = folder.parent
    return None if folder == copy / "tests" else folder


def run_near_tests_first(copy: Path, arguments: list[str], mutation: Mutation) -> tuple[str, float]:
    """As `run_tests`, sooner where a test near the mutation fails."""
    folder, spent = tests_near(copy, mutation), 0.0
    if folder is not None:
        failed, spent = run_tests(copy, [*arguments, str(folder)])
        if failed and "whole suite" not in failed:
            return failed, spent
    failed, seconds = run_tests(copy, arguments)
    return failed, spent + seconds


def run_tests(copy: Path, arguments: list[str]) -> tuple[str, float]:
    """The first test that fails, empty when none does, and the seconds."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{copy / 'agents'}", "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    failures = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not failures:
        failures = [f"the whole suite (exit status {done.returncode})"]
    return (failures[0] if done.returncode else ""), seconds


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
