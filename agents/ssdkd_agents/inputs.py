"""Files of the user's own that numbers depend on: known by what is in them, and found from any folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import ssdkd_env
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import file_digest

#: What comes with the package belongs to its version.
_OURS = Path(str(ssdkd_env.__file__)).parent
#: Bytes of a file beyond which, as of all files in folders, its size stands for what is in it.
_MOST_BYTES = 2**32
#: Digits of a digest that are shown.
SHOWN = 12


def absolute(name: str) -> str:
    """A path that means the same from any folder; what names nothing that is there, such as a name, stays as it is."""
    path = os.path.expanduser(name)
    return os.path.abspath(path) if os.path.exists(path) else name


def inputs_of(env: SSDKDEnv) -> dict[str, str]:
    """The files that an environment has read: weights of teachers, their cards, and images to measure on.

    Returns:
        Absolute path → SHA-256; of a folder it is of names and sizes. Those that come with the package are left out.
    """
    teachers = [task.spec.teacher_weights for task in env.instances.tasks]
    cards = [str(Path(weights).with_suffix(".json")) for weights in teachers if weights]
    return digests([*teachers, *cards, env.settings.evaluation or ""])


def digests(names: Iterable[str]) -> dict[str, str]:
    """Absolute path → SHA-256 of each of these files and folders that is there and not the package's."""
    paths = sorted({Path(absolute(name)) for name in names if name and os.path.exists(os.path.expanduser(name))})
    return {str(path): _digest(path) for path in paths if not path.is_relative_to(_OURS)}


def check_inputs(recorded: Mapping[str, str], run: Path) -> None:
    """Refuse to go on with a run whose files are not what they were when it began.

    Args:
        recorded: by `inputs_of`, when it began; empty of runs of earlier versions.
        run: its folder, for the error message.

    Raises:
        InvalidInputError: at the first that is gone or was changed.
    """
    remedy = "put back what it was, on every machine that plays, or start anew in another folder"
    for path, digest in recorded.items():
        if not os.path.exists(path):
            raise InvalidInputError(f"{path}, with which {run} began, is not there any more; {remedy}")
        if (now := _digest(Path(path))) != digest:
            changed = f"SHA-256 {digest[:SHOWN]}, now {now[:SHOWN]}"
            raise InvalidInputError(f"{path} was changed since {run} began with it ({changed}); {remedy}")


def _digest(path: Path) -> str:
    found = path.stat()
    return _digest_of(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _digest_of(path: Path, changed: int, size: int) -> str:
    """Of what is in a file that was last changed at a time: a benchmark asks in every episode."""
    if path.is_file() and size <= _MOST_BYTES:
        return file_digest(path)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    sizes = [f"{file.relative_to(path)} {file.stat().st_size}\n" for file in files if file.is_file()]
    return hashlib.sha256("".join(sizes).encode()).hexdigest()
