"""What is published: what the files hold, that they work where they are installed, and how little they weigh.

Packages of others come from the package index; where it is out of reach these tests fail, and say so. Requirements of
our own are borrowed from the environment of the tests, because installing PyTorch once more takes minutes and
gigabytes; `scripts/check_pythons.py` does that, for every Python.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from check_pythons import EPISODE, TRAIN, declared, minor
from laboratory.builds import Built, Environment, build, damaged_files, run, weigh
from ssdkd_agents.lines import read_lines

from ssdkd_env import __version__

pytestmark = pytest.mark.packaging
ROOT = Path(__file__).parents[1]
#: Folder of the source tree → package in the wheel.
PACKAGES = {"ssdkd_env": "ssdkd_env", "agents/ssdkd_agents": "ssdkd_agents"}
FOLDERS = (".ci", "agents", "docs", "examples", "results", "scripts", "ssdkd_env", "tests")
FILES = (
    *(".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md"),
    *("constraints.txt", "pyproject.toml", "setup.py"),
)
#: What the source distribution's own tests are tried with; they take seconds and touch code, data and documents.
SOME_TESTS = ("tests/test_documents.py", "tests/distillation/test_priority.py", "tests/agents/test_runs.py")
#: Bounds of the light core; 1,996 kB, 27,166 lines and 0.2 s measured. Most of the bytes are eleven digits teachers and
#: their probe sets, without which no episode of an instance set could begin at once on a new machine.
MOST_KILOBYTES, MOST_LINES, MOST_DEPENDENCIES, MOST_SECONDS = 2050, 30_000, 13, 0.3


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("built"))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- what the files hold ---


def test_wheel_holds_the_two_packages_whole_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    about = {name for name in names if name.startswith(f"ssdkd_env-{__version__}.dist-info/")}
    expected = {
        f"{package}/{name}" for folder, package in PACKAGES.items() for name in files_below(built.tree / folder)
    }
    assert names - about == expected
    assert {name.rpartition(".dist-info/")[2] for name in about} == {
        *("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
    }
    suffixes = {Path(name).suffix for name in expected} | {Path(name).name for name in expected if "typed" in name}
    assert suffixes == {".py", ".typed", "py.typed", ".yml", ".npz", ".json", ".safetensors"}


def test_source_distribution_is_the_tree(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        (top,) = {Path(name).parts[0] for name in archive.getnames()}
    assert top == f"ssdkd_env-{__version__}"
    for folder in FOLDERS:
        assert files_below(built.sources / folder) == files_below(built.tree / folder), folder
    others = {path.name for path in built.sources.iterdir()} - {*FOLDERS, *FILES}
    assert others == {"PKG-INFO", "setup.cfg", "ssdkd_env.egg-info"}
    assert {path.name for path in built.sources.iterdir()} >= {*FOLDERS, *FILES}


def test_source_distribution_passes_tests_of_its_own(built: Built, tmp_path: Path) -> None:
    sources = tmp_path / "elsewhere"
    built.sources.rename(sources)
    try:
        paths = f"{sources}:{sources / 'agents'}"
        where = "import ssdkd_env, ssdkd_agents; print(ssdkd_env.__file__, ssdkd_agents.__file__)"
        files = run([sys.executable, "-c", where], tmp_path, {"PYTHONPATH": paths}).split()
        assert [Path(file).is_relative_to(sources) for file in files] == [True, True]
        run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *SOME_TESTS], sources, {"PYTHONPATH": paths})
    finally:
        sources.rename(built.sources)


def test_declared_pythons_are_one_range_that_tools_check(built: Built) -> None:
    versions = declared(built)
    lowest, highest = minor(versions[0]), minor(versions[-1])
    assert versions == [f"3.{number}" for number in range(lowest, highest + 1)]
    assert built.metadata()["Requires-Python"] == f">=3.{lowest}"
    assert f'target-version = "py3{lowest}"' in (ROOT / "pyproject.toml").read_text()
    assert lowest <= sys.version_info.minor <= highest


# --- how it looks on an index ---


def test_long_description_shows_on_an_index(built: Built, tmp_path: Path) -> None:
    description = str(built.metadata().get_payload())
    headings = re.findall(r"(?m)^#+ .*$", (ROOT / "README.md").read_text())
    assert [heading for heading in headings if heading not in description] == []

    environment = Environment.create(tmp_path / "venv")
    environment.pip("install", "--quiet", "twine", "readme_renderer[md]")
    run([environment.python, "-m", "twine", "check", "--strict", built.sdist, built.wheel], tmp_path)
    source = tmp_path / "description.md"
    source.write_text(description)
    code = "import sys, readme_renderer.markdown as m; print(m.render(open(sys.argv[1]).read()))"
    page = run([environment.python, "-c", code, source], tmp_path)
    assert page.count("<h2") == sum(heading.startswith("## ") for heading in headings)
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


# --- beside others ---

WHERE = """
import agents, ssdkd_agents, ssdkd_env
print(agents.Agent.__module__, agents.Runner.__module__)
print(agents.__file__, ssdkd_agents.__file__, ssdkd_env.__file__)
"""


def assert_whole(environment: Environment, name: str) -> None:
    assert list(damaged_files(environment.distributions()[name])) == []


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment.create(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def together(request: pytest.FixtureRequest, environment: Environment, built: Built) -> Iterator[Environment]:
    """An environment with both, installed in an order; requirements of openai-agents stay for the next order."""
    arguments = {"ssdkd-env": ("--no-deps", built.wheel), "openai-agents": ("openai-agents",)}
    for name in request.param:
        environment.pip("install", "--quiet", *arguments[name])
    with environment.borrowing(Path(sysconfig.get_path("purelib"))):
        yield environment
    environment.pip("uninstall", "--quiet", "--yes", *(arguments.keys() & environment.distributions().keys()))


@pytest.mark.parametrize(
    "together", [("ssdkd-env", "openai-agents"), ("openai-agents", "ssdkd-env")], indirect=True, ids=" then ".join
)
def test_lives_beside_openai_agents_and_trains(together: Environment, tmp_path: Path) -> None:
    """Its top-level package is called `agents`."""
    together.pip("check")
    for name in ("ssdkd-env", "openai-agents"):
        assert_whole(together, name)
    files = {name: {str(file) for file in found.files or ()} for name, found in together.distributions().items()}
    ours = files.pop("ssdkd-env")
    assert {name: sorted(ours & theirs) for name, theirs in files.items() if ours & theirs} == {}

    modules, paths = (line.split() for line in run([together.python, "-c", WHERE], tmp_path).splitlines())
    assert [name.partition(".")[0] for name in modules] == ["agents", "agents"]
    expected = [f"{name}/__init__.py" for name in ("agents", "ssdkd_agents", "ssdkd_env")]
    assert [str(Path(path).relative_to(together.packages)) for path in paths] == expected
    assert expected[0] in files["openai-agents"]
    assert {*expected[1:]} <= ours

    ssdkd = together.folder / "bin" / "ssdkd"
    assert run([ssdkd, "--version"], tmp_path) == f"ssdkd-env {__version__}\n"
    assert "ssdkd train" in run([ssdkd, "--help"], tmp_path)
    assert "finished; last checkpoint in" in run([ssdkd, *TRAIN], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "checkpoints" / "10.safetensors").is_file()
    assert read_lines(tmp_path / "run" / "episodes.jsonl")[-1]["timesteps"] == 10

    together.pip("uninstall", "--quiet", "--yes", "openai-agents")
    assert not (together.packages / "agents").exists()
    assert_whole(together, "ssdkd-env")
    assert run([ssdkd, "--version"], tmp_path) == f"ssdkd-env {__version__}\n"
    assert int(run([together.python, "-c", EPISODE], tmp_path)) == 2


# --- how light it is ---


def test_core_is_light(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path)
    code = "import sys, time; a = time.process_time(); import ssdkd_env; b = time.process_time(); "
    code += "print(b - a, 'torch' in sys.modules, ssdkd_env.__file__)"
    turns = [run([sys.executable, "-c", code], tmp_path, {"PYTHONPATH": str(tmp_path)}).split() for _ in range(5)]
    assert {(loaded, file) for _, loaded, file in turns} == {("False", str(tmp_path / "ssdkd_env" / "__init__.py"))}
    seconds = min(float(turn[0]) for turn in turns)  # the quietest turn: the machine may be doing other things
    weight = weigh(built)
    assert weight.wheel_kilobytes <= MOST_KILOBYTES
    assert weight.python_lines <= MOST_LINES
    assert weight.dependencies <= MOST_DEPENDENCIES
    assert seconds <= MOST_SECONDS
