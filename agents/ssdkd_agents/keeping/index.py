"""What is made of a manifest: which documents show a file, and the table of experiments in the folder's README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from ssdkd_agents.analysis.markdown import Markup, escaped, markdown_table
from ssdkd_agents.keeping.manifest import README, Experiment, Manifest, damages
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically
from ssdkd_env.reading import read_text

#: Between these lines of the README lies the table; the rest of it is written by hand.
BEGIN, END = "<!-- experiments: written by ssdkd results index -->", "<!-- end of experiments -->"
COLUMNS = ("experiment", "what", "command", "commit", "environment", "seeds", "machine", "lines", "shown in")
PICTURE = ".png"
UNKNOWN = "–"


def documents_of(folder: Path) -> dict[str, str]:
    """The documents that may show results: README and docs/**/*.md beside the folder, by their path from there."""
    root = folder.resolve().parent
    paths = [path for path in (root / "README.md", *sorted(root.glob("docs/**/*.md"))) if path.is_file()]
    return {path.relative_to(root).as_posix(): read_text(path) for path in paths}


def shown(folder: Path, manifest: Manifest) -> dict[str, Experiment]:
    """The manifest with what shows each file now: a link to a picture, or the name of an experiment in backticks."""
    documents = documents_of(folder)

    def showing(words: Iterable[str]) -> list[str]:
        return [path for path, text in documents.items() if any(word in text for word in words)]

    def files(name: str, experiment: Experiment) -> dict[str, list[str]]:
        link = f"{folder.resolve().name}/{{}})"
        return {
            file: showing([link.format(file)] if file.endswith(PICTURE) else [f"`{name}`", f"`{file}`"])
            for file in sorted(experiment.files)
        }

    return {name: replace(experiment, files=files(name, experiment)) for name, experiment in manifest.items()}


def problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is wrong with a folder, a line each: damages, what is out of date, and what no document shows."""
    yield from damages(folder, manifest)
    now = shown(folder, manifest)
    for name in sorted(manifest):
        if now[name].files != manifest[name].files:
            yield f"{name}: other documents show it than the manifest says; run ssdkd results index"
        for file, documents in now[name].files.items():
            if not documents:
                yield f"{file} is shown by no document; link it if it is a picture, else name `{name}`, or delete it"
    if readme(folder, manifest) != _text_of(folder):
        yield f"{folder / README} is not what the manifest gives; run ssdkd results index"


def write_readme(folder: Path, manifest: Manifest) -> None:
    """Write the table of experiments into the README, atomically; what stands around it is left.

    Raises:
        InvalidInputError: when there is a README without a place for the table.
    """
    content = readme(folder, manifest)
    write_atomically(folder / README, lambda temporary: temporary.write_bytes(content.encode()))


def readme(folder: Path, manifest: Manifest) -> str:
    """The README with the table of experiments.

    Raises:
        InvalidInputError: when it has no place for it.
    """
    before, begin, rest = _text_of(folder).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InvalidInputError(f"{folder / README} has no place for the table; add the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(manifest)}\n\n{END}{after}"


def _text_of(folder: Path) -> str:
    path = folder / README
    return read_text(path) if path.exists() else f"# Results\n\n{BEGIN}\n{END}\n"


def table(manifest: Manifest) -> str:
    """A row for each experiment, those of the latest environments first."""
    names = sorted(manifest, key=lambda name: (-_version(manifest[name]), name))
    return markdown_table(COLUMNS, (_row(name, manifest[name]) for name in names))


def _version(experiment: Experiment) -> int:
    """The N of the last `vN` among its environments; -1 where none is known."""
    found = [int(number) for id in experiment.environments or () for number in re.findall(r"v(\d{1,9})$", id)]
    return max(found, default=-1)


def _row(name: str, experiment: Experiment) -> Sequence[str]:
    documents = dict.fromkeys(path for shown_by in experiment.files.values() for path in shown_by)
    return (
        f"`{name}`" + (", **unfinished**" if experiment.unfinished else ""),
        experiment.about or UNKNOWN,
        f"`{experiment.command}`" if experiment.command else UNKNOWN,
        _joined(f"`{commit}`" for commit in experiment.commits or ()),
        _joined(experiment.environments or ()),
        _joined(ranges(experiment.seeds or ())),
        _joined(dict.fromkeys(map(_machine, experiment.machines or ()))),
        str(experiment.lines),
        Markup(_joined(f"[{escaped(path)}](../{escaped(path)})" for path in documents)),
    )


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words) or UNKNOWN


def _machine(machine: Mapping[str, object]) -> str:
    """Its processor and cores, and its accelerator where it has one."""
    device = machine.get("device", "cpu")
    return f"{machine.get('cpu', UNKNOWN)}, {machine.get('cores', UNKNOWN)} cores" + f", {device}" * (device != "cpu")


def ranges(numbers: Iterable[int]) -> list[str]:
    """Ascending numbers, neighbours put together: [1, 2, 3, 7] → ["1–3", "7"]."""
    ordered = sorted(set(numbers))
    runs = groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])
    found = [[number for _, number in run] for _, run in runs]
    return [f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in found]
