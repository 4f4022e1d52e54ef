"""The manifest of a folder of results: what was played, by which command, and the hash of its lines."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ssdkd_agents.archives import ENDING, read_content
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically
from ssdkd_env.reading import conform, read_json

MANIFEST, README = "manifest.json", "README.md"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Experiment:
    """What one command gave. None where something is not known.

    Attributes:
        about: what it shows, in a line.
        command: as it was typed.
        commits: that play it.
        sources: hashes of the source that played it, as in its lines (`runs.source_digest`).
        environments: ids, or the version of the engine alone where no environment was played.
        seeds: of its episodes.
        machines: as in its lines (`machine.machine`).
        lines: how many.
        sha256: of its lines, uncompressed.
        unfinished: whether lines are to come; they lie uncompressed then, beside the configuration to go on with.
        files: of the experiment → documents that show it.
    """

    about: str | None
    command: str | None
    commits: list[str] | None
    sources: list[str] | None
    environments: list[str] | None
    seeds: list[int] | None
    machines: list[dict[str, Any]] | None
    lines: int
    sha256: str
    unfinished: bool
    files: dict[str, list[str]]


Manifest = Mapping[str, Experiment]


def check_name(argument: str, name: str) -> None:
    """Refuse what is no name of an experiment, whose files begin with it.

    Raises:
        InvalidInputError: when it is not of small letters, digits and hyphens.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{argument}={name!r}: expected small letters, digits and hyphens, such as digits-ablation"
        )


def lines_file(name: str, unfinished: bool) -> str:
    """Name of the file of an experiment's lines."""
    return f"{name}.jsonl" if unfinished else f"{name}.jsonl{ENDING}"


def fingerprint(content: bytes) -> tuple[int, str]:
    """How many lines a file has, and the SHA-256 of its bytes."""
    return sum(1 for line in content.splitlines() if line.strip()), hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> dict[str, Experiment]:
    """The experiments of a folder by name; none where it has no manifest yet.

    Raises:
        InvalidInputError: when the manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path} is no manifest: expected an object of experiments; take it from the history")
    return {name: _experiment(name, value, path) for name, value in content.items()}


def _experiment(name: str, value: Any, path: Path) -> Experiment:
    where = f"{path}, {name!r}"
    check_name(where, name)
    names = {each.name for each in fields(Experiment)}
    if not isinstance(value, dict) or set(value) != names:
        raise InvalidInputError(f"{where}: expected {', '.join(sorted(names))} and nothing else; keep it anew")
    made = conform(value, Experiment, where, "mend it, or keep the experiment anew")
    for file in made.files:  # plain names, because files are deleted by them
        if Path(file).name != file or file in (MANIFEST, README):
            raise InvalidInputError(f"{where}: files cannot have {file!r}; mend it, or keep the experiment anew")
    return made


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, atomically: sorted, and a line for each thing known, so that differences are readable."""
    blocks = []
    for name in sorted(manifest):
        known = sorted(asdict(manifest[name]).items())
        inside = ",\n".join(
            f'    "{key}": {json.dumps(value, sort_keys=True, ensure_ascii=False)}' for key, value in known
        )
        blocks.append(f'  "{name}": {{\n{inside}\n  }}')
    content = "{\n" + ",\n".join(blocks) + "\n}\n"
    write_atomically(folder / MANIFEST, lambda temporary: temporary.write_bytes(content.encode()))


def damages(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is wrong with a folder, a line each: files without an entry or the reverse, and lines that were changed."""
    listed = Counter(file for experiment in manifest.values() for file in experiment.files)
    present = {path.name for path in folder.iterdir()} - {MANIFEST, README}
    for file in sorted(present - set(listed)):
        yield f"{file} is in no experiment of {MANIFEST}; keep it with ssdkd results keep, or delete it"
    for file in sorted(set(listed) - present):
        yield f"{file} is in {MANIFEST} and not in {folder}; take it from the history, or keep its experiment anew"
    for file in sorted(file for file, count in listed.items() if count > 1):
        yield f"{file} is in several experiments of {MANIFEST}; leave it in one"
    for name, experiment in sorted(manifest.items()):
        yield from _changes(folder, name, experiment)


def _changes(folder: Path, name: str, experiment: Experiment) -> Iterator[str]:
    """How an experiment's lines differ from what its entry says of them."""
    file = lines_file(name, experiment.unfinished)
    if file not in experiment.files:
        yield f"{name} has no {file} in {MANIFEST}; keep it anew"
    elif (folder / file).exists():
        try:
            found = fingerprint(read_content(folder / file))
        except InvalidInputError as error:
            yield str(error)
        else:
            if found != (experiment.lines, experiment.sha256):
                yield f"{file} has other lines than {MANIFEST} says; take it from the history, or keep it anew"
