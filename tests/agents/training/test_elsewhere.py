"""A training or a search whose environments are with workers, some of which die, is the one on this machine."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.runs import EPISODES_FILE, RunFolder
from ssdkd_agents.searching.search import SearchConfig, search
from ssdkd_agents.training.train import train

from tests.agents.training.test_resume import CASES, assert_same_run
from tests.agents.trainings import PPO, go_on, interrupt_after, run
from tests.fragile import Fragile

CONFIG = replace(CASES["ppo on two"], evaluate_every_steps=8, evaluation_episodes=3)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on this machine."""
    folder, outcome = run(tmp_path_factory.mktemp("here") / "run", CONFIG)
    assert outcome == "finished"
    return folder.path


def elsewhere(path: Path, executor: Fragile) -> str:
    return train(CONFIG, RunFolder(path, asdict(CONFIG)), progress_bar=False, executor=executor)


@pytest.mark.parametrize("deaths", [(), (3, 9, 20, 21, 40)], ids=["none dies", "five die"])
def test_training_is_the_same_whoever_has_its_environments(deaths: tuple[int, ...], here: Path, tmp_path: Path) -> None:
    executor = Fragile(deaths)
    assert elsewhere(tmp_path / "run", executor) == "finished"
    assert executor.started == 2 + len(deaths), "those of the validation are with the same workers"
    assert executor.answers > 40
    assert_same_run(tmp_path / "run", here)


def test_training_goes_on_here_where_it_was_interrupted_there(here: Path, tmp_path: Path) -> None:
    with interrupt_after(13):
        assert elsewhere(tmp_path / "run", Fragile()) == "interrupted"
    assert go_on(tmp_path / "run", CONFIG) == "finished"
    assert_same_run(tmp_path / "run", here)


def test_search_is_the_same_whoever_has_its_environments(tmp_path: Path) -> None:
    config = SearchConfig(PPO.env_id, "random", episodes=5, env_kwargs=PPO.env_kwargs, num_envs=2, vectorization="loop")
    played: list[list[dict[str, Any]]] = []
    for name, executor in (("here", None), ("there", Fragile({4}))):
        folder = RunFolder(tmp_path / name, asdict(config))
        assert search(config, folder, progress_bar=False, executor=executor) == "finished"
        lines = read_lines(folder.path / EPISODES_FILE)
        played.append([{key: value for key, value in line.items() if key != "seconds"} for line in lines])
    assert played[0] == played[1]
