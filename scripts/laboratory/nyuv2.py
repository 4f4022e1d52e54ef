"""A file in the layout of NYU Depth v2's labelled one, and reading it: our loader beside h5py alone."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from ssdkd_agents.machine import MIB, forget_peak_memory, peak_memory_mib

from ssdkd_env.tasks.data.nyuv2 import load_nyuv2
from ssdkd_env.tasks.data.nyuv2_classes import KNOWN_NAMES, NUM_NAMES, class_table, official_split

#: Chunks of HDF5 by name: images that one holds, and parts into which it divides each of their sides.
CHUNKS = {"an image a chunk": (1, 1), "tiles of eight images": (8, 4)}
SPLITS = ("train", "test")
OURS, ALONE = "load_nyuv2", "h5py alone"
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: a day HDF5 schema 1.00 ."

Pair = tuple[NDArray[np.uint8], NDArray[np.uint16]]


def official_names() -> list[str]:
    """The names that the loader checks at their places, and others between."""
    known = {number: name for name, number in KNOWN_NAMES.items()}
    return [known.get(number, f"thing {number}") for number in range(1, NUM_NAMES + 1)]


def write_labelled(
    path: Path, pairs: Iterable[Pair], count: int, size: tuple[int, int], chunks: tuple[int, int], names: Sequence[str]
) -> None:
    """Write images (3, H, W) uint8 and labels (H, W) uint16 as MATLAB 7.3 saves them.

    Args:
        path: to write.
        pairs: of image and label map.
        count: how many there are.
        size: (H, W).
        chunks: see `CHUNKS`.
        names: of the labels, references to cells of text.
    """
    together, parts = chunks
    sides = size[::-1]  # MATLAB's (row, column, …) is (…, column, row) in HDF5
    chunk = (min(together, count), *(-(-side // parts) for side in sides))
    with h5py.File(path, "w", userblock_size=512) as file:
        options = {"compression": "gzip", "compression_opts": 3}
        images = file.create_dataset(
            "images", (count, 3, *sides), np.uint8, chunks=(chunk[0], 3, *chunk[1:]), **options
        )
        labels = file.create_dataset("labels", (count, *sides), np.uint16, chunks=chunk, **options)
        for first, batch in _batches(pairs, together):
            images[first : first + len(batch)] = np.stack([np.swapaxes(image, -1, -2) for image, _ in batch])
            labels[first : first + len(batch)] = np.stack([label.T for _, label in batch])
        table = file.create_dataset("names", (1, len(names)), h5py.ref_dtype)
        for index, name in enumerate(names):
            text = np.array([[ord(letter)] for letter in name], dtype=np.uint16)
            table[0, index] = file.create_dataset(f"#refs#/{index}", data=text).ref
    with open(path, "r+b") as start:
        start.write(HEADER.ljust(512))


def _batches(pairs: Iterable[Pair], size: int) -> Iterator[tuple[int, list[Pair]]]:
    batch: list[Pair] = []
    first = 0
    for pair in pairs:
        batch.append(pair)
        if len(batch) == size:
            yield first, batch
            first, batch = first + size, []
    if batch:
        yield first, batch


def smooth_pairs(count: int, size: tuple[int, int]) -> Iterator[Pair]:
    """Images that compress about as photographs do, and label maps in blocks with every number of a name."""
    random = np.random.default_rng(0)
    height, width = size
    rows, columns = (np.arange(side) // 4 for side in size)
    blocks = np.arange(height)[:, None] // 16 * 41 + np.arange(width)[None] // 16
    for number in range(count):
        coarse = random.integers(0, 248, (3, rows[-1] + 1, columns[-1] + 1), dtype=np.uint8)
        noise = random.integers(0, 8, (3, height, width), dtype=np.uint8)
        yield coarse[:, rows][:, :, columns] + noise, ((blocks + number) % (NUM_NAMES + 1)).astype(np.uint16)


def read_in_process(way: str, path: Path) -> dict[str, Any]:
    """`read` in a process that has read nothing yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(read, way, path).result()


def read(way: str, path: Path) -> dict[str, Any]:
    """Read all images and label maps: with our loader, both splits, or the two arrays as they lie.

    Returns:
        `seconds` and `mib`, by which the peak of the memory is above what was there before, of the reading alone; and
        `digests` of images (N, 3, H, W) and classes (N, H, W) of both splits.
    """
    forget_peak_memory(torch.device("cpu"))
    before, started = peak_memory_mib(), time.perf_counter()
    if way == OURS:
        splits = [load_nyuv2("path", path, split) for split in SPLITS]
    else:
        with h5py.File(path, "r") as file:
            images, labels = file["images"][:], file["labels"][:]
    seconds, grown = time.perf_counter() - started, peak_memory_mib() - before
    if way == OURS:
        digests = [[_digest(part.numpy()) for part in split] for split in splits]
    else:
        table, digests = class_table(13), []
        for split in SPLITS:
            rows = [number - 1 for number in official_split(split)]
            pixels, ids = (np.swapaxes(array[rows], -1, -2) for array in (images, labels))
            digests.append([_digest(pixels), _digest(table[ids])])
    return {"way": way, "seconds": seconds, "mib": grown, "digests": digests}


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def arithmetic_mib(count: int, size: tuple[int, int]) -> dict[str, float]:
    """Way → MiB of the arrays that it returns."""
    pixels = count * size[0] * size[1]
    return {OURS: pixels * 4 / MIB, ALONE: pixels * 5 / MIB}
