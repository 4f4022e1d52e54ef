"""What importing the package costs, and in which direction its parts may import each other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: CPU seconds that `import ssdkd_env` may take, Gymnasium included; 0.2 measured.
MOST_SECONDS = 1.0
HEAVY = ("torch", "stable_baselines3", "sb3_contrib", "sklearn", "scipy", "pandas", "matplotlib", "tensorboard", "PIL")

#: The rooms, from the lowest on: nothing in a room may import from one further down this list, at no place in a file.
ROOMS = (
    ("ssdkd_env.errors",),
    ("ssdkd_env.reading",),
    (
        "ssdkd_env.cluster",
        "ssdkd_env.devices",
        "ssdkd_env.executors",
        "ssdkd_env.extras",
        "ssdkd_env.files",
        "ssdkd_env.modes",
        "ssdkd_env.processes",
        "ssdkd_env.progress",
        "ssdkd_env.ranges",
        "ssdkd_env.recent",
        "ssdkd_env.registry",
        "ssdkd_env.renamed",
        "ssdkd_env.threads",
    ),
    ("ssdkd_env.settings",),
    ("ssdkd_env.networks",),
    ("ssdkd_env.distillation",),
    ("ssdkd_env.tasks",),
    ("ssdkd_env",),
    ("ssdkd_env.envs",),
    ("ssdkd_agents",),
    (
        *("ssdkd_agents.seeds", "ssdkd_agents.stopping", "ssdkd_agents.machine", "ssdkd_agents.archives"),
        "ssdkd_agents.progress",
        "ssdkd_agents.schemas",
    ),
    ("ssdkd_agents.families", "ssdkd_agents.evolution", "ssdkd_agents.inputs"),
    ("ssdkd_agents.lines", "ssdkd_agents.manifests", "ssdkd_agents.ownership"),
    ("ssdkd_agents.vec_env", "ssdkd_agents.samplers", "ssdkd_agents.playing", "ssdkd_agents.runs"),
    ("ssdkd_agents.environments", "ssdkd_agents.curves"),
    (
        *("ssdkd_agents.workers", "ssdkd_agents.policies", "ssdkd_agents.analysis", "ssdkd_agents.teachers"),
        "ssdkd_agents.introduction",
    ),
    ("ssdkd_agents.plotting", "ssdkd_agents.keeping"),
    ("ssdkd_agents.training", "ssdkd_agents.searching", "ssdkd_agents.benchmarking"),
    ("ssdkd_agents.distilling",),
    ("ssdkd_agents.tuning",),
    ("ssdkd_agents.commands",),
    ("ssdkd_agents.__main__",),
)
#: Package → packages of others that nothing in it may import.
FOREIGN = {
    "ssdkd_env.networks": ("gymnasium", "stable_baselines3", "sb3_contrib"),
    "ssdkd_env.distillation": ("gymnasium", "stable_baselines3", "sb3_contrib"),
    "ssdkd_env.tasks": ("gymnasium", "stable_baselines3", "sb3_contrib"),
    "ssdkd_env": ("ssdkd_agents", "laboratory", "scripts", "tests", "stable_baselines3", "sb3_contrib"),
    "ssdkd_agents": ("laboratory", "scripts", "tests"),
}
#: Lines that a file of what is installed, or of a script, may have.
MOST_LINES = 400


def run_python(code: str) -> str:
    """Run code in a fresh process and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120).stdout


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "agents" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_of(path): path for folder in ("ssdkd_env", "agents/ssdkd_agents") for path in (ROOT / folder).rglob("*.py")
}


def imported_names(source: str, package: str) -> Iterator[str]:
    """Every module and every name in it that a file in `package` imports, as absolute dotted names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    """Whether a dotted name is that package or lies in it."""
    return f"{name}.".startswith(f"{package}.")


def room_of(name: str) -> int:
    """The room of one of our modules, or of a name in it: the longest that it lies in."""
    rooms = {package: number for number, packages in enumerate(ROOMS) for package in packages}
    return rooms[max((package for package in rooms if within(name, package)), key=len)]


def imports_of(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for name in imported_names(path.read_text(), package):
        while name and name not in FILES:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found - {module}


def upward(module: str, imported: Iterable[str]) -> list[str]:
    """Those of the imported modules that lie in a room above the module's."""
    return [name for name in imported if room_of(name) > room_of(module)]


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(run_python("import sys, ssdkd_env, json; print(json.dumps(list(sys.modules)))"))
    assert not set(HEAVY) & set(loaded)


def test_import_takes_well_under_a_second() -> None:
    seconds = float(
        run_python("import time; a = time.process_time(); import ssdkd_env; print(time.process_time() - a)")
    )
    assert seconds < MOST_SECONDS


def test_environment_class_loads_torch_but_neither_trainers_nor_plots_nor_data() -> None:
    loaded = json.loads(run_python("import sys, ssdkd_env.envs, json; print(json.dumps(list(sys.modules)))"))
    assert "torch" in loaded
    assert not {"stable_baselines3", "sb3_contrib", "sklearn", "matplotlib", "tensorboard"} & set(loaded)


def test_import_registers_the_id() -> None:
    code = "import gymnasium, ssdkd_env; print(gymnasium.spec('SSDKD/Digits-v2').entry_point)"
    assert run_python(code).strip() == "ssdkd_env.envs.distillation:SSDKDEnv"


def test_prefixed_id_imports_the_package_by_itself() -> None:
    code = "import gymnasium; print(type(gymnasium.make('ssdkd_env:SSDKD/Digits-v2').unwrapped).__name__)"
    assert run_python(code).strip() == "SSDKDEnv"


def test_every_module_has_a_room_of_its_own() -> None:
    """A new package at the top must say where it stands."""
    named = {package for packages in ROOMS for package in packages}
    tops = {".".join(name.split(".")[:2]) for name in FILES}
    assert tops <= named, tops - named


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module: str) -> None:
    assert upward(module, imports_of(module)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    sorter = TopologicalSorter({module: imports_of(module) for module in FILES})
    sorter.prepare()  # raises where there is one


@pytest.mark.parametrize("package", FOREIGN)
def test_what_others_wrote_stays_where_it_is_needed(package: str) -> None:
    for module, path in FILES.items():
        if within(module, package):
            names = imported_names(path.read_text(), module)
            assert [name for name in names for other in FOREIGN[package] if within(name, other)] == [], module


@pytest.mark.parametrize("path", [*FILES.values(), *ROOT.glob("scripts/**/*.py")], ids=str)
def test_files_are_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import ssdkd_agents.samplers", "ssdkd_agents.samplers"),
        ("from ssdkd_agents.samplers import Paper", "ssdkd_agents.samplers.Paper"),
        ("from ssdkd_env import envs", "ssdkd_env.envs"),
        ("from ..envs import SSDKDEnv", "ssdkd_env.envs.SSDKDEnv"),
    ],
)
def test_import_check_sees_every_form_of_import(line: str, expected: str) -> None:
    source = f"def late() -> None:\n    {line}\n"
    names = list(imported_names(source, "ssdkd_env.distillation"))
    assert names == [expected]
    assert upward("ssdkd_env.distillation.run", names) == [expected]
    assert upward("ssdkd_agents.commands.main", names) == []
