"""Building what is published, what it weighs, and fresh virtual environments to try it in."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distributions
from pathlib import Path

#: Seconds after which a command counts as hanging.
PATIENCE = 1800.0


class CommandError(RuntimeError):
    """A command ended with another exit code than 0; the text has the end of what it said."""


def run(words: list[str | Path], folder: Path, variables: dict[str, str] | None = None) -> str:
    """Run a command in a folder and return its standard output.

    It sees neither the caller's Python path nor the test runner's variables, so that nothing of a source tree is found
    by accident.

    Raises:
        CommandError: when it fails.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    environment = inherited | {"OMP_NUM_THREADS": "1"} | (variables or {})
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}".strip()
        raise CommandError(f"exit code {done.returncode} of {' '.join(command)}\n{said}")
    return done.stdout


@dataclass(frozen=True)
class Built:
    """What is published."""

    tree: Path
    """Copy of the source tree that was built."""
    sources: Path
    """Folder of the unpacked source distribution."""
    sdist: Path
    wheel: Path
    """Built from `sources`, as it is for who has no wheel."""

    def metadata(self) -> Message:
        """The wheel's, with the long description as its payload."""
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return Parser().parsestr(archive.read(name).decode())


def copy_sources(root: Path, folder: Path) -> None:
    """Copy a source tree without what `.gitignore` names, so that leftovers of earlier builds stay out."""
    ignored = [line.rstrip("/") for line in (root / ".gitignore").read_text().splitlines()]
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns(".git", *ignored))


def build(root: Path, folder: Path) -> Built:
    """Build the source distribution of a tree, and the wheel of that, with this interpreter's setuptools.

    Raises:
        CommandError: when either cannot be built.
    """
    tree = folder / "tree"
    copy_sources(root, tree)
    sdist = folder / call_backend("build_sdist", tree, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (sources,) = (folder / "unpacked").iterdir()
    copy_sources(sources, folder / "wheel-of")  # so that the unpacked tree has no leftovers either
    return Built(tree, sources, sdist, folder / call_backend("build_wheel", folder / "wheel-of", folder))


def call_backend(hook: str, tree: Path, target: Path) -> str:
    """Call a hook of PEP 517, and return the name of the file that it made in `target`."""
    code = f"from setuptools import build_meta; print(build_meta.{hook}({str(target)!r}))"
    return run([sys.executable, "-c", code], tree).splitlines()[-1]


@dataclass(frozen=True)
class Weight:
    """What an installation brings."""

    wheel_kilobytes: float
    files: int
    python_files: int
    python_lines: int
    """Of the Python files, without blank ones."""
    dependencies: int
    """Named by the package itself, without those of extras."""

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"wheel {self.wheel_kilobytes:.0f} kB, {self.files} files; {self.python_lines} lines in "
            f"{self.python_files} Python files; {self.dependencies} dependencies"
        )


def weigh(built: Built) -> Weight:
    """Of a wheel."""
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode() for name in names if name.endswith(".py")]
    lines = sum(1 for text in texts for line in text.splitlines() if line.strip())
    required = [line for line in built.metadata().get_all("Requires-Dist", []) if "extra ==" not in line]
    return Weight(built.wheel.stat().st_size / 1000, len(names), len(texts), lines, len(required))


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, interpreter: str | Path = sys.executable) -> Environment:
        """Make one that has nothing but pip."""
        run([interpreter, "-m", "venv", folder], folder.parent)
        environment = cls(folder)
        environment.pip("uninstall", "--quiet", "--yes", "setuptools")  # older Pythons put an old one into it
        return environment

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        (folder,) = self.folder.glob("lib/python3*/site-packages")
        return folder

    def pip(self, *words: str | Path) -> str:
        """Run its pip.

        Raises:
            CommandError: when pip fails, be it that no package index is within reach.
        """
        options = ("--disable-pip-version-check", "--no-input", "--retries", "2")
        try:
            return run([self.python, "-m", "pip", *options, *words], self.folder)
        except CommandError as error:
            shown = " ".join(str(word) for word in words)
            raise CommandError(f"pip failed (is a package index within reach?): {shown}\n{error}") from None

    @contextmanager
    def borrowing(self, packages: Path) -> Iterator[None]:
        """Let it import what lies in another environment's folder of packages, after its own."""
        file = self.packages / "borrowed.pth"
        file.write_text(f"{packages}\n")
        try:
            yield
        finally:
            file.unlink()

    def distributions(self) -> dict[str, Distribution]:
        """What is installed in it, without what it borrows, by name."""
        return {found.metadata["Name"]: found for found in distributions(path=[str(self.packages)])}


def damaged_files(distribution: Distribution) -> Iterator[str]:
    """The files of an installed package that are gone or are not what was installed.

    Raises:
        CommandError: when the package does not say what its files are.
    """
    if not distribution.files:
        raise CommandError(f"{distribution.metadata['Name']} has no list of files")
    for file in distribution.files:
        path = Path(str(file.locate()))
        if not path.exists():
            yield f"{file} is gone"
        elif file.hash is not None:
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                yield f"{file} is another one"
