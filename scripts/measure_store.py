"""What comparing and ranking many result lines takes, from a store and from the lines themselves.

Example: python scripts/measure_store.py --out runs/store.jsonl --lines 1000000 --rows 50

Lines are made of a kept one: so many seeds of each row, scores drawn at random. Lines that fill several files are not
ranked, since that makes a row for each row of each file. Each step is a process of its own; its seconds, processor
seconds and peak memory are a JSON line. The tables of both ways must be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from laboratory.common import about, check_least
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.archives import MOST_BYTES
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.lines import append_line, read_lines
from ssdkd_agents.machine import MIB, high_water_mib
from ssdkd_agents.seeds import HELD_OUT_SEED
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[1]
#: What the lines are made of.
KEPT = ROOT / "results" / "digits-ablation.jsonl.gz"


@dataclass
class Arguments(Plugins):
    """Command line of measure_store."""

    out: Path
    """JSON-lines file to write; must not exist."""
    lines: int = 100_000
    """Result lines."""
    rows: int = 50
    """Rows of the table, among which they are divided; the first is the paper's sampler."""
    from_lines: bool = True
    """Also compare and rank the lines as they are."""
    before: Path | None = None
    """Also let an earlier checkout compare and rank the lines, as `git worktree add ../before 3e2fe4e^` makes it."""


def main(args: Arguments) -> None:
    """Make lines, take each step, and report."""
    check_lines_file("out", args.out)
    check_least(args, rows=2, lines=2 * args.rows)
    if args.before is not None and not (args.before / "agents" / "ssdkd_agents").is_dir():
        raise InvalidInputError(f"--before {args.before} holds no agents/ssdkd_agents; give a checkout")
    steps: list[dict[str, Any]] = []

    def take(kind: str, name: str, words: list[str], code: Path) -> None:
        steps.append(step(kind, name, words, code))
        append_line(args.out, steps[-1])

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        files = make_lines(folder, args.lines, args.rows)
        store = folder / "campaign.parquet"
        take("import", "store", ["import", "--results", *files, "--out", str(store)], ROOT)
        sources = {"store": ([str(store)], ROOT)}
        if args.from_lines:
            sources["lines"] = files, ROOT
        if args.before is not None:
            sources["lines, before"] = files, args.before
        for name, (source, code) in sources.items():
            # A ranking has a row for each file: of several it is more work.
            for kind in ("compare", "rank") if len(source) == 1 else ("compare",):
                table = folder / f"{name}-{kind}.md"
                take(kind, name, [kind, "--results", *source, "--out", str(table)], code)
        if args.from_lines and (folder / "store-compare.md").read_bytes() != (folder / "lines-compare.md").read_bytes():
            raise InvalidInputError("the store gives another table than the lines")
        sizes = {"lines_mib": sum(Path(file).stat().st_size for file in files) / MIB}
        sizes["store_mib"] = store.stat().st_size / MIB
    append_line(args.out, {"lines": args.lines, "rows": args.rows, **sizes} | about(torch.device("cpu")))
    cells = [
        [line["step"], line["from"], *(f"{line[name]:.1f}" for name in ("seconds", "processor_seconds", "peak_mib"))]
        for line in steps
    ]
    print(f"{args.lines} lines of {sizes['lines_mib']:.0f} MiB, a store of {sizes['store_mib']:.0f} MiB")
    print(markdown_table(["step", "from", "seconds", "processor seconds", "peak MiB"], cells))


def make_lines(folder: Path, count: int, rows: int) -> list[str]:
    """Files of result lines, none larger than a reader of lines takes."""
    kept = next(line for line in read_lines(KEPT) if line["label"] == "SSD-KD")
    random = np.random.default_rng(0)
    files: list[str] = []
    size = MOST_BYTES
    for number in tqdm(range(count), desc="lines", unit="line"):
        row = number % rows
        score = float(random.normal(0.9 + row / 1000, 0.02))
        changed: dict[str, Any] = {
            "label": "SSD-KD" if row == 0 else f"row {row}",
            "sampler": "own" if row == 0 else f"constant:[{row / rows}]",
            "seed": HELD_OUT_SEED + number // rows,
            "held_out_accuracy": score,
            "return": score - 0.3,
        }
        line = json.dumps(kept | changed) + "\n"
        if size + len(line) > MOST_BYTES * 0.9:
            files.append(str(folder / f"{len(files)}.jsonl"))
            size = 0
        with open(files[-1], "a", encoding="utf-8") as file:
            file.write(line)
        size += len(line)
    return files


def step(name: str, source: str, words: list[str], code: Path) -> dict[str, Any]:
    """Seconds and peak memory of `ssdkd results` with these words, by a checkout's code.

    Raises:
        InvalidInputError: when it fails.
    """
    started, peak = time.perf_counter(), 0.0
    paths = os.pathsep.join([str(code.resolve()), str(code.resolve() / "agents")])
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "ssdkd_agents", "results", *words],
            cwd=code, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, high_water_mib(process.pid) or 0.0)  # of one that has ended nobody knows
            time.sleep(0.02)
        seconds, (_, status, used) = time.perf_counter() - started, ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise InvalidInputError(f"ssdkd results {name} fails here: {said.read().decode()[-300:]}")
    return {
        "step": name, "from": source, "seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime, "peak_mib": peak,
    }  # fmt: skip


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
