"""Seconds and memory of our loader of NYU Depth v2 beside reading its arrays with h5py alone.

Writes a file in the official layout (MATLAB 7.3: axes reversed, labels uint16, names by reference; 1,449 images, gzip)
in two ways of chunking, reads it in turns, each time in a process of its own, and compares what was read: images,
classes and split must be the same bytes. Ours reads the two splits one after the other.

Example: python scripts/measure_nyuv2.py --out runs/nyuv2.jsonl --turns 5

Needs 3 GiB of disk in the temporary folder and 3 GiB of memory. Let the machine do nothing else.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from laboratory.common import about, check_least, in_turn
from laboratory.nyuv2 import (
    ALONE,
    CHUNKS,
    OURS,
    arithmetic_mib,
    official_names,
    read_in_process,
    smooth_pairs,
    write_labelled,
)
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.lines import append_line
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data.nyuv2 import LABELLED_FILE
from ssdkd_env.tasks.data.nyuv2_classes import NUM_IMAGES


@dataclass
class Arguments(Plugins):
    """Command line of measure_nyuv2."""

    out: Path
    """JSON-lines file to write; must not exist."""
    turns: int = 5
    """Readings of each side and chunking."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the images."""


def main(args: Arguments) -> None:
    """Write, read in turns, compare."""
    check_lines_file("out", args.out)
    check_least(args, turns=1)
    if min(args.size) < 1:
        raise InvalidInputError(f"--size {args.size[0]} {args.size[1]}: expected a height and a width of at least 1")
    rows = []
    for chunking, chunks in CHUNKS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / LABELLED_FILE
            pairs = tqdm(smooth_pairs(NUM_IMAGES, args.size), total=NUM_IMAGES, desc=f"writing, {chunking}")
            write_labelled(path, pairs, NUM_IMAGES, args.size, chunks, official_names())
            read_in_process(OURS, path)  # so that both find the file in the system's cache
            lines: dict[str, list[dict[str, Any]]] = {OURS: [], ALONE: []}
            for turn in tqdm(range(args.turns), desc=f"reading, {chunking}"):
                for way in in_turn(lines, turn):
                    lines[way].append(read_in_process(way, path))
                    append_line(args.out, {"chunking": chunking, "turn": turn} | lines[way][-1])
        if any(line["digests"] != lines[ALONE][0]["digests"] for side in lines.values() for line in side):
            raise InvalidInputError(f"{chunking}: the two sides read other images, classes or splits: no figure")
        rows += table_rows(chunking, lines, arithmetic_mib(NUM_IMAGES, args.size))
    append_line(args.out, {"size": args.size, "images": NUM_IMAGES} | about(torch.device("cpu")))
    print("Both sides read the same images, classes and splits.\n")
    head = ["chunks", "way", "seconds (median)", "MiB at the peak (median)", "MiB of its arrays"]
    print(markdown_table([*head, "seconds over h5py alone", "MiB over h5py alone"], rows))


def table_rows(chunking: str, lines: dict[str, list[dict[str, Any]]], arrays: dict[str, float]) -> list[list[str]]:
    """A row for each side."""
    rows = []
    for way, own in lines.items():
        medians = [float(np.median([line[name] for line in own])) for name in ("seconds", "mib")]
        ratios = [
            str(bootstrap_mean(one[name] / other[name] for one, other in zip(own, lines[ALONE], strict=True)))
            for name in ("seconds", "mib")
        ]
        shown = ratios if way == OURS else ["", ""]
        rows.append([chunking, way, f"{medians[0]:.2f}", f"{medians[1]:.0f}", f"{arrays[way]:.0f}", *shown])
    return rows


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
