"""Checkpoints of which the newest sound one is taken: what was damaged or exchanged since is noticed.

A checkpoint of one file (`files.save_state`, which has its own digest) stands beside the one before it. Of one with
several parts a manifest names the parts with their digests:

| file                        | holds                                                                         |
|-----------------------------|-------------------------------------------------------------------------------|
| `<steps>.manifest.json`     | run, steps, and each part's name and SHA-256; written last and deleted first  |
| `<steps>.…`                 | the parts: files, or folders of files                                         |
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import file_digest, load_state, save_state, write_json
from ssdkd_env.reading import read_json

_ENDING = ".manifest.json"


def previous(path: Path) -> Path:
    """Where the checkpoint before that in `path` is."""
    return path.with_suffix(f".previous{path.suffix}")


def save_beside_previous(path: Path, state: Mapping[str, Any]) -> None:
    """`save_state`, of which the file that was there before stays as the previous one."""
    if path.exists():
        os.replace(path, previous(path))
    save_state(path, state)


def load_newest(path: Path) -> Any:
    """What `save_beside_previous` wrote last; None where there is nothing yet.

    Raises:
        InvalidInputError: when there is something and none of it is sound.
    """
    faults = []
    for file in (path, previous(path)):
        if not file.exists():
            continue
        try:
            state = load_state(file)
        except InvalidInputError as error:
            faults.append(error)
            continue
        for fault in faults:
            warnings.warn(f"{fault}; going on from the checkpoint before", stacklevel=2)
        return state
    if faults:
        raise InvalidInputError(f"{faults[0]}; no other checkpoint is sound: start anew in another folder")
    return None


def write_manifest(folder: Path, steps: int, run: str) -> None:
    """Finish a checkpoint, all of whose parts have been written under names that begin with `<steps>.`."""
    parts = {str(path.relative_to(folder)): file_digest(path) for path in _files(folder, steps)}
    write_json(folder / f"{steps}{_ENDING}", {"run": run, "steps": steps, "parts": parts})


def newest_sound(folder: Path, run: str) -> int | None:
    """Steps of the newest checkpoint whose parts are all as they were written; None where there is no checkpoint.

    Newer ones that are not are named in warnings.

    Raises:
        InvalidInputError: when there are checkpoints and none is sound.
    """
    numbers = _numbers(folder)
    faults: list[str] = []
    for steps in numbers:
        fault = _fault(folder, steps, run)
        if fault is None:
            for passed in faults:
                warnings.warn(f"{passed}; going on from the checkpoint of {steps} steps", stacklevel=2)
            return steps
        faults.append(fault)
    if faults:
        raise InvalidInputError(f"{faults[0]}, and no other checkpoint is sound; start anew in another folder")
    return None


def forget_old(folder: Path, kept: int) -> None:
    """Delete all but the newest checkpoints, and parts of such as were cut short."""
    numbers = _numbers(folder)
    for steps in numbers[kept:]:
        (folder / f"{steps}{_ENDING}").unlink()
    for path in folder.iterdir():
        number = path.name.partition(".")[0]
        if is_number(number) and int(number) not in numbers[:kept]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_number(text: str) -> bool:
    """Whether text is a whole number as steps are written: `"²"` is a digit, too."""
    return text.isascii() and text.isdecimal() and len(text) < 20


def _numbers(folder: Path) -> list[int]:
    """Steps of the checkpoints that were finished, newest first."""
    names = (path.name.removesuffix(_ENDING) for path in folder.glob(f"*{_ENDING}"))
    return sorted((int(name) for name in names if is_number(name)), reverse=True)


def _fault(folder: Path, steps: int, run: str) -> str | None:
    """What is wrong with a checkpoint."""
    path = folder / f"{steps}{_ENDING}"
    try:
        manifest: Any = read_json(path)
        parts, of = manifest["parts"], (manifest["run"], manifest["steps"])
    except (InvalidInputError, KeyError, TypeError):
        return f"{path} is damaged"
    if of != (run, steps):
        return f"{path} is of another run or step"
    found = {str(file.relative_to(folder)): file for file in _files(folder, steps)}
    if not isinstance(parts, dict) or parts.keys() != found.keys():
        missing = sorted(parts.keys() ^ found.keys()) if isinstance(parts, dict) else ["its parts"]
        return f"{path} names other parts than there are ({missing[0]})"
    changed = [name for name, file in sorted(found.items()) if file_digest(file) != parts[name]]
    return f"{folder / changed[0]} was damaged or exchanged" if changed else None


def _files(folder: Path, steps: int) -> Iterator[Path]:
    for path in sorted(folder.glob(f"{steps}.*")):
        if path.name != f"{steps}{_ENDING}":
            yield from (file for file in sorted(path.rglob("*")) if file.is_file()) if path.is_dir() else (path,)
