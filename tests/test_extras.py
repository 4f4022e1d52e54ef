"""What works without the optional packages, and what is said where one is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ssdkd_agents.commands.main import COMMANDS

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.extras import EXTRAS, load_extra

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parents[1]


def without(blocked: set[str], code: str) -> str:
    """What a fresh process prints that does not have these packages."""
    block = f"import sys\nsys.modules.update(dict.fromkeys({sorted(blocked)}))"  # None: as if it were not there
    command = [sys.executable, "-c", f"{block}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


OPTIONAL = set(EXTRAS) | {"sklearn", "scipy", "moviepy"}
EPISODE = """
import gymnasium, ssdkd_env
budget = {"rounds": 1, "warmup_rounds": 1, "candidates": 8, "inversion_steps": 1, "student_steps": 1, "batch_size": 8}
env = gymnasium.make("SSDKD/Digits-v2", budget=budget)
env.reset(seed=0)
print(env.step(env.unwrapped.paper_action)[2])
"""


def test_environment_needs_neither_trainers_nor_any_extra() -> None:
    assert without(OPTIONAL | {"stable_baselines3", "tensorboard", "pandas"}, EPISODE).strip() == "True"


def test_training_needs_no_extra_but_those_of_stable_baselines3() -> None:
    code = EPISODE + (
        "from ssdkd_agents.policies.algorithms import algorithm_class\n"
        "import ssdkd_agents.training.train, ssdkd_agents.searching.search, ssdkd_agents.analysis.comparison\n"
        "algorithm_class('ppo')('MlpPolicy', env, n_steps=2, batch_size=2).learn(2)\n"
        "print('trained')"
    )
    assert without(OPTIONAL - {"matplotlib", "PIL"}, code).split() == ["True", "trained"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "from ssdkd_agents.policies.algorithms import algorithm_class; algorithm_class('tqc')",
            "algo='tqc' needs the package 'sb3-contrib'; install it with: pip install 'ssdkd-env[contrib]'",
        ),
        (
            "from ssdkd_agents.policies.algorithms import algorithm_class; algorithm_class('ars')",
            "algo='ars' needs the package 'sb3-contrib'; install it with: pip install 'ssdkd-env[contrib]'",
        ),
        (
            "from ssdkd_agents.searching.searchers import EvolutionStrategy as S; S([0, 0], 8, 4, 1, iter([0]), None)",
            "searcher='cma' needs the package 'cma'; install it with: pip install 'ssdkd-env[search]'",
        ),
        (
            "from ssdkd_env.tasks.data.images import ImageStack; ImageStack('data', 1, 3, 1).decode(0, 'a.png', b'')",
            "data needs the package 'pillow'; install it with: pip install 'ssdkd-env[images]'",
        ),
        (
            "from ssdkd_env.tasks.data.hub import read_hub; read_hub('data', 'owner/name', 'test', 3)",
            "data needs the package 'datasets'; install it with: pip install 'ssdkd-env[hub]'",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(code: str, message: str) -> None:
    statement = code.replace("; ", "\n    ")
    shown = without(
        OPTIONAL - {"matplotlib"} - ({"PIL"} if "searchers" in code or "algorithms" in code else set()),
        f"from ssdkd_env.errors import InvalidInputError\ntry:\n    {statement}\nexcept InvalidInputError as e:\n"
        "    print(e)",
    )
    assert shown.strip() == message


DRAWING = ("distill", "evaluate", "benchmark", "results compare", "results plot", "results policy")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_ends_in_a_traceback_without_matplotlib(name: str, tmp_path: Path) -> None:
    words = [*name.split(), "--help"]
    if name == "distill":
        words = ["distill", "--out", str(tmp_path / "out")]
    block = "import sys; sys.modules['matplotlib'] = None"
    code = f"{block}\nfrom ssdkd_agents.commands.main import main\nmain({words!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert "Traceback" not in done.stderr
    if name in DRAWING:
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "needs the package 'matplotlib'; install it with: pip install 'ssdkd-env[plot]'" in done.stderr
        assert not (tmp_path / "out").exists()
    else:
        assert done.returncode == 0


def test_what_is_installed_is_imported() -> None:
    assert load_extra("cma", "a test").__name__ == "cma"


def test_a_package_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(InvalidInputError, match=r"^a test needs the package 'cma'; install it with: pip install"):
        load_extra("cma", "a test")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
def test_every_extra_that_is_named_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    for extra, package in EXTRAS.values():
        assert any(requirement.startswith(package) for requirement in declared[extra]), (extra, package)
        assert not any(requirement.startswith(package) for requirement in project["dependencies"])
    assert {"contrib", "search", "plot", "images", "hub", "video", "all", "dev"} <= set(declared)
