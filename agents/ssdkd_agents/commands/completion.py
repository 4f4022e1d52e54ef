"""One completion for shells that knows every subcommand and its options."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro


def print_completion(shell: str, modules: Mapping[str, str]) -> None:
    """Print a completion script and end the process.

    Args:
        shell: bash, zsh or fish.
        modules: words of each subcommand → its module here.
    """
    groups: dict[str, dict[str, Any]] = {}
    for words, module in modules.items():
        group, _, name = words.rpartition(" ")
        groups.setdefault(group, {})[name] = importlib.import_module(f"ssdkd_agents.commands.{module}").Arguments
    commands = groups.pop("") | {group: _choice(members) for group, members in groups.items()}
    tyro.cli(_choice(commands), prog="ssdkd", args=["--tyro-print-completion", shell])


def _choice(members: Mapping[str, Any]) -> Any:
    """A type that is one of several subcommands."""
    kinds: list[Any] = [Annotated[kind, tyro.conf.subcommand(name=name)] for name, kind in members.items()]
    return Annotated[reduce(or_, kinds), tyro.conf.OmitSubcommandPrefixes]
