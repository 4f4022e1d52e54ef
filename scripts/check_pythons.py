"""Install the package with every Python that is found here, and see whether it works: a table for a release.

Examples:
  python scripts/check_pythons.py --out runs/pythons
  python scripts/check_pythons.py --out runs/pythons --pip-flags "--extra-index-url https://download.pytorch.org/whl/cpu"
  python scripts/check_pythons.py --out runs/pythons --torch "torch==2.13.0"  # gigabytes where only CUDA builds are had
  python scripts/check_pythons.py --out runs/pythons --torch "torch>=2.5" --pythons ~/python3.14/bin/python

Builds source distribution and wheel, and makes one virtual environment for each Python. Where the index has the PyTorch
of --torch for it, the wheel is installed with all extras, every module is imported, an agent trained for ten steps and
an episode played. Where it has not, the wheel is installed with all requirements but PyTorch and what needs it, every
module is imported with stand-ins for those, and the index is asked whether it has them for this Python at all.
Everything is compiled, warnings being errors. vermin finds the lowest Python that the code's syntax and its use of the
standard library admit. Prints what an installation weighs as well.

Exit code 1 when anything fails, or a Python that pyproject.toml names is not here. Where no episode was played, the
table says so, and it is no failure.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from laboratory.builds import Built, CommandError, Environment, build, run, weigh
from laboratory.common import about
from packaging.requirements import Requirement
from ssdkd_agents.commands.command_line import Plugins, launch, refuse_existing
from ssdkd_agents.lines import append_line
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = Path(__file__).resolve().parent / "laboratory" / "imports.py"
#: What a Python is tried without for which the index has no PyTorch as --torch asks.
NEED_TORCH = ("torch", "stable-baselines3", "sb3-contrib")
SMALL = {"rounds": 2, "warmup_rounds": 1, "candidates": 8, "inversion_steps": 1, "student_steps": 1, "batch_size": 8}
EPISODE = f"""
import gymnasium
env = gymnasium.make("ssdkd_env:SSDKD/Digits-v2", budget={SMALL})
env.reset(seed=0)
steps = 0
while True:
    steps += 1
    _, _, terminated, truncated, _ = env.step(env.unwrapped.paper_action)
    if terminated or truncated:
        break
print(steps)
"""
TRAIN = (
    *("train", "--out", "run", "--timesteps", "10", "--evaluate-every-steps", "0", "--no-progress-bar"),
    *(word for name, value in SMALL.items() for word in (f"--env.budget.{name}", str(value))),
    *("--hyperparameters", "n_envs=1", "n_steps=5", "batch_size=5", "n_epochs=1"),
)


@dataclass
class Arguments(Plugins):
    """Command line of check_pythons."""

    out: Path
    """Folder for wheel, environments and table; must not exist."""
    pythons: tuple[str, ...] = ()
    """Interpreters; those on PATH and of pyenv where none is given."""
    torch: str = "torch==2.13.0+cpu"
    """Requirement of PyTorch; the default admits builds for the CPU alone, as PyTorch's own index has them."""
    pip_flags: str = ""
    """Options of every pip install, such as another index."""


@dataclass(frozen=True)
class Row:
    """What comes of one Python."""

    version: str
    installed: str = "not found"
    compiled: str = "-"
    modules: str = "-"
    seconds: str = "-"
    episode: str = "-"
    fault: str = ""

    def line(self) -> str:
        """One of a Markdown table."""
        cells = (self.version, self.installed, self.compiled, self.modules, self.seconds, self.episode)
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| Python | installed | compiled | modules imported | CPU s of `import ssdkd_env` | ten steps and an episode |\n"
    "|---|---|---|---|---|---|"
)


def main(args: Arguments) -> None:
    refuse_existing("out", args.out)
    for interpreter in args.pythons:
        if shutil.which(interpreter) is None:
            raise InvalidInputError(f"--pythons {interpreter}: there is no such interpreter")
    out = args.out.resolve()
    out.mkdir(parents=True)
    built = build(ROOT, out)
    found = dict(version_of(args.pythons or candidates()))
    rows = [
        try_python(found[version], version, built, out, args) if version in found else Row(version)
        for version in tqdm(sorted({*declared(built), *found}, key=minor), unit="Python")
    ]
    lowest = lowest_python(Environment.create(out / "vermin"), built)
    table = "\n".join([HEAD, *(row.line() for row in rows)])
    summary = f"{weigh(built)}\nThe code needs at least Python {lowest}; declared: {', '.join(declared(built))}."
    (out / "pythons.md").write_text(f"{table}\n\n{summary}\n")
    for row in rows:
        append_line(out / "pythons.jsonl", asdict(row))
    append_line(out / "pythons.jsonl", asdict(weigh(built)) | about(torch.device("cpu")))
    print(f"{table}\n\n{summary}")
    faults = [f"{row.version}: {row.fault or 'not found'}" for row in rows if row.fault or row.installed == "not found"]
    if not declared(built):
        faults.append("pyproject.toml names no Python")
    elif minor(lowest) > minor(declared(built)[0]):
        faults.append(f"the code needs Python {lowest}")
    if faults:
        print("\n".join(["error: it does not work everywhere", *faults]), file=sys.stderr)
        sys.exit(1)


