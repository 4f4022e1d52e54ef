"""Reading and writing weights. Nothing is unpickled that could run code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.files import save_tensors


def save_weights(path: str | Path, network: nn.Module) -> None:
    """Write the network's state dict as safetensors, atomically."""
    save_tensors(path, network.state_dict())


def read_weights(argument: str, path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from a PyTorch file with `weights_only=True`.

    Args:
        argument: name of the user's argument, for error messages.
        path: the file.

    Raises:
        InvalidInputError: when the file is missing, cut short, holds anything but tensors, or is a pickle that
            wants to run code (it does not get to).
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError(f"{argument}={str(path)!r} does not exist; scripts/train_teacher.py makes a teacher")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"{argument}={str(path)!r} cannot be read: {one_line(error)}; the file is cut short or not a weights file"
        ) from error
    except pickle.UnpicklingError as error:
        raise InvalidInputError(
            f"{argument}={str(path)!r} was refused: it is not a plain dictionary of tensors and might run code when "
            "loaded; save the state dict alone, best as .safetensors"
        ) from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InvalidInputError(f"{argument}={str(path)!r} holds no state dict; save network.state_dict() alone")
    return weights


def load_weights(argument: str, path: str | Path, network: nn.Module) -> None:
    """Load a weights file into `network`.

    Raises:
        InvalidInputError: as `read_weights`; also when names or shapes do not fit the network, or a weight is
            not finite.
    """
    weights = read_weights(argument, path)
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = [name for name in sorted(own.keys() & weights.keys()) if own[name].shape != weights[name].shape]
    # Old files lack BatchNorm's counter; it has no influence on the result.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected or reshaped:
        detail = "; ".join(
            f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            for what, names in (("missing", missing), ("unexpected", unexpected), ("other shape", reshaped))
            if names
        )
        if reshaped:
            name = reshaped[0]
            detail += f" ({tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the network)"
        raise InvalidInputError(
            f"{argument}={str(path)!r} does not fit {type(network).__name__}: {detail}; "
            "give the architecture that these weights were trained with"
        )
    bad = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise InvalidInputError(f"{argument}={str(path)!r} holds NaN or infinite values in {bad[0]}; train it again")
    network.load_state_dict(weights, strict=False)
