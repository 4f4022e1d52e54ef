"""Writing weights, and putting them into a network, under its own names or those of a known public source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import save_tensors
from ssdkd_env.networks.conversion import translations, used
from ssdkd_env.networks.weight_files import read_weights


def save_weights(path: str | Path, network: nn.Module) -> None:
    """Write the network's state dict as safetensors, atomically."""
    save_tensors(path, network.state_dict())


def load_weights(argument: str, path: str | Path, network: nn.Module, key: str = "") -> None:
    """Load a weights file into `network`, under the network's own names or those of a known public source.

    The file's names are tried as they are, then as translated by `networks.conversion`. A translation counts only
    when every name and shape fits.

    Args:
        argument: name of the user's argument, for error messages.
        path: the file.
        network: that takes the weights.
        key: of the weights in the file; see `read_weights`.

    Raises:
        InvalidInputError: as `read_weights`; also when names or shapes do not fit the network, or a weight is
            not finite or not of floating point.
    """
    own = network.state_dict()
    weights = read_weights(argument, path, key)
    weights = {name: weights[name] for name in used(weights, own)}
    # The first reading that fits; failing that, the one that comes nearest explains best what is wrong.
    misfits = [_Misfit(own, weights, naming, mapping) for naming, mapping in translations(weights)]
    best = min(misfits, key=lambda misfit: misfit.count)
    if best.count:
        raise InvalidInputError(
            f"{argument}={str(path)!r} does not fit {type(network).__name__}: {best.describe(own, weights)}; "
            + (_part_that_fits(own, weights) or best.remedy())
        )
    bad = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise InvalidInputError(f"{argument}={str(path)!r} holds NaN or infinite values in {bad[0]}; train it again")
    whole = [
        name
        for name, value in weights.items()
        if own[best.mapping[name]].is_floating_point() and not value.is_floating_point()
    ]
    if whole:
        raise InvalidInputError(
            f"{argument}={str(path)!r} holds {weights[whole[0]].dtype} in {whole[0]}, expected floating-point numbers; "
            "give the weights as they were before they were quantised"
        )
    network.load_state_dict({best.mapping[name]: value for name, value in weights.items()}, strict=False)


def _part_that_fits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """What to do where the network's weights are some of the file's, beside those of another; "" where they are not."""
    fitting = []
    for first in sorted({name.partition(".")[0] + "." for name in weights}):
        part = [name for name in weights if name.startswith(first)]
        readings = translations(part) if len(part) < len(weights) else ()
        if any(not _Misfit(own, {name: weights[name] for name in part}, *reading).count for reading in readings):
            fitting.append(repr(first))
    return f"those that begin with {' or '.join(fitting)} fit alone: save them without the others" if fitting else ""


class _Misfit:
    """What does not fit when a file's names are read by one mapping."""

    def __init__(
        self, own: Mapping[str, Tensor], weights: Mapping[str, Tensor], naming: str, mapping: Mapping[str, str]
    ) -> None:
        self.naming, self.mapping = naming, mapping
        # Old files lack BatchNorm's counter; it has no influence on the result.
        self.missing = sorted(
            name for name in own.keys() - mapping.values() if not name.endswith("num_batches_tracked")
        )
        # Named as in the file, where the reader can look them up.
        self.unexpected = sorted(name for name in weights if mapping[name] not in own)
        self.reshaped = sorted(
            name for name in weights if mapping[name] in own and own[mapping[name]].shape != weights[name].shape
        )
        self.count = len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def describe(self, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
        detail = "; ".join(
            f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            for what, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("other shape", self.reshaped),
            )
            if names
        )
        if self.reshaped:
            name = self.reshaped[0]
            file_shape, own_shape = tuple(weights[name].shape), tuple(own[self.mapping[name]].shape)
            detail += f" ({file_shape} in the file, {own_shape} in the network)"
        return detail if self.naming == "ours" else f"{detail} (names read as {self.naming}'s)"

    def remedy(self) -> str:
        mapped = [self.mapping[name] for name in self.unexpected]
        shortcuts = [".shortcut." in name for name in mapped]
        if self.count == len(mapped) and all(shortcuts):
            return "the file has projection shortcuts: build the network with projection=True"
        if self.count == len(mapped) and not any(shortcuts):
            return (
                "all that the network has is in the file: give the architecture that has the rest too, or, where only "
                "its training used that, leave it out of the file"
            )
        return "give the architecture that these weights were trained with"
