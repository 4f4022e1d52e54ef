"""What importing the package costs, and in which direction its parts may import each other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: CPU seconds that `import ssdkd_env` may take, Gymnasium included; 0.2 measured.
MOST_SECONDS = 1.0
HEAVY = ("torch", "stable_baselines3", "sb3_contrib", "sklearn", "scipy", "pandas", "matplotlib", "tensorboard", "PIL")

#: Package → what nothing in it may import, at no place in a file. `tasks` stand beside the engine.
FORBIDDEN = {
    "ssdkd_env": ("ssdkd_agents", "laboratory", "scripts", "tests", "sb3_contrib"),
    "ssdkd_env/distillation": ("gymnasium", "stable_baselines3", "ssdkd_env.envs"),
    "ssdkd_env/tasks": ("gymnasium", "stable_baselines3", "ssdkd_env.envs"),
    "ssdkd_env/networks": (
        "gymnasium",
        "stable_baselines3",
        "ssdkd_env.envs",
        "ssdkd_env.distillation",
        "ssdkd_env.tasks",
    ),
    "agents/ssdkd_agents": ("laboratory", "scripts", "tests"),
    "scripts": ("tests",),
}


def run_python(code: str) -> str:
    """Run code in a fresh process and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120).stdout


def imported_names(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Every module and every name in it that a file in `package` imports, as absolute dotted names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(folder: Path, source: str, forbidden: tuple[str, ...]) -> list[str]:
    """What a file imports that it must not."""
    names = imported_names(source, folder.parts)
    return [name for name in names for module in forbidden if f"{name}.".startswith(f"{module}.")]


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


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        folder = path.relative_to(ROOT).parent
        assert not violations(folder, path.read_text(), FORBIDDEN[package]), path


@pytest.mark.parametrize(
    "line",
    [
        "import ssdkd_agents",
        "from ssdkd_agents.samplers import Paper",
        "from ssdkd_env import envs",
        "from ..envs import SSDKDEnv",
    ],
)
def test_import_check_sees_every_form_of_import(line: str) -> None:
    forbidden = ("ssdkd_agents", "ssdkd_env.envs")
    source = f"def late() -> None:\n    {line}\n"
    assert violations(Path("ssdkd_env/distillation"), source, forbidden)
    assert not violations(Path("ssdkd_env/distillation"), "import ssdkd_agentsmith\nfrom .envs import x\n", forbidden)
