"""Which files a sampler's name means, and what tells them from others: what is in them, not how they are called."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ssdkd_agents.inputs import absolute
from ssdkd_agents.manifests import is_number
from ssdkd_agents.policies.exported import POLICY, SETTINGS
from ssdkd_agents.runs import CONSTANT_FILE
from ssdkd_agents.samplers import RANDOM_REPLACEMENT_PREFIX, names_baseline
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import file_digest


def find_sampler_file(path: Path) -> Path:
    """The sampler file meant by a file, or by a folder: its constant plan, its settings, or its last checkpoint.

    Raises:
        InvalidInputError: when there is none.
    """
    if not path.is_dir():
        return path
    found = _file_of_folder(path)
    if found is None:
        if not (path / "config.json").is_file():
            raise InvalidInputError(f"{path} is no run; give the folder of a training, a search or an export itself")
        if (path / "trials").is_dir():
            raise InvalidInputError(f"{path} is a study; give one of its trainings, such as {path / 'trials' / '0'}")
        raise InvalidInputError(f"{path} holds no checkpoint yet; let ssdkd train run for longer")
    return found


def _file_of_folder(path: Path) -> Path | None:
    for name in (CONSTANT_FILE, SETTINGS):
        if (path / name).is_file():
            return path / name
    checkpoints = [file for file in (path / "checkpoints").glob("*.safetensors") if is_number(file.stem)]
    return max(checkpoints, key=lambda file: int(file.stem), default=None)


def sampler_file(name: str) -> Path | None:
    """The file of a trained sampler, or of the one that a baseline is made of; None for any other baseline.

    Raises:
        InvalidInputError: when `name` is a run folder without a checkpoint.
    """
    inner = name.removeprefix(RANDOM_REPLACEMENT_PREFIX)
    return None if names_baseline(inner) or not Path(inner).exists() else find_sampler_file(Path(inner))


def sampler_files(name: str) -> list[Path]:
    """Whatever a trained sampler is read from; nothing for a baseline.

    Raises:
        InvalidInputError: as `sampler_file`.
    """
    file = sampler_file(name)
    if file is None:
        return []
    return [file, file.with_name(POLICY)] if file.name == SETTINGS else [file]


def sampler_digest(name: str) -> str | None:
    """SHA-256 of a trained sampler's file, which may be overwritten under its name; None for a baseline.

    Of an exported one it is that of its two files' digests.
    """
    found = [file_digest(file) for file in sampler_files(name)]
    return hashlib.sha256("".join(found).encode()).hexdigest() if len(found) > 1 else next(iter(found), None)


def located(name: str) -> str:
    """A sampler's name that means the same from any folder: where it is a path, an absolute one."""
    inner = name.removeprefix(RANDOM_REPLACEMENT_PREFIX)
    return name if names_baseline(inner) or not inner else name.removesuffix(inner) + absolute(inner)


def content_of(name: str) -> str:
    """What a sampler is, however it is spelt: what is in its file, or the folder of a training that has none yet."""
    inner = name.removeprefix(RANDOM_REPLACEMENT_PREFIX)
    folder = Path(inner)
    if not names_baseline(inner) and folder.is_dir() and _file_of_folder(folder) is None:
        return name.removesuffix(inner) + str(folder.resolve())
    digest = sampler_digest(name)
    return name if digest is None else name.removesuffix(inner) + digest
