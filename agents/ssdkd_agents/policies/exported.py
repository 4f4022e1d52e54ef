"""Samplers to hand on: a folder with the settings as JSON and the policy's tensors as safetensors, nothing pickled."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from ssdkd_agents.runs import versions
from ssdkd_agents.schemas import ExportedSettings, check_settings_of
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.files import save_tensors, write_json
from ssdkd_env.reading import check_regular, check_unpacked, conform, read_json, read_start
from ssdkd_env.renamed import with_new_names

FORMAT = "ssdkd sampler folder 1"
SETTINGS, POLICY = "sampler.json", "policy.safetensors"
#: Bytes of settings, and of a policy in a Stable-Baselines3 archive, beyond which a file is no sampler's.
MOST_SETTINGS, MOST_POLICY = 10**6, 10**9
#: What of the settings is used.
SETTINGS_PARTS = ("algorithm", "hyperparameters", "env_id", "env_kwargs", "face", "names")

Tensors = dict[str, torch.Tensor]


def write_exported(folder: Path, state: dict[str, Any]) -> None:
    """Write what is needed to act, and nothing of the training: no optimiser, no replay buffer.

    Args:
        folder: a new one.
        state: of `read_sampler`, or `config`, `names`, `normalization` and `parameters` as there.

    Raises:
        InvalidInputError: when the folder holds something, or cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidInputError(f"--out {folder} exists; choose another folder, or delete it first")
    save_tensors(folder / POLICY, state["parameters"]["policy"])
    settings = {"format": FORMAT} | {"env_kwargs": {}} | state["config"]
    settings |= {
        "names": state["names"],
        "face": state["face"],
        "normalization": _plain(state["normalization"]),
        "versions": versions(),
    }
    write_json(folder / SETTINGS, settings)


def read_exported(folder: Path) -> dict[str, Any]:
    """Read what `write_exported` wrote, as the same parts of a state.

    Raises:
        InvalidInputError: when a file is missing, damaged, or no sampler's.
    """
    settings = _read_settings(folder / SETTINGS)
    tensors = _read_tensors(folder / POLICY)
    check_network(folder / SETTINGS, settings["hyperparameters"], tensors)
    config = {key: settings[key] for key in ("algorithm", "hyperparameters", "env_id", "env_kwargs")}
    return {
        "config": config | {"env_kwargs": with_new_names(config["env_kwargs"])},
        "names": settings["names"],
        "face": with_new_names(settings["face"]),
        "normalization": _with_tensors(folder / SETTINGS, settings["normalization"]),
        "parameters": {"policy": tensors},
    }


def read_archive(path: Path) -> Tensors:
    """The policy's tensors in an archive that Stable-Baselines3's `model.save` wrote.

    Only `policy.pth` is read, by PyTorch's reader that admits tensors and calls nothing. The archive's `data`, which
    Stable-Baselines3 unpickles, is left alone; so hyper-parameters have to be given.

    Raises:
        InvalidInputError: when the file is no such archive, or its policy is anything else than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next((entry for entry in archive.infolist() if entry.filename == "policy.pth"), None)
            if entry is None or entry.file_size > MOST_POLICY:
                raise InvalidInputError(
                    f"{path} has no policy.pth of at most {MOST_POLICY} bytes; expected what model.save of "
                    "Stable-Baselines3 wrote"
                )
            check_unpacked(path, entry.file_size, entry.compress_size)
            content = archive.read(entry)
    except InvalidInputError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, NotImplementedError, EOFError) as error:
        raise InvalidInputError(f"cannot read {path}: {one_line(error)}; was it cut short?") from error
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader of hostile bytes may stumble over
        raise InvalidInputError(f"{path}: policy.pth holds something else than tensors; it was not loaded") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items()
    ):
        raise InvalidInputError(f"{path}: policy.pth holds something else than named tensors")
    return dict(tensors)


def check_tensors(what: str, own: Tensors, given: Tensors, remedy: str) -> None:
    """Refuse tensors that are not those of a policy.

    Args:
        what: file that they come from.
        own: tensors of the policy that was built.
        given: tensors to be put into it.
        remedy: what to do when they do not fit.

    Raises:
        InvalidInputError: when a tensor is missing, too many, of another shape or type, or has NaN or infinity in it.
    """
    if different := sorted(own.keys() ^ given.keys()):
        missing = "lacks" if different[0] in own else "has, unlike this policy,"
        raise InvalidInputError(f"{what} does not fit this agent: it {missing} {different[0]!r}; {remedy}")
    for name, tensor in own.items():
        other = given[name]
        for quality in ("shape", "dtype"):
            expected, found = getattr(tensor, quality), getattr(other, quality)
            if expected != found:
                raise InvalidInputError(
                    f"{what} does not fit this agent: {name!r} has {quality} {_words(found)}, not {_words(expected)}; "
                    f"{remedy}"
                )
        if not other.isfinite().all():
            raise InvalidInputError(f"{what}: {name!r} has NaN or infinity in it; train or copy it again")


def check_network(where: Path, hyperparameters: dict[str, Any], tensors: Tensors) -> None:
    """Refuse hyper-parameters of a network that is larger than the tensors that it is to hold, before it is built.

    Raises:
        InvalidInputError: when they ask for a larger layer than there is, or for more of them.
    """
    largest = max([size for tensor in tensors.values() if tensor.numel() for size in tensor.shape] + [len(tensors)])
    asked = max(_sizes(hyperparameters.get("policy_kwargs")), default=0)
    if asked > largest:
        raise InvalidInputError(
            f"{where}: policy_kwargs ask for {asked}, but no tensor is so large; get another copy, or export it again"
        )


def _read_settings(path: Path) -> dict[str, Any]:
    settings: Any = read_json(path, MOST_SETTINGS)
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise InvalidInputError(f"{path} is no sampler's ({FORMAT!r}); expected a folder that ssdkd export wrote")
    conform(settings, ExportedSettings, f"{path} is damaged", "export it again")
    check_settings_of({name: value for name, value in settings.items() if name in SETTINGS_PARTS}, path)
    return settings


def _read_tensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_regular(path)
    try:
        read_start(path, str(path))
        return dict(load_file(path))
    except InvalidInputError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"cannot read {path}: {one_line(error)}; was it cut short?") from error


def _plain(value: Any) -> Any:
    """Tensors as nested lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _with_tensors(path: Path, normalization: dict[str, Any] | None) -> dict[str, Any] | None:
    """Lists of numbers as float64 tensors."""
    if normalization is None:
        return None
    result = dict(normalization)
    for name in ("observation", "return"):
        part = result.get(name)
        if isinstance(part, dict):
            try:
                numbers = {key: torch.tensor(part[key], dtype=torch.float64) for key in ("mean", "var")}
            except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
                raise InvalidInputError(f"{path}: statistics of the {name} are damaged; export it again") from error
            result[name] = part | numbers
    return result


def _sizes(value: Any) -> list[int]:
    """Numbers in a value, and lengths of its lists."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [len(value), *(number for item in value for number in _sizes(item))]
    return [math.ceil(value)] if isinstance(value, int | float) and math.isfinite(value) else []


def _words(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value)
