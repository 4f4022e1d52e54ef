"""Run folders: every long command leaves its configuration, its exact command and its results in one place."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ssdkd_agents
import ssdkd_env
from ssdkd_agents.inputs import check_inputs
from ssdkd_agents.lines import append_line
from ssdkd_agents.ownership import LOCK, own, release
from ssdkd_agents.schemas import RunConfig
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import is_temporary, write_atomically, write_json
from ssdkd_env.reading import conform, read_json
from ssdkd_env.registry import refuse_imports

PACKAGES = ("ssdkd-env", "torch", "gymnasium", "stable-baselines3", "sb3-contrib", "cma", "numpy")

#: In the folder of a training or a search: a line an episode, and a line a validation.
EPISODES_FILE, EVALUATIONS_FILE = "episodes.jsonl", "evaluations.jsonl"
#: The checkpoint with the highest mean validation return.
BEST_FILE = "best.safetensors"
#: Mean return of the last episodes in TensorBoard, as Stable-Baselines3 calls it.
RETURN_TAG = "rollout/ep_rew_mean"
#: In `config.json`, beside the settings: what tells the run from every other.
_IDENTITY = "run"
#: Likewise: the files that it depends on, and what was in them when it began.
_INPUTS = "inputs"
#: A plan found by a search.
CONSTANT_FILE = "constant.json"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, and a hash of this package's own source.

    Packages that are not installed are left out: some are optional.
    """
    packages = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[package] = version(package)
    return {"python": platform.python_version()} | packages | {"source": source_digest()}


def source_digest() -> str:
    """Hash of the engine's and the agents' source files when this process began: equal hashes, equal numbers."""
    return _SOURCE


def _hash_source() -> str:
    digest = hashlib.sha256()
    for package in (ssdkd_env, ssdkd_agents):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


#: Taken before anything is played: files may change while what was imported of them plays on.
_SOURCE = _hash_source()


class RunFolder:
    """A folder with `config.json`, `command.txt` and `results.jsonl`, which one process writes.

    Args:
        path: the folder.
        config: JSON-able settings of a new run, whose folder is this process's own from then on; None opens the folder
            of an earlier run to read it.
        inputs: files that a new run depends on; see `inputs.inputs_of`.

    Raises:
        InvalidInputError: when a new run would go into a folder that holds one or that another process owns, an earlier
            run is missing, or the folder cannot be written.

    Attributes:
        path: the folder.
        config: of the run; of an earlier one with its `versions`.
        identity: tells the run from every other; "" of runs of earlier versions.
        inputs: absolute path → SHA-256 of the files that it depends on; none of runs of earlier versions.
    """

    def __init__(
        self, path: str | Path, config: dict[str, Any] | None, inputs: Mapping[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        if config is None:
            if not (self.path / "config.json").is_file():
                begun = (self.path / LOCK).is_file()
                remedy = (
                    "it ended before it began: give its first command again" if begun else "give the folder of a run"
                )
                raise InvalidInputError(f"{self.path} holds no run (no config.json); {remedy}")
            where = self.path / "config.json"
            self.config: dict[str, Any] = read_json(where)
            conform(self.config, RunConfig, f"{where} holds no settings", "give the folder of a run")
            refuse_imports(where, self.config)
            self.identity = str(self.config.pop(_IDENTITY, ""))
            self.inputs: dict[str, str] = self.config.pop(_INPUTS, {})
            return
        refuse_content(self.path)
        own(self.path)
        try:
            refuse_content(self.path)  # which another process may have put there meanwhile
        except InvalidInputError:
            self.close()
            raise
        self.config, self.identity, self.inputs = config, uuid.uuid4().hex, dict(inputs or {})
        program = Path(sys.argv[0])
        words = ["python", sys.argv[0]] if program.suffix == ".py" else [program.name]
        command = shlex.join([*words, *sys.argv[1:]])
        write_atomically(self.path / "command.txt", lambda temporary: temporary.write_text(command + "\n"))
        # Last: where it is, the run has begun and can be resumed.
        self._write_config(config | {"versions": versions()})

    @classmethod
    def resume(cls, path: str | Path) -> RunFolder:
        """Open the folder of an earlier run to go on with it, as its owner.

        Raises:
            InvalidInputError: when it holds no run, a file that it depends on was changed, or another process owns it.
        """
        check_inputs(cls(path, None).inputs, Path(path))
        refuse_links(Path(path))
        own(path)
        return cls(path, None)  # once more: the owner before may have changed it

    def change(self, **settings: Any) -> None:
        """Change settings of the run in `config.json`."""
        self.config |= settings
        self._write_config(self.config)

    def close(self) -> None:
        """Let another process own the folder."""
        release(self.path)

    def _write_config(self, config: dict[str, Any]) -> None:
        inputs = {_INPUTS: self.inputs} if self.inputs else {}
        write_json(self.path / "config.json", config | {_IDENTITY: self.identity} | inputs)

    def append(self, result: dict[str, Any], file: str = "results.jsonl") -> None:
        """Add one line to a JSON-lines file of the run."""
        append_line(self.path / file, result)


def refuse_links(folder: Path) -> None:
    """Refuse a folder with a link in it: what is written there would be written elsewhere.

    Raises:
        InvalidInputError: at the first one.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(link := os.path.join(place, name)):
                raise InvalidInputError(
                    f"{link} is a link, and a run writes into its own folder alone; put the file there"
                )


def refuse_content(folder: Path, remedy: str = "choose another folder, or delete it first") -> None:
    """Keep a new run out of a folder that holds something, beside what a run leaves that ended before it began.

    Raises:
        InvalidInputError: when it does; with the remedy.
    """
    left_over = {LOCK, "command.txt"} if (folder / LOCK).is_file() else set()
    content = folder.iterdir() if folder.is_dir() else ()
    if folder.is_file() or any(not (entry.name in left_over or is_temporary(entry)) for entry in content):
        raise InvalidInputError(f"out={str(folder)!r} is not empty; {remedy}")
