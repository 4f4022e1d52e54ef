"""Documents point at what exists, and `results/` holds what they show."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import gymnasium
import pytest
from ssdkd_agents.keeping.index import problems
from ssdkd_agents.keeping.manifest import read_manifest

import ssdkd_env  # noqa: F401 (registers the environments of today)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")])
#: What `results/` may hold at most; the agents of the set that divides the work brought the last dozen.
MOST_FILES, MOST_BYTES = 112, 5_000_000


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target
    assert not re.findall(r"@[A-Z_]{3,}@", text)


@pytest.mark.parametrize("package", ["envs", "distillation", "tasks", "networks"])
def test_the_api_page_has_every_public_name(package: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    public = importlib.import_module(f"ssdkd_env.{package}").__all__
    assert not [name for name in public if not re.search(rf"\b{name}\b", page)]


def test_results_are_those_of_their_manifest_and_shown() -> None:
    """Files, hashes, what shows them, and the table: one `ssdkd results keep` or `index` mends what is said here."""
    manifest = read_manifest(RESULTS)
    assert manifest
    assert list(problems(RESULTS, manifest)) == []


def test_results_are_few_and_small() -> None:
    sizes = [path.stat().st_size for path in RESULTS.iterdir()]
    assert len(sizes) <= MOST_FILES
    assert sum(sizes) <= MOST_BYTES


def test_experiments_that_are_cited_exist() -> None:
    """In the evidence every name of this form is one of an experiment; elsewhere it stands behind `results/`."""
    manifest = read_manifest(RESULTS)
    cited = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", (ROOT / "docs" / "evidence.md").read_text()))
    texts = [path for folder in ("ssdkd_env", "agents", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in [*DOCUMENTS, *texts]:
        cited |= set(re.findall(r"`results/([a-z0-9-]+)`", path.read_text()))
    assert cited
    assert not cited - set(manifest)


def test_files_of_results_that_are_cited_exist() -> None:
    cited = {
        file
        for path in [*DOCUMENTS, *(ROOT / "agents").rglob("*.py")]
        for file in re.findall(r"\bresults/((?:digits|cifar|fast|scaling)[\w.-]*\.[a-z]+)", path.read_text())
    }
    assert cited
    assert not [file for file in cited if not (RESULTS / file).exists()]


def test_every_experiment_says_which_engine_played_it_and_earlier_ones_which_commit() -> None:
    for name, experiment in read_manifest(RESULTS).items():
        assert experiment.about and experiment.command and experiment.environments, name
        assert experiment.commits or set(experiment.environments) <= set(gymnasium.registry), name
