"""Files are written whole or not at all, and nothing read from someone else is unpickled."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssdkd_env.errors import InvalidInputError


def cache_folder() -> Path:
    """Where probe sets and decoded images are kept: `SSDKD_CACHE`, else `~/.cache/ssdkd_env`."""
    chosen = os.environ.get("SSDKD_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ssdkd_env"


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename: readers never see half a file.

    Raises:
        InvalidInputError: when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}; choose a folder that you may write") from error
    temporary = Path(name)
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise InvalidInputError(
            f"cannot write {path}: {error.strerror or error}; free or choose another disk"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InvalidInputError: when it is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInputError(f"{path} is not valid JSON ({error}); was it cut short?") from error


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Save nested dicts, lists and tuples of tensors and JSON values as one safetensors file, atomically.

    Tensors lie in the file as they are; the structure around them is JSON in the file's header.
    """
    tensors: dict[str, Any] = {}
    structure = json.dumps(_flatten(state, tensors))
    save_tensors(path, tensors, {"structure": structure})


def save_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as a safetensors file, atomically.

    Each is copied first, because safetensors refuses tensors that share memory or are not contiguous.
    """
    import torch
    from safetensors.torch import save

    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = save(copies, metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def load_state(path: str | Path) -> Any:
    """Load what `save_state` wrote; tensors arrive on the CPU, tuples as tuples.

    Raises:
        InvalidInputError: when the file is missing, cut short, or was not written by `save_state`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            structure = (file.metadata() or {}).get("structure")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iteration protocol)
    except (OSError, SafetensorError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}; was it cut short?") from error
    if structure is None:
        raise InvalidInputError(f"{path} holds tensors but no saved state; expected a file written by save_state")
    try:
        return _unflatten(json.loads(structure), tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} holds no state that save_state wrote") from error


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
