"""Files are written whole or not at all, and nothing read from someone else is unpickled."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import check_regular, read_start


def cache_folder() -> Path:
    """Where probe sets and decoded images are kept: `SSDKD_CACHE`, else `~/.cache/ssdkd_env`."""
    chosen = os.environ.get("SSDKD_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ssdkd_env"


#: What the names of temporary files begin with; a process that is killed leaves them.
_TEMPORARY = ".ssdkd-"


def is_temporary(path: Path) -> bool:
    """Whether a file is one of `write_atomically` that was not finished."""
    return path.name.startswith(_TEMPORARY)


def sweep_temporaries(folder: Path) -> None:
    """Delete what killed processes have left half written in a folder and below it, where nobody else may write."""
    for path in folder.rglob(f"{_TEMPORARY}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename: readers never see half a file.

    The content is on the disk before the name is: a machine that loses its power leaves the old file or the new one.

    Raises:
        InvalidInputError: when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_TEMPORARY}{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        _synchronize(temporary)
        os.replace(temporary, path)
        _synchronize(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def is_full(error: BaseException | None) -> bool:
    """Whether there was no room for what was to be written."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unwritable(path: str | Path, error: OSError) -> InvalidInputError:
    """What to say of a file or folder that cannot be written."""
    remedy = "free some space, or choose another disk" if is_full(error) else "choose a folder that you may write"
    return InvalidInputError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def _synchronize(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # a folder cannot be opened there, and its names are written with the file
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def keep_if_possible(write: Callable[[], object], otherwise: str) -> None:
    """Write into the cache folder, or warn where that cannot be done: what is kept there can be made anew.

    Args:
        write: does it.
        otherwise: what then happens in every process.
    """
    try:
        write()
    except InvalidInputError as error:
        warnings.warn(
            f"{otherwise} in every process: {error} (set SSDKD_CACHE to such a folder)",
            stacklevel=3,
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(value, indent=2) + "\n"))


#: Bytes that are read of a file at a time.
_CHUNK = 2**20


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal."""
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Save nested dicts, lists and tuples of tensors and JSON values as one safetensors file, atomically.

    Tensors lie in the file as they are; the structure around them is JSON in the file's header.
    """
    tensors: dict[str, Any] = {}
    structure = json.dumps(_flatten(state, tensors))
    copies = _contiguous(tensors)
    # One entry, because the order of several in the file is another one in each process.
    _write_tensors(path, copies, {"structure": f"{_digest(structure, copies)} {structure}"})


def save_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as a safetensors file, atomically.

    Args:
        path: of the file.
        tensors: by name.
        metadata: text for the file's header, of one entry: the order of several is another one in each process.
    """
    _write_tensors(path, _contiguous(tensors), metadata)


def _write_tensors(path: str | Path, tensors: dict[str, Any], metadata: dict[str, str] | None) -> None:
    from safetensors.torch import save

    content = save(tensors, metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _contiguous(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Copies on the CPU: safetensors refuses tensors that share memory or are not contiguous."""
    import torch

    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


#: Hexadecimal digits of a digest.
_DIGITS = 64


def _digest(structure: str, tensors: Mapping[str, Any]) -> str:
    """SHA-256 of what a state file holds: its structure, and each tensor's name, type, shape and numbers."""
    import torch

    digest = hashlib.sha256(structure.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_tensors(path: str | Path, names: Collection[str] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors of a safetensors file by name, on the CPU, and the text of its header.

    Args:
        path: of the file.
        names: of those that are read, if they are there; None for all.

    Raises:
        InvalidInputError: when the file is missing, no regular file, none of this kind or cut short.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    try:
        read_start(path, str(path))
        with safe_open(path, framework="pt") as file:
            there = [name for name in file.keys() if names is None or name in names]  # noqa: SIM118 (no iteration)
            return {name: file.get_tensor(name) for name in there}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}; was it cut short?") from error


def load_state(path: str | Path) -> Any:
    """Load what `save_state` wrote; tensors arrive on the CPU, tuples as tuples.

    Raises:
        InvalidInputError: when the file is missing, none, cut short or changed since, or was not written by
            `save_state`.
    """
    tensors, metadata = load_tensors(path)
    digest, _, structure = metadata.get("structure", "").partition(" ")
    if len(digest) != _DIGITS:
        raise InvalidInputError(
            f"{path} holds tensors but no saved state of this version; expected a file that save_state wrote"
        )
    if digest != _digest(structure, tensors):
        raise InvalidInputError(f"{path} was damaged since it was written; make it anew, or fetch another copy")
    try:
        return _unflatten(json.loads(structure), tensors)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"{path} holds no state that save_state wrote; get another copy") from error


def _flatten(value: Any, tensors: dict[str, Any]) -> Any:
    """Encode containers as tagged JSON lists (dict keys may be integers) and move tensors aside."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[name := f"t{len(tensors)}"] = value
        return ["tensor", name]
    if isinstance(value, Mapping):
        return ["dict", [[key, _flatten(item, tensors)] for key, item in value.items()]]
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", [_flatten(item, tensors) for item in value]]
    if value is None or isinstance(value, (bool, int, float, str)):
        return ["value", value]
    raise TypeError(f"cannot save a {type(value).__name__} in a state file")


def _unflatten(node: Any, tensors: dict[str, Any]) -> Any:
    kind, content = node
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unflatten(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_unflatten(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return content
