"""What lines of results of a stranger may hold, and a folder of results."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from laboratory.specimens import DEEP, ESCAPES, HUGE, Make, Specimen, Words, holding, out, pipe, put, replaced
from laboratory.specimens_of_settings import SETTINGS, SPELLINGS


def of_results() -> Iterator[Specimen]:
    """All of them."""
    for table in (_results, _long, _benchmarks, _manifests):
        yield from table()


def _results() -> Iterator[Specimen]:
    """Lines of results, replayed, compared, ranked and drawn."""

    def using(command: str) -> Words:
        def words(copy: Path) -> list[str]:
            lines = str(copy / "results.jsonl")
            return {
                "replay": ["results", "replay", "--results", lines],
                "compare": ["results", "compare", "--results", lines, "--against", "paper", *out(copy)],
                "rank": ["results", "rank", "--results", lines, *out(copy)],
                "policy": ["results", "policy", "--results", lines, "--out", str(copy / "p.png")],
            }[command]

        return words

    changes: dict[str, tuple[str, Any]] = (
        SETTINGS
        | SPELLINGS
        | {
            "a module as sampler": ("sampler", "stranger:Sampler"),
            "a module as method": ("env_kwargs.method", "stranger:Method"),
            "a billion rounds": ("env_kwargs.budget.rounds", HUGE),
            "a billion candidates": ("env_kwargs.budget.candidates", HUGE),
            "a buffer of a billion images": ("env_kwargs.budget.buffer_capacity", HUGE),
            "minibatches of a billion": ("env_kwargs.budget.batch_size", HUGE),
            "an observation of a billion steps": ("env_kwargs.history", HUGE),
            "a billion threads": ("machine.torch_threads", HUGE),
            "threads of text": ("machine.torch_threads", "all"),
            "text as machine": ("machine", "mine"),
            "a seed of 80 bits": ("seed", 2**80),
            "a negative seed": ("seed", -1),
            "text as actions": ("actions", ["left"]),
            "objects as actions": ("actions", [{"a": 1}]),
            "text as curve": ("curve", "up"),
            "text as precision": ("precision", "high"),
        }
    )
    for holds, (path, value) in changes.items():
        yield Specimen("results, replayed", holds, _line(path, value, using("replay")))
    for holds in ("a module in env_id", "an import path in env_kwargs", "a data set of the network in env_kwargs"):
        path, value = SETTINGS[holds]
        yield Specimen("results, policy", holds, _line(path, value, using("policy")))
    for command in ("compare", "rank", "policy"):
        for holds, path, value in (
            ("escapes in a name", "group", ESCAPES),
            ("text as return", "return", "much"),
            ("text as final", "final", "good"),
            ("text as a score", "final.probe_agreement", "high"),
            ("text as curve", "curve", "up"),
            ("text as actions", "actions", ["left"]),
            ("text as seconds", "seconds", {"wall": "long"}),
        ):
            yield Specimen(f"results, {command}", holds, _line(path, value, using(command)))
    for holds, content in (
        ("nesting without end", DEEP.encode() + b"\n"),
        ("a number", b"7\n"),
        ("bytes that are no text", b'{"a": "\xff\xfe"}\n'),
    ):
        yield Specimen("results, replayed", holds, replaced("evaluate", "results.jsonl", content, using("replay")))
    bomb = gzip.compress(bytes(400_000_000), compresslevel=1)
    yield Specimen(
        "results, replayed",
        "400 MB of zeros, compressed",
        holding("r.jsonl.gz", bomb, lambda path: ["results", "replay", "--results", str(path)]),
    )
    yield Specimen(
        "results, replayed",
        "a named pipe",
        pipe("r.jsonl", lambda path: ["results", "replay", "--results", str(path)]),
    )


def _long() -> Iterator[Specimen]:
    """Files of results that are long in some direction."""

    def reading(path: Path) -> list[str]:
        return ["results", "compare", "--results", str(path), "--against", "paper", *out(path.parent)]

    for holds, content in {
        "a line of 60 MB": b'{"a": "' + b"x" * 60_000_000 + b'"}\n',
        "a line of five million objects": b'{"a": [' + b"{}," * 5_000_000 + b"{}]}\n",
        "300 MB of blank lines": b"\n" * 300_000_000,
    }.items():
        yield Specimen("results, compared", holds, holding("r.jsonl", content, reading))
    lists = b'{"a": [' + b"[]," * 5_000_000 + b"[]]}\n"
    packed = gzip.compress(lists * 10, compresslevel=1)
    yield Specimen("results, compared", "fifty million lists, compressed", holding("r.jsonl.gz", packed, reading))
    for holds, change in {
        "a curve of a million objects": lambda line: put(line, "curve", {"accuracy": [{}] * 10**6}),
        "a million actions that are none": lambda line: put(line, "actions", [[]] * 10**6),
        "as many classes as images": lambda line: put(line, "distributions.class_counts", [1.0] * 10**5),
    }.items():
        yield Specimen("benchmark run", holds, _benchmark_line(change))


def _benchmarks() -> Iterator[Specimen]:
    """Lines of a benchmark that lack what its table and pictures say, or have it of other kinds."""
    for name in ("label", "distributions", "curve", "seconds", "machine", "versions", "peak_memory_mib"):
        yield Specimen("benchmark run", f"a line without {name}", _benchmark_line(partial(_without, name=name)))
    for holds, path, value in (
        ("text as class counts", "distributions.class_counts", ["many"]),
        ("no number as class counts", "distributions.class_counts", [math.nan] * 10),
        ("other classes in one line", "distributions.class_counts", [1.0]),
        ("a curve of one point, of another of three", "curve.seconds", [1.0]),
        ("null as divergence", "final.diverged", None),
        ("escapes as processor", "machine.cpu", ESCAPES),
        ("text as memory", "peak_memory_mib", "much"),
    ):
        yield Specimen("benchmark run", holds, _benchmark_line(partial(put, path=path, new=value)))


def _resume(run: Path) -> list[str]:
    return ["benchmark", "--out", str(run), "--resume"]


def _without(line: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != name}


def _benchmark_line(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Make:
    """A benchmark with a changed line, resumed."""
    return _first_line("benchmark", change, _resume)


def _first_line(kind: str, change: Callable[[dict[str, Any]], dict[str, Any]], words: Words) -> Make:
    """A copy of a sound run whose first line is changed, as by hand."""

    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        copy = folder / "run"
        shutil.copytree(runs[kind], copy)
        first, *others = (copy / "results.jsonl").read_text().splitlines(keepends=True)
        line = json.loads(first)
        line.pop("crc32", None)
        (copy / "results.jsonl").write_text("".join((json.dumps(change(line)) + "\n", *others)))
        return words(copy)

    return make


def _line(path: str, value: Any, words: Words) -> Make:
    """A copy of an evaluation with one entry of its line changed."""
    return _first_line("evaluate", partial(put, path=path, new=value), words)


def _manifests() -> Iterator[Specimen]:
    """A folder of results."""
    for holds, content in (
        ("nesting without end", DEEP.encode()),
        ("a number", b"7"),
        ("an entry of text", b'{"entries": {"a": "b"}}'),
        ("files outside the folder", b'{"a": {"files": {"../../x": "0"}}}'),
    ):
        yield Specimen(
            "manifest of results",
            holds,
            holding("manifest.json", content, lambda path: ["results", "index", "--into", str(path.parent)]),
        )
