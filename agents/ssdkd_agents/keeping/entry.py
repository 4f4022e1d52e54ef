"""From a run to an entry of a folder of results: its lines compressed, what shows them, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssdkd_agents.archives import compress, read_content
from ssdkd_agents.keeping.index import readme, shown, write_readme
from ssdkd_agents.keeping.manifest import (
    MANIFEST,
    Experiment,
    check_name,
    fingerprint,
    lines_file,
    read_manifest,
    write_manifest,
)
from ssdkd_agents.keeping.portable import portable, portable_lines
from ssdkd_agents.lines import parse_lines
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically
from ssdkd_env.reading import read_bytes as read_file
from ssdkd_env.reading import read_json

CONFIG, COMMAND, MACHINE, TABLE = "config.json", "command.txt", "machine.json", "table.md"
#: What the names of files end in that are text.
TEXTS = (".csv", ".json", ".md", ".txt")
MACHINE_KEYS = ("cpu", "cores", "system", "device", "torch_threads")

Facts = dict[str, Any]


@dataclass(frozen=True)
class Played:
    """What is to be kept.

    Attributes:
        run: folder of a run, or the lines file of a measurement, beside which its tables and pictures lie.
        lines: name of the lines file in a folder.
        files: names of tables and pictures to keep with it.
        unfinished: whether more lines are to come.
        said: fields of `Experiment` that the run does not say itself; None where they are left open.
        root: paths below this folder are kept relative to it, unless the run is unfinished and goes on with them.
    """

    run: Path
    lines: str = "results.jsonl"
    files: Sequence[str] = ()
    unfinished: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)
    root: Path = Path()

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.run if self.run.is_dir() else self.run.parent

    @property
    def lines_path(self) -> Path:
        """Its lines."""
        return self.run / self.lines if self.run.is_dir() else self.run


def keep(played: Played, name: str, into: Path, overwrite: bool = False) -> Experiment:
    """Make a run an entry of a folder of results.

    Everything is read and checked before anything is written; each file is written whole or not at all, the manifest
    after the files that it lists, and files of an earlier entry of this name are deleted last.

    Args:
        played: what to keep.
        name: of the experiment; its files begin with it.
        into: the folder.
        overwrite: whether an experiment of this name, or files of its names, may be replaced.

    Returns:
        The entry as it stands in the manifest.

    Raises:
        InvalidInputError: when something is missing or damaged, or would be overwritten.
    """
    check_name("name", name)
    manifest = read_manifest(into)
    earlier = manifest.get(name)
    contents, experiment = _read(played, name, earlier)
    _check_free(into, name, contents, manifest, overwrite)
    manifest = shown(into, manifest | {name: experiment})
    readme(into, manifest)  # refuses one without a place for the table, before anything is written
    for file, content in contents.items():
        _write(into / file, content)
    write_manifest(into, manifest)
    write_readme(into, manifest)
    for file in set(earlier.files if earlier else ()) - set(contents):
        (into / file).unlink(missing_ok=True)
    return manifest[name]


def _read(played: Played, name: str, earlier: Experiment | None) -> tuple[dict[str, bytes], Experiment]:
    """Files to write by name, and the entry."""
    lines = read_content(played.lines_path)
    parsed = parse_lines(lines, played.lines_path)
    if not parsed:
        raise InvalidInputError(f"{played.lines_path} holds no line; keep a run that has played something")
    if not played.unfinished:
        lines = portable_lines(lines, played.lines_path, played.root)
    contents = {lines_file(name, played.unfinished): lines if played.unfinished else compress(lines)}
    goes_on = played.unfinished and played.run.is_dir() and CONFIG not in played.files
    for file in [*played.files, *[CONFIG] * goes_on]:
        kept = kept_name(name, file, played.lines_path)
        if Path(file).name != file or kept in contents:
            raise InvalidInputError(f"files={file!r}: expected names of files in {played.folder}, each once")
        contents[kept] = _content(played, file)
    count, sha256 = fingerprint(lines)
    known = facts(parsed, played.folder if played.run.is_dir() else None)
    known |= {key: value for key, value in played.said.items() if value is not None}
    if known["command"] is not None:
        known["command"] = portable(known["command"], played.root)
    if earlier is not None:
        known = _from_earlier(earlier, known)
    files: dict[str, list[str]] = {file: [] for file in sorted(contents)}
    return contents, Experiment(**known, lines=count, sha256=sha256, unfinished=played.unfinished, files=files)


def _content(played: Played, file: str) -> bytes:
    """A file of a run as it is kept."""
    content = read_bytes(played.folder / file)
    if played.unfinished or Path(file).suffix not in TEXTS:
        return content
    return portable(content.decode(errors="surrogateescape"), played.root).encode(errors="surrogateescape")


def kept_name(name: str, file: str, lines: Path) -> str:
    """How a run's file is called in a folder of results.

    `table.md` of a folder and what is called like the lines of a measurement get the experiment's name in place of
    theirs (`plans.txt`, `plans-validity.png` beside `plans.jsonl`); to others it is put in front.
    """
    if file == TABLE:
        return f"{name}{Path(file).suffix}"
    own = lines.name.partition(".")[0]
    rest = file.removeprefix(own)
    return f"{name}{rest}" if rest != file and rest[:1] in (".", "-") else f"{name}-{file}"


def facts(lines: Sequence[Mapping[str, Any]], folder: Path | None) -> Facts:
    """What a run says of itself, in its lines or else in its folder; None where it does not.

    Args:
        lines: of the run.
        folder: with `config.json`, `command.txt` and `machine.json`, as far as there are any.
    """
    said = [*lines, *_inside(lines, "settings")]
    config, machine = ({} if folder is None else _object(folder / file) for file in (CONFIG, MACHINE))
    settings = [config, *_inside([config], "plan")]
    parts = {key: machine[key] for key in MACHINE_KEYS if key in machine}
    return {
        "about": None,
        "command": None if folder is None else _command(folder / COMMAND),
        "commits": None,
        "sources": _distinct(_sources(said)) or _distinct(_sources(settings)),
        "environments": _distinct(_environments(said)) or _distinct(_environments(settings)),
        "seeds": sorted({line["seed"] for line in lines if isinstance(line.get("seed"), int)}) or None,
        "machines": _distinct(_inside(lines, "machine")) or ([parts] if parts else None),
    }


def _inside(said: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """The objects that stand under a key."""
    return [line[key] for line in said if isinstance(line.get(key), Mapping)]


def _sources(said: Iterable[Mapping[str, Any]]) -> list[str]:
    return [versions["source"] for versions in _inside(said, "versions") if isinstance(versions.get("source"), str)]


def _environments(said: Iterable[Mapping[str, Any]]) -> list[str]:
    ids = [line.get("env_id", line.get("env")) for line in said]
    return [id for id in ids if isinstance(id, str)]


def _distinct(values: Iterable[Any]) -> list[Any] | None:
    """Values in the order of their JSON, each once; None where there are none."""
    found = {json.dumps(value, sort_keys=True): value for value in values}
    return [found[text] for text in sorted(found)] or None


def _command(path: Path) -> str | None:
    return (read_bytes(path).decode(errors="replace").strip() or None) if path.exists() else None


def _from_earlier(earlier: Experiment, known: Facts) -> Facts:
    """What an entry said of the same experiment; command and commits hold for the same source alone."""
    lasting = ("about", "command", "commits") if earlier.sources == known["sources"] else ("about",)
    return known | {key: getattr(earlier, key) for key in lasting if known[key] is None}


def _check_free(
    into: Path, name: str, contents: Iterable[str], manifest: Mapping[str, Experiment], overwrite: bool
) -> None:
    """Refuse to write over what is there, unasked or of another experiment."""
    for other, experiment in manifest.items():
        taken = sorted(set(contents) & set(experiment.files)) if other != name else []
        if taken:
            raise InvalidInputError(f"name={name!r}: {taken[0]} is a file of {other}; choose another name")
    there = [MANIFEST] if name in manifest else [file for file in contents if (into / file).exists()]
    if there and not overwrite:
        raise InvalidInputError(
            f"name={name!r} is in {into / there[0]} already; choose another name, or replace it with --overwrite"
        )


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        InvalidInputError: when it cannot be read.
    """
    try:
        return read_file(path)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}; give a file that the run has") from error


def _object(path: Path) -> Mapping[str, Any]:
    value = read_json(path) if path.exists() else {}
    return value if isinstance(value, Mapping) else {}


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
