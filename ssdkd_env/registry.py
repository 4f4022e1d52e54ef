"""Things by name: ours, what a user's code registers, and what the user names by an import path.

A name that the user types or writes in Python may be an import path `"package.module:attribute"`. A name that comes out
of a file, which a stranger may have written, imports nothing: it must be registered, or lie in a module that the user
has named in this process (`trust`).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from ssdkd_env.errors import InvalidInputError

EntryT = TypeVar("EntryT")

#: The one spelling of an import path: what is spelt otherwise is imported by nothing here.
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
#: The one spelling of an environment's id with a module before it. Import paths are spelt so, too.
_WITH_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w./-]*", re.ASCII)
#: What names of data sets on the Hub begin with. They are fetched, not imported.
HUB_PREFIX = "hub:"
#: Modules and data sets of the Hub that the user has named in this process.
_trusted: set[str] = set()
#: Our own, which ids may have before them so that a process of its own knows them.
_OURS = "ssdkd_env"
#: Beginnings of names that say how the name behind them is used; what stands before their colon is no module.
_prefixes: set[str] = set()


class Registry(Mapping[str, EntryT], Generic[EntryT]):
    """Entries of one kind by name, open to a user's own.

    Args:
        argument: what the user calls a name of it, for error messages.
        kind: what an entry is an instance of; None where it is anything that can be called.
        entries: ours, which keep their names.
    """

    def __init__(self, argument: str, kind: type | None, entries: Mapping[str, EntryT]) -> None:
        self._argument, self._kind = argument, kind
        self._entries, self._ours = dict(entries), frozenset(entries)

    def __getitem__(self, name: str) -> EntryT:
        """The entry registered under a name."""
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """How many are registered."""
        return len(self._entries)

    def is_ours(self, name: str) -> bool:
        """Whether an entry comes with this package."""
        return name in self._ours

    def register(self, name: str, entry: EntryT) -> EntryT:
        """Make an entry known by a name, in this process; returns it. An earlier one of yours is replaced.

        Raises:
            InvalidInputError: when the name is one of ours or no plain word, or the entry is of another kind.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise InvalidInputError(f"{self._argument}={name!r}: expected a name of letters, digits, '_' and '-'")
        if name in self._ours:
            raise InvalidInputError(f"{self._argument}={name!r} is one of ours; register yours under another name")
        self._entries[name] = self._checked(name, entry, self._argument)
        return entry

    def find(self, name: str, argument: str = "") -> EntryT:
        """The entry under a name, or at an import path.

        Args:
            name: that the user has given.
            argument: in which, where it is not the registry's own.

        Raises:
            InvalidInputError: when there is none, or what is there is of another kind.
        """
        argument = argument or self._argument
        if isinstance(name, str) and _IMPORT_PATH.fullmatch(name):
            return self._checked(name, resolve_import_path(argument, name), argument)
        if name not in self._entries:
            raise InvalidInputError(
                f"{argument}={name!r} is unknown; choose one of: {', '.join(sorted(self._entries))}, or give an "
                "import path 'package.module:name'"
            )
        return self._entries[name]

    def _checked(self, name: str, entry: Any, argument: str) -> EntryT:
        fits = callable(entry) if self._kind is None else isinstance(entry, self._kind)
        if not fits:
            expected = "something to call" if self._kind is None else f"an instance of {self._kind.__name__}"
            raise InvalidInputError(f"{argument}={name!r} is a {type(entry).__name__}, expected {expected}")
        found: EntryT = entry
        return found


def resolve_import_path(argument: str, path: str) -> Any:
    """Import `"package.module:attribute"`, which the user has named, and return the attribute.

    Args:
        argument: name of the user's argument, for the error message.
        path: the import path.

    Raises:
        InvalidInputError: when the module or the attribute does not exist.
    """
    if not _IMPORT_PATH.fullmatch(path):
        raise InvalidInputError(f"{argument}={path!r}: expected 'package.module:attribute'")
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except InvalidInputError as error:  # of a task or the like that is made there
        raise InvalidInputError(f"{argument}={path!r}: {error}") from error
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvalidInputError(
            f"{argument}={path!r} could not be imported ({error}); "
            "expected 'package.module:attribute' with the package on PYTHONPATH"
        ) from error
    _trusted.add(module_name)
    return found


def reserve_prefix(prefix: str) -> str:
    """Make a beginning of names known, such as `"random_at_rate:"`, that says how the name behind it is used."""
    _prefixes.add(prefix)
    return prefix


def is_import_path(name: str) -> bool:
    """Whether a name, behind reserved prefixes, is spelt like an import path."""
    return _IMPORT_PATH.fullmatch(_inner(name)) is not None


def names_something_outside(name: str) -> bool:
    """Whether a name, used as it may be here, would have a module imported or a data set fetched."""
    return name.startswith(HUB_PREFIX) or has_module(name)


def has_module(env_id: str) -> bool:
    """Whether an environment's id has a module before it, in the one spelling that is imported."""
    return _WITH_MODULE.fullmatch(env_id) is not None


def _inner(name: str) -> str:
    """A name without the reserved prefixes that it begins with."""
    while prefix := next((prefix for prefix in _prefixes if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def trust(modules: Iterable[str]) -> None:
    """Import modules, which may register what they have; names out of files may lie in them from now on.

    Args:
        modules: by name. What begins with `HUB_PREFIX` is a data set, which files may then have fetched.

    Raises:
        InvalidInputError: when one cannot be imported.
    """
    for module in modules:
        if module.startswith(HUB_PREFIX):
            _trusted.add(module)
            continue
        try:
            importlib.import_module(module)
        except (ImportError, ValueError, TypeError) as error:
            raise InvalidInputError(
                f"plugins={module!r} could not be imported ({error}); give a module that is on PYTHONPATH"
            ) from error
        _trusted.add(module)


def trusted() -> tuple[str, ...]:
    """The modules, and data sets of the Hub, that the user has named in this process."""
    return tuple(sorted(_trusted))


def refuse_imports(where: object, content: Any) -> None:
    """Refuse a file whose content names something to be imported or fetched that the user has not named.

    Args:
        where: the file, for the error message.
        content: mappings, lists and plain values, as JSON has them.

    Raises:
        InvalidInputError: at the first such name.
    """
    if isinstance(content, Mapping):
        for value in content.values():
            refuse_imports(where, value)
    elif isinstance(content, list | tuple):
        for value in content:
            refuse_imports(where, value)
    elif isinstance(content, str) and names_something_outside(_inner(content)):
        name = _inner(content)
        if name.startswith(HUB_PREFIX):
            module, refusal = name, "names out of files fetch nothing; if you trust that data set"
        else:
            module, refusal = name.partition(":")[0], "names out of files import nothing; if you trust that module"
        if module != _OURS and module not in _trusted:
            raise InvalidInputError(
                f"{where} names {content!r}, and {refusal}, add --plugins {module} (in Python: "
                f"ssdkd_env.registry.trust(['{module}']))"
            )
