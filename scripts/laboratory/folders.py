"""Folders of several runs below that of one script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from ssdkd_agents.environments import make_env
from ssdkd_agents.inputs import inputs_of
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.searching.search import SearchConfig
from ssdkd_agents.training.config import TrainingConfig

from ssdkd_env.errors import InvalidInputError

ConfigT = TypeVar("ConfigT", SearchConfig, TrainingConfig)


def run_folder(
    path: Path, config: ConfigT, config_of: Callable[[RunFolder], ConfigT], what: str
) -> tuple[RunFolder, bool]:
    """The folder of a run, and whether it was begun before.

    Args:
        path: of the folder.
        config: of the run.
        config_of: reads that of a folder.
        what: it is, such as a search.

    Raises:
        InvalidInputError: when the folder is of another one.
    """
    if not (path / "config.json").is_file():
        return RunFolder(path, asdict(config), inputs_of(make_env(config.env_id, config.env_kwargs))), False
    folder = RunFolder.resume(path)
    if config_of(folder) != config:
        raise InvalidInputError(f"{path} is of another {what}; give the settings that it began with, or another --out")
    return folder, True
