"""Packages that only some uses need: what to install, in one line, where one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from ssdkd_env.errors import InvalidInputError

#: Package → the extra of `ssdkd-env` that installs it, and what it is called there.
EXTRAS = {
    "PIL": ("images", "pillow"),
    "cma": ("search", "cma"),
    "datasets": ("hub", "datasets"),
    "h5py": ("segmentation", "h5py"),
    "matplotlib": ("plot", "matplotlib"),
    "optuna": ("tune", "optuna"),
    "pyarrow": ("store", "pyarrow"),
    "ray": ("cluster", "ray"),
    "sb3_contrib": ("contrib", "sb3-contrib"),
}


def load_extra(module: str, needed_by: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: dotted name; its first part is a key of `EXTRAS`.
        needed_by: the argument or use that asks for it, as the error begins.

    Raises:
        InvalidInputError: when the package is not installed, or cannot be imported.
    """
    extra, package = EXTRAS[module.partition(".")[0]]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InvalidInputError(
            f"{needed_by} needs the package {package!r}; install it with: pip install 'ssdkd-env[{extra}]'"
        ) from error
