"""A folder belongs to the process that writes it, until that ends, however it ends.

The lock is the system's, on a file in the folder: a process that is killed has let go of it. That is why the file may
stay, and why it is no sign of an owner.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import sweep_temporaries, unwritable

#: The file whose lock is the folder's; it holds the owner's host and process number.
LOCK = ".lock"

#: Folders of this process.
_owned: dict[Path, FileLock] = {}


def own(folder: str | Path) -> None:
    """Make this process the owner of a folder, which is made where there is none, until `release` or its end.

    What earlier owners have left half written is removed. A process may ask again for what it owns.

    Raises:
        InvalidInputError: when another process owns it, or it cannot be written.
    """
    path = Path(os.path.realpath(folder))
    if path in _owned and (path / LOCK).exists():
        return
    release(path)  # of a folder that was deleted since
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK, timeout=0, thread_local=False)
        lock.acquire()
        (path / LOCK).write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
    except Timeout as error:
        raise InvalidInputError(
            f"out={str(folder)!r} is being written by {_owner(path)}; wait for it to end, or choose another folder"
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    except NotImplementedError as error:
        raise InvalidInputError(f"cannot write {folder}: {error}; choose a folder on another disk") from error
    _owned[path] = lock
    sweep_temporaries(path)


def release(folder: str | Path) -> None:
    """Let another process own a folder; nothing happens where this one does not."""
    lock = _owned.pop(Path(os.path.realpath(folder)), None)
    if lock is not None:
        lock.release()


def release_all() -> None:
    """`release` every folder of this process."""
    for folder in [*_owned]:
        release(folder)


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / LOCK).read_text())
        return f"process {int(owner['process'])} on {str(owner['host'])[:80]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
