"""Imports every module of the installed packages, and prints as JSON what came of it.

Run as a file by an interpreter that is tried, which need not have what the other modules beside this one import:

    python imports.py [PACKAGE THAT STANDS FOR A LACKING ONE ...]

A package that this Python cannot have is replaced by one in which every name is an empty class, so that the bodies of
the modules that import it run all the same: their syntax, annotations, decorators, dataclasses and other imports.
"""

from __future__ import annotations

import abc
import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class AnyClass(abc.ABCMeta):
    """A class whose every attribute is a class of this kind."""

    def __getattr__(cls, name: str) -> Any:
        """An empty class of that name."""
        if name.startswith("__"):
            raise AttributeError(name)
        does: dict[str, Any] = {
            "__call__": lambda self, *given, **named: given[0] if given else self,
            "__enter__": lambda self: self,
            "__exit__": lambda self, *error: None,
        }
        return AnyClass(name, (), does)

    def __call__(cls, *given: Any, **named: Any) -> Any:
        """An instance, whatever is given; as a decorator it leaves functions as they are."""
        return object.__new__(cls)  # type: ignore[arg-type]

    def __getitem__(cls, given: Any) -> Any:
        """As a generic class it stays what it is."""
        return cls


class StandIn(ModuleType):
    """A module in which there is every name."""

    def __getattr__(self, name: str) -> Any:
        """An empty class of that name."""
        return getattr(AnyClass("root", (), {}), name)


class StandIns:
    """Finds the modules of packages that are lacking."""

    def __init__(self, lacking: set[str]) -> None:
        self.lacking = lacking

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As importlib asks."""
        if name.partition(".")[0] not in self.lacking:
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """As importlib asks."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is to be done."""


def modules(package: str) -> Iterator[str]:
    """A package and every module in it by name; its packages are imported to look into them."""
    yield package
    inside = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.", onerror=lambda name: None)
    yield from (found.name for found in inside if not found.name.endswith("__main__"))  # which would run


def import_all(lacking: set[str]) -> dict[str, object]:
    """Import one after the other.

    Args:
        lacking: top-level packages that get a stand-in.

    Returns:
        CPU seconds of `import ssdkd_env`, whether that loaded torch, how many modules were imported, and what is wrong
        with the others.
    """
    before = time.process_time()
    importlib.import_module("ssdkd_env")
    seconds, loaded = time.process_time() - before, "torch" in sys.modules
    sys.meta_path.insert(0, StandIns(lacking))
    imported, faults = 0, {}
    for name in [*modules("ssdkd_env"), *modules("ssdkd_agents")]:
        try:
            importlib.import_module(name)
            imported += 1
        except Exception as error:  # whatever it is, the caller is told
            faults[name] = f"{type(error).__name__}: {error}"
    return {"seconds": seconds, "loads_torch": loaded, "imported": imported, "faults": faults}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(import_all(set(sys.argv[1:]))))
