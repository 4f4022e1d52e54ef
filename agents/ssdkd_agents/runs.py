"""Run folders: every long command leaves its configuration, its exact command and its results in one place."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ssdkd_agents
import ssdkd_env
from ssdkd_agents.archives import read_content
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import read_json, write_atomically, write_json
from ssdkd_env.registry import refuse_imports

PACKAGES = ("ssdkd-env", "torch", "gymnasium", "stable-baselines3", "sb3-contrib", "cma", "numpy")

#: In the folder of a training or a search: a line an episode, and a line a validation.
EPISODES_FILE, EVALUATIONS_FILE = "episodes.jsonl", "evaluations.jsonl"
#: The checkpoint with the highest mean validation return.
BEST_FILE = "best.safetensors"
#: Mean return of the last episodes in TensorBoard, as Stable-Baselines3 calls it.
RETURN_TAG = "rollout/ep_rew_mean"
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


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Hash of the engine's and the agents' source files: equal hashes, equal numbers."""
    digest = hashlib.sha256()
    for package in (ssdkd_env, ssdkd_agents):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class RunFolder:
    """A folder with `config.json`, `command.txt` and `results.jsonl`.

    Args:
        path: the folder.
        config: JSON-able settings of the run; None opens the folder of an earlier run.

    Raises:
        InvalidInputError: when a new run would go into a folder that holds one, an earlier run is missing, or the
            folder cannot be written.
    """

    def __init__(self, path: str | Path, config: dict[str, Any] | None) -> None:
        self.path = Path(path)
        if config is None:
            if not (self.path / "config.json").is_file():
                raise InvalidInputError(f"{self.path} holds no run (no config.json); give the folder of a run")
            self.config: dict[str, Any] = read_json(self.path / "config.json")
            if not isinstance(self.config, dict):
                raise InvalidInputError(f"{self.path / 'config.json'} holds no settings; give the folder of a run")
            refuse_imports(self.path / "config.json", self.config)
            return
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise InvalidInputError(f"out={str(self.path)!r} is not empty; choose another folder, or delete it first")
        self.config = config
        write_json(self.path / "config.json", config | {"versions": versions()})
        program = Path(sys.argv[0])
        words = ["python", sys.argv[0]] if program.suffix == ".py" else [program.name]
        command = shlex.join([*words, *sys.argv[1:]])
        write_atomically(self.path / "command.txt", lambda temporary: temporary.write_text(command + "\n"))

    def append(self, result: dict[str, Any], file: str = "results.jsonl") -> None:
        """Add one line to a JSON-lines file of the run."""
        append_line(self.path / file, result)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line, written in a single call so that an interrupt cannot leave half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}; choose a folder that you may write") from error


def read_lines(path: str | Path, keys: Collection[str] = ()) -> list[dict[str, Any]]:
    """Read a JSON-lines file, compressed (`.jsonl.gz`) or plain.

    Args:
        path: the file.
        keys: what every line must have.

    Raises:
        InvalidInputError: when it is missing or damaged, or a line is no JSON object with these keys.
    """
    return parse_lines(read_content(path), path, keys)


def parse_lines(content: bytes, path: str | Path, keys: Collection[str] = ()) -> list[dict[str, Any]]:
    """The JSON objects that a file's content holds, one a line; errors name `path`, as those of `read_lines`."""
    try:
        lines = [json.loads(line) for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is no text ({error}); give a .jsonl or .jsonl.gz file of lines") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} holds a line that is not JSON ({error}); delete that line") from error
    if not all(isinstance(line, dict) and set(keys) <= line.keys() for line in lines):
        raise InvalidInputError(f"{path} holds a line that is no JSON object with {', '.join(keys) or 'names'}")
    return lines
