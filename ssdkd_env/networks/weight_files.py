"""Files of weights as they are in the wild: which tensors are in them, under which name. Nothing is run.

| in the file                                        | what is done                                           |
|----------------------------------------------------|--------------------------------------------------------|
| safetensors, under whatever name                   | recognised by its first bytes, and read                |
| PyTorch's zip or older format, NumPy numbers in it | read by PyTorch's reader that calls nothing            |
| a state dict inside dictionaries                   | found; of several, `CONTAINERS` come first             |
| averaged (EMA) weights beside the raw ones         | the raw ones are taken, the others named               |
| a pickle of protocol 4 or 5, TorchScript           | refused, with what it is and how to save it anew       |
| a Git-LFS pointer, a web page, no file of weights  | refused, with what it is, or begins with               |
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.reading import check_regular, check_unpacked, read_start

#: Keys under which training scripts keep the state dict beside an epoch, an accuracy or an optimiser's state; of
#: several that are there the first one is taken.
CONTAINERS = ("state_dict", "model", "net", "model_state_dict", "network", "params", "weights")
#: Words of a key: the weights under it are averages over the training (EMA, SWA).
_AVERAGES = {"ema", "swa", "avg", "average", "averaged"}
#: How deep in dictionaries a state dict is looked for.
_DEPTH = 3
_SAVE_ANEW = "save network.state_dict() alone, best as .safetensors"
#: First bytes of PyTorch's files: a zip archive, or a pickle of protocol 2 or later.
_OF_PYTORCH = (b"PK\x03\x04", b"\x80")


def read_weights(argument: str, path: str | Path, key: str = "") -> dict[str, Tensor]:
    """The named tensors in a file.

    Args:
        argument: name of the user's argument, for error messages.
        path: the file.
        key: under which the file keeps the weights wanted, where it has several; or "ema" for averaged ones, whatever
            their key. Empty takes those of `CONTAINERS`, and says so where there are others.

    Raises:
        InvalidInputError: when the file is missing, cut short, holds no weights, not those wanted, or is a pickle that
            wants to run code (it does not get to).
    """
    path = Path(path)
    where = f"{argument}={str(path)!r}"
    check_regular(path, where=where)
    if not path.exists():
        raise InvalidInputError(f"{where} does not exist; `ssdkd teacher` makes a teacher")
    return _chosen(where, _content(where, path), key)


def _content(where: str, path: Path) -> Any:
    """What is in the file, as tensors, numbers, text and containers of them."""
    try:
        start = read_start(path, where)
        if start[8:9] == b"{":  # safetensors, whose header's length comes first
            return load_file(path)
        if not start.startswith(_OF_PYTORCH):
            found = f"begins with {start[:4]!r}, as neither" if start else "is empty, neither"
            raise InvalidInputError(
                f"{where} {found} safetensors nor a file of torch.save: it is cut short, compressed or no file of "
                "weights; get another copy, or unpack it"
            )
        if zipfile.is_zipfile(path):
            _check_archive(where, path)
        with torch.serialization.safe_globals(_NUMPY), warnings.catch_warnings(), path.open("rb") as file:
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # which is said in the error, if any
            return torch.load(file, map_location="cpu", weights_only=True)  # of a path it would ask the name
    except InvalidInputError:
        raise
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"{where} cannot be read: {one_line(error)}; the file is cut short or not a weights file"
        ) from error
    except pickle.UnpicklingError as error:
        raise InvalidInputError(f"{where} was refused: {_refusal(error)}") from error


def _check_archive(where: str, path: Path) -> None:
    """Refuse an archive that is compressed to nothing, or of compiled code."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    check_unpacked(where, sum(entry.file_size for entry in entries), path.stat().st_size)
    names = [entry.filename.partition("/")[2] for entry in entries]
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        raise InvalidInputError(
            f"{where} is a TorchScript archive, which holds code; in Python, torch.jit.load it if you trust it, and "
            "torch.save its state_dict()"
        )


def _refusal(error: Exception) -> str:
    """Why PyTorch's safe reader did not read a pickle, and what to do."""
    if "Unsupported operand" in str(error):
        return (
            "it is a pickle of protocol 4 or 5, which PyTorch's safe reader does not read; save it anew by torch.save "
            "as it is by default (protocol 2), or as .safetensors"
        )
    asked = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
    more = f" (it asks for {asked.group(1)})" if asked else ""
    return f"it is not a plain dictionary of tensors{more} and might run code when loaded; {_SAVE_ANEW}"


def _chosen(where: str, content: Any, key: str) -> dict[str, Tensor]:
    """The weights wanted, of those that the file has."""
    found = dict(_state_dicts(content, "", _DEPTH))
    if not found:
        listed = f" (it has: {', '.join(map(str, list(content)[:8]))})" if isinstance(content, Mapping) else ""
        raise InvalidInputError(f"{where} holds no state dict{listed}; {_SAVE_ANEW}")
    names = sorted(found, key=_rank)
    if key:
        names = [name for name in names if name == key or (key == "ema" and _is_average(name))]
        if not names:
            raise InvalidInputError(
                f"{where} has no weights under {key!r}; it has them under: {', '.join(map(repr, found))}"
            )
        return found[names[0]]
    if len(names) > 1:
        others = ", ".join(map(repr, names[1:]))
        warnings.warn(
            f"{where} has weights under {names[0]!r}, which are taken, and under {others}: give "
            f"{where.partition('=')[0]}_weights to take those",
            stacklevel=2,
        )
    return found[names[0]]


def _state_dicts(content: Any, name: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Name and tensors of each dictionary of nothing but tensors; its keys on the way to it, joined by dots."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(isinstance(value, Tensor | int | float) for value in content.values()):
        yield name, tensors
    elif depth:
        for key, value in content.items():
            yield from _state_dicts(value, f"{name}.{key}" if name else key, depth - 1)


def _rank(name: str) -> tuple[bool, int, int]:
    """Raw weights before averages, well-known names before others, outer ones before inner."""
    first = name.partition(".")[0]
    known = CONTAINERS.index(first) if first in CONTAINERS else len(CONTAINERS)
    return _is_average(name), known, name.count(".")


def _is_average(name: str) -> bool:
    return not _AVERAGES.isdisjoint(re.split(r"[._-]", name.lower()))


class _Dtype:
    """Stands for `numpy.dtype` in a pickle: plain numbers only."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if name[:1] not in "biuf" or not name[1:].isdigit():
            raise pickle.UnpicklingError(f"it holds a NumPy array of {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _scalar(dtype: _Dtype, content: bytes) -> int | float:
    """Stands for NumPy's function that makes a number of its bytes."""
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("it holds a NumPy number without type or bytes")
    number: int | float = np.frombuffer(content, dtype.dtype)[0].item()
    return number


#: What NumPy's numbers ask for in a pickle, under the names of NumPy 1 and 2 → what they get.
_NUMPY: list[Any] = [
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]
