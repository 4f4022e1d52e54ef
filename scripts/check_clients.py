"""Run the examples of other libraries that drive the environments, each in a virtual environment of its own.

Examples:
  python scripts/check_clients.py --out runs/clients
  python scripts/check_clients.py --out runs/clients --clients skrl_ppo torchrl_ppo
  python scripts/check_clients.py --out runs/clients --pip-flags "--extra-index-url https://download.pytorch.org/whl/cpu"

Builds the wheel, and does for each file of `examples/clients`: install what its head asks for (inline script metadata,
PEP 723) with exact versions, run it in an empty folder that is also its home, and print one line. What it said is in
NAME.log. An environment has a gigabyte or two, and is deleted before the next one is made.

Exit code 1 when any of them fails.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tomllib
from laboratory.builds import CommandError, Environment, build, run
from packaging.requirements import Requirement
from ssdkd_agents.commands.command_line import Plugins, launch, refuse_existing

from ssdkd_env.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "clients"
#: A block of inline script metadata: lines that are comments.
HEAD = re.compile(r"^# /// script$\n(?P<lines>(?:^#(?: .*)?$\n)+?)^# ///$", re.MULTILINE)


@dataclass
class Arguments(Plugins):
    """Command line of check_clients."""

    out: Path
    """Folder for wheel, environments and logs; must not exist."""
    clients: tuple[str, ...] = ()
    """Names of examples, such as skrl_ppo; all where none is given."""
    pip_flags: str = ""
    """Options of every pip install, such as another index."""


@dataclass(frozen=True)
class Client:
    """An example, and what it asks for."""

    path: Path
    requirements: tuple[str, ...]
    """Without this package's own."""
    bare: tuple[str, ...]
    """Those of which nothing further is installed."""

    @classmethod
    def read(cls, path: Path) -> Client:
        """Read the head of a file.

        Raises:
            InvalidInputError: when it has none.
        """
        found = HEAD.search(path.read_text())
        if not found:
            raise InvalidInputError(f"{path}: there is no '# /// script' block (PEP 723) that says what it needs")
        head = tomllib.loads("".join(line[2:] + "\n" for line in found["lines"].splitlines()))
        names = head.get("tool", {}).get("check_clients", {}).get("without-requirements", [])
        needed = [each for each in head["dependencies"] if Requirement(each).name != "ssdkd-env"]
        bare = [each for each in needed if Requirement(each).name in names]
        return cls(path, tuple(each for each in needed if each not in bare), tuple(bare))

    @property
    def versions(self) -> str:
        """Packages with their exact versions, but PyTorch."""
        named = map(Requirement, (*self.bare, *self.requirements))
        return ", ".join(
            f"{each.name} {str(each.specifier).removeprefix('==')}"
            for each in named
            if str(each.specifier).startswith("==") and each.name != "torch"
        )

    def install(self, environment: Environment, wheel: Path, flags: list[str]) -> None:
        """Install what it asks for, at once: one package may bound the versions of another's requirements.

        Raises:
            CommandError: when pip finds no such versions.
        """
        words = ("install", "--quiet", "--no-compile", *flags)  # most of what is installed is never imported
        environment.pip(*words, *self.requirements, wheel)
        if self.bare:
            environment.pip(*words, "--no-deps", *self.bare)

    def play(self, environment: Environment, folder: Path) -> str:
        """Run it in a folder that is its home, and return what it printed.

        Raises:
            CommandError: when it fails.
        """
        folder.mkdir()
        return run([environment.python, self.path], folder, {"HOME": str(folder)})


def main(args: Arguments) -> None:
    refuse_existing("out", args.out)
    chosen = choose(args.clients)
    out = args.out.resolve()
    out.mkdir(parents=True)
    wheel = build(ROOT, out).wheel
    failed = [client.path.stem for client in chosen if not check(client, wheel, out, shlex.split(args.pip_flags))]
    if failed:
        print(f"error: {', '.join(failed)}: see the logs in {out}", file=sys.stderr)
        sys.exit(1)


def choose(names: tuple[str, ...]) -> list[Client]:
    """The examples by name; all where none is given.

    Raises:
        InvalidInputError: when there is no such example.
    """
    known = {path.stem: path for path in sorted(EXAMPLES.glob("*.py"))}
    for name in names:
        if name not in known:
            raise InvalidInputError(f"--clients {name}: there is no such example; choose among: {', '.join(known)}")
    return [Client.read(known[name]) for name in names or known]


def check(client: Client, wheel: Path, out: Path, flags: list[str]) -> bool:
    """Install and run one, print its line, and say whether it works."""
    name, begun = client.path.stem, time.monotonic()
    folder = out / f"{name}-environment"
    try:
        environment = Environment.create(folder)
        client.install(environment, wheel, flags)
        said, outcome = client.play(environment, out / name), "ok"
    except CommandError as error:
        said, outcome = str(error), f"FAILED: {str(error).splitlines()[-1]}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (out / f"{name}.log").write_text(said)
    print(f"{name:15} {client.versions:30} {time.monotonic() - begun:4.0f} s  {outcome}", flush=True)
    return outcome == "ok"


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