def minor(version: str) -> int:
    """12 of 3.12."""
    return int(version.split(".")[1])


def declared(built: Built) -> list[str]:
    """The Pythons that the package's classifiers name, such as 3.12."""
    classifiers = built.metadata().get_all("Classifier", [])
    named = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in classifiers)
    return sorted((match[1] for match in named if match), key=minor)


def candidates() -> Iterator[str]:
    """What may be an interpreter here, by path; of one version the last is taken."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = (shutil.which(f"python3.{number}") for number in range(10, 30))
    yield from (path for path in on_path if path is not None)
    yield from map(str, sorted(root.glob("versions/3.*/bin/python")))


def version_of(interpreters: tuple[str, ...] | Iterator[str]) -> Iterator[tuple[str, str]]:
    """Version and path of what answers; pyenv's stand-ins for versions that are not chosen do not."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for interpreter in interpreters:
        done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True)
        if done.returncode == 0 and minor(done.stdout) >= 10:
            yield done.stdout.strip(), interpreter


def try_python(interpreter: str, version: str, built: Built, out: Path, args: Arguments) -> Row:
    """Install and try with one Python."""
    try:
        environment = Environment.create(out / f"python{version}", interpreter)
        has_torch, installed = install(environment, built, args)
        ours = [environment.packages / name for name in ("ssdkd_env", "ssdkd_agents")]
        run([environment.python, "-W", "error", "-m", "compileall", "-q", "-f", *ours], environment.folder)
        lacking = [] if has_torch else [name.replace("-", "_") for name in NEED_TORCH]
        told = json.loads(run([environment.python, IMPORTS, *lacking], environment.folder))
        if told["faults"] or told["loads_torch"]:
            raise CommandError(f"imports: {told}")
        modules = f"{told['imported']}"
        if has_torch:
            run([environment.folder / "bin" / "ssdkd", *TRAIN], environment.folder)
            episode = f"yes, {run([environment.python, '-c', EPISODE], environment.folder).strip()} steps"
        else:
            modules += ", with stand-ins"
            episode = f"not played; the index has {on_index(environment, built)}"
        return Row(version, installed, "yes", modules, f"{told['seconds']:.2f}", episode)
    except CommandError as error:
        return Row(version, "FAILED", fault=str(error))


def install(environment: Environment, built: Built, args: Arguments) -> tuple[bool, str]:
    """Install the wheel, with PyTorch where it can be had; whether it could, and what was installed.

    What needs no PyTorch comes first, so that an index that cannot be reached is not taken for one without PyTorch.
    """
    flags = shlex.split(args.pip_flags)
    environment.pip("install", "--quiet", *flags, *light_requirements(built))
    try:
        environment.pip("install", "--quiet", *flags, "--only-binary", ":all:", args.torch)
    except CommandError as error:
        if not re.search("No matching distribution|ResolutionImpossible", str(error)):
            raise
        environment.pip("install", "--quiet", "--no-deps", built.wheel)
        return False, "all but torch and what needs it"
    environment.pip("install", "--quiet", *flags, f"{built.wheel}[all]")
    environment.pip("check")
    return True, "with all extras"


def on_index(environment: Environment, built: Built) -> str:
    """The newest releases for this Python of what it was tried without.

    Raises:
        CommandError: when there are none that the package admits.
    """
    newest = []
    for required in requirements(built):
        if required.name in NEED_TORCH:
            said = environment.pip("index", "versions", required.name)
            versions = re.findall(r"Available versions: (.*)", said)[0].split(", ")
            admitted = list(required.specifier.filter(versions))
            if not admitted:
                raise CommandError(f"{required}: the index has only {versions}")
            newest.append(f"{required.name} {admitted[0]}")
    return ", ".join(newest)


def requirements(built: Built) -> list[Requirement]:
    """Those of the package and of its extras for users."""
    found = map(Requirement, built.metadata().get_all("Requires-Dist", []))
    return [one for one in found if one.name != built.metadata()["Name"] and 'extra == "dev"' not in str(one.marker)]


def light_requirements(built: Built) -> list[str]:
    """Those but PyTorch and what needs it."""
    return [f"{one.name}{one.specifier}" for one in requirements(built) if one.name not in NEED_TORCH]


def lowest_python(environment: Environment, built: Built) -> str:
    """What the code's syntax and its use of the standard library need, as vermin finds it."""
    environment.pip("install", "--quiet", "vermin")
    words = ["--no-tips", "--eval-annotations", "ssdkd_env", "agents"]
    said = run([environment.folder / "bin" / "vermin", *words], built.sources)
    (version,) = re.findall(r"Minimum required versions: (?:.*, )?(3\.\d+)", said)
    return str(version)


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
