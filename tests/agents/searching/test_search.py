"""A search plays what it should, loses nothing, and goes on exactly where it stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episode
from ssdkd_agents.environments import make_env
from ssdkd_agents.lines import append_line, read_lines
from ssdkd_agents.ownership import LOCK
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.searching import search as module
from ssdkd_agents.searching.search import SearchConfig, config_of_search, constant_name, search, searcher_of
from ssdkd_agents.seeds import VALIDATION_SEED
from tensorboard import context  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import custom_scalars_plugin  # type: ignore[import-untyped]

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from tests.agents.test_curves import page_of, table_of
from tests.agents.trainings import curves, interrupt_after, scalars
from tests.envs.episodes import BUDGET, SMALL_PROBE

ENV_KWARGS: dict[str, Any] = {"budget": BUDGET | {"rounds": 2}, "probe": SMALL_PROBE}
RANDOM = SearchConfig(
    env_id="SSDKD/Digits-v2",
    searcher="random",
    episodes=10,
    env_kwargs=ENV_KWARGS,
    vectorization="loop",
    num_envs=3,
    population=4,
    evaluate_every_steps=8,
    evaluation_episodes=2,
)
CMA = replace(RANDOM, searcher="cma")
CONFIGS = {"random": RANDOM, "cma": CMA}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path_factory.getbasetemp() / "search-cache"))


def run(path: Path, config: SearchConfig = RANDOM) -> str:
    return search(config, RunFolder(path, asdict(config)), progress_bar=False)


def go_on(path: Path) -> str:
    folder = RunFolder(path, None)
    return search(config_of_search(folder), folder, progress_bar=False)


def left_by(path: Path) -> dict[str, Any]:
    """Everything that a search leaves, but for clock values."""
    lines = {
        name: [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in (read_lines(path / name) if (path / name).exists() else [])
        ]
        for name in ("episodes.jsonl", "evaluations.jsonl")
    }
    return lines | {"constant.json": json.loads((path / "constant.json").read_text())}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished searches by searcher. Tests leave them as they are."""
    paths = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSDKD_CACHE", str(tmp_path_factory.getbasetemp() / "search-cache"))
        for name, config in CONFIGS.items():
            paths[name] = tmp_path_factory.mktemp("searches") / name
            assert run(paths[name], config) == "finished"
    return paths


# --- what a search leaves ---


@pytest.mark.parametrize("searcher", CONFIGS)
def test_search_leaves_its_files(searcher: str, finished: dict[str, Path]) -> None:
    path = finished[searcher]
    names = {str(file.relative_to(path)).split("/")[0] for file in path.rglob("*") if file.is_file()}
    assert names == {
        "config.json", "command.txt", "episodes.jsonl", "evaluations.jsonl", "constant.json", "tensorboard", LOCK,
    }  # fmt: skip
    assert config_of_search(RunFolder(path, None)) == CONFIGS[searcher]


@pytest.mark.parametrize("searcher", CONFIGS)
def test_every_episode_is_a_line_like_a_trainings(searcher: str, finished: dict[str, Path]) -> None:
    lines = read_lines(finished[searcher] / "episodes.jsonl")
    assert [line["timesteps"] for line in lines] == list(range(2, 21, 2))
    for line in lines:
        scores = {"return", "accuracy", "probe_agreement"}
        assert set(line) == scores | {"timesteps", "rounds", "seconds", "action", "seed", "instance"}
        assert line["rounds"] == 2
        assert 0 <= line["accuracy"] <= 1
        assert 0 <= line["seed"] < VALIDATION_SEED
        assert len(line["action"]) == 5
    assert sorted(line["seconds"] for line in lines) == [line["seconds"] for line in lines]


def test_an_episode_is_what_its_action_gives_alone(finished: dict[str, Path]) -> None:
    for line in read_lines(finished["random"] / "episodes.jsonl")[3:5]:
        name = constant_name(line)
        alone = run_episode(EpisodeConfig(RANDOM.env_id, name, line["seed"], ENV_KWARGS))
        assert alone["return"] == line["return"]
        assert alone["final"]["accuracy"] == line["accuracy"]
        assert alone["final"]["probe_agreement"] == line["probe_agreement"]


@pytest.mark.parametrize("searcher", CONFIGS)
def test_constant_is_the_recommendation(searcher: str, finished: dict[str, Path]) -> None:
    value = json.loads((finished[searcher] / "constant.json").read_text())
    env = SSDKDEnv(**ENV_KWARGS)
    assert env.action_space.contains(np.array(value["action"], dtype=np.float32))
    assert value["action_names"] == list(env.action_names)
    assert (value["searcher"], value["episodes"], value["timesteps"]) == (searcher, 10, 20)
    assert (value["env_id"], value["env_kwargs"]) == (RANDOM.env_id, ENV_KWARGS)
    lines = read_lines(finished[searcher] / "episodes.jsonl")
    config = CONFIGS[searcher]
    replayed = searcher_of(config, make_env(config.env_id, config.env_kwargs))
    for line in lines:
        replayed.ask(1)
        replayed.tell(line["return"])
    found = replayed.recommendation()
    assert (value["mean_return"], value["plays"]) == (found.mean_return, found.plays)
    assert np.array_equal(np.array(value["action"], dtype=np.float32), found.action)


@pytest.mark.parametrize("searcher", CONFIGS)
def test_recommendation_is_evaluated_on_validation_seeds(searcher: str, finished: dict[str, Path]) -> None:
    lines = read_lines(finished[searcher] / "evaluations.jsonl")
    steps = [line["timesteps"] for line in lines]
    assert steps[-1] == 20, "at the end"
    assert [step // 8 for step in steps] == [1, 2, 2], "and once after each multiple of 8"
    for line in lines:
        assert set(line) == {"timesteps", "seeds", "returns", "accuracies", "seconds", "mean_return", "action"}
        assert line["seeds"] == [500_000, 500_001]
        assert line["mean_return"] == np.mean(line["returns"])
        alone = run_episode(EpisodeConfig(RANDOM.env_id, constant_name(line), VALIDATION_SEED + 1, ENV_KWARGS))
        assert (line["returns"][1], line["accuracies"][1]) == (alone["return"], alone["final"]["accuracy"])
        assert len(line["returns"]) == len(line["accuracies"]) == 2
    assert lines[-1]["action"] == json.loads((finished[searcher] / "constant.json").read_text())["action"]


def test_tensorboard_shows_returns_and_the_best(finished: dict[str, Path]) -> None:
    path = finished["random"]
    returns = [line["return"] for line in read_lines(path / "episodes.jsonl")]
    curve = dict(scalars(path, "rollout/ep_rew_mean"))
    assert curve[6] == pytest.approx(np.mean(returns[:3]), abs=1e-6)
    assert curve[20] == pytest.approx(np.mean(returns), abs=1e-6)
    best = dict(scalars(path, "search/best"))
    assert best[6] == pytest.approx(max(returns[:3]), abs=1e-6)
    assert best[20] == pytest.approx(json.loads((path / "constant.json").read_text())["mean_return"], abs=1e-6)
    validation = dict(scalars(path, "eval/mean_reward"))
    assert validation[20] == pytest.approx(np.mean(read_lines(path / "evaluations.jsonl")[-1]["returns"]), abs=1e-6)


def test_accuracy_plays_no_part(finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SSDKDEnv._info
    monkeypatch.setattr(SSDKDEnv, "_info", lambda self: original(self) | {"accuracy": 0.5})
    run(tmp_path / "run")
    without = left_by(tmp_path / "run")
    expected = left_by(finished["random"])
    assert without["constant.json"] == expected["constant.json"]
    assert [line["action"] for line in without["episodes.jsonl"]] == [
        line["action"] for line in expected["episodes.jsonl"]
    ]


def test_number_of_environments_does_not_change_what_is_played(finished: dict[str, Path], tmp_path: Path) -> None:
    run(tmp_path / "run", replace(CMA, num_envs=4, vectorization="grouped", evaluate_every_steps=0))
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
    grouped, alone = (read_lines(path / "episodes.jsonl") for path in (tmp_path / "run", finished["cma"]))
    assert [line["seed"] for line in grouped] == [line["seed"] for line in alone]
    assert [line["action"] for line in grouped[:4]] == [line["action"] for line in alone[:4]]


# --- going on ---


@pytest.mark.parametrize("searcher", CONFIGS)
@pytest.mark.parametrize("steps", [0, 7, 14], ids=["first batch", "second batch", "evaluation"])
def test_interrupted_search_goes_on_as_if_nothing_had_been(
    searcher: str, steps: int, finished: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    with interrupt_after(steps):
        assert run(path, CONFIGS[searcher]) == "interrupted"
    before = (path / "episodes.jsonl").read_text() if (path / "episodes.jsonl").exists() else ""
    assert go_on(path) == "finished"
    assert (path / "episodes.jsonl").read_text().startswith(before)
    assert left_by(path) == left_by(finished[searcher])
    assert curves(path) == curves(finished[searcher])


@pytest.mark.parametrize("lines", [4, 8])
def test_curves_of_a_killed_search_are_those_of_the_whole(
    lines: int, finished: dict[str, Path], tmp_path: Path
) -> None:
    """One that had written more of them than of its lines; or lines, and no curve of them yet."""
    for written in (True, False):
        path = tmp_path / str(written)
        shutil.copytree(finished["cma"], path)
        kept = (path / "episodes.jsonl").read_bytes().splitlines(keepends=True)[:lines]
        (path / "episodes.jsonl").write_bytes(b"".join(kept))
        kept = (path / "evaluations.jsonl").read_bytes().splitlines(keepends=True)[: lines // 4]
        (path / "evaluations.jsonl").write_bytes(b"".join(kept))
        if not written:
            shutil.rmtree(path / "tensorboard")
        assert go_on(path) == "finished"
        expected = curves(finished["cma"])
        if not written:  # what came before is lost with the file; the last point is there
            expected = {tag: [point for point in curve if point[0] >= 2 * lines] for tag, curve in expected.items()}
        assert curves(path) == expected


def test_search_has_a_row_of_the_table_and_its_curve_on_the_page(finished: dict[str, Path]) -> None:
    _, rows = table_of(finished["cma"])
    (row,) = rows.values()
    assert row.hparams["algorithm"].string_value == "search: constant, cma" and row.hparams["seed"].number_value == 0
    assert row.hparams["env_kwargs"].string_value == str(ENV_KWARGS)
    assert "'population': 4" in row.hparams["hyperparameters"].string_value
    best = json.loads((finished["cma"] / "constant.json").read_text())["mean_return"]
    evaluation = read_lines(finished["cma"] / "evaluations.jsonl")[-1]
    metrics = {metric.name.tag: metric.value for metric in row.metric_values}
    assert metrics["search/best"] == pytest.approx(best, abs=1e-6)
    assert metrics["eval/mean_reward"] == pytest.approx(evaluation["mean_return"], abs=1e-6)
    assert metrics["eval/mean_accuracy"] == pytest.approx(np.mean(evaluation["accuracies"]), abs=1e-6)
    plugin = custom_scalars_plugin.CustomScalarsPlugin(page_of(finished["cma"]))
    page = plugin.layout_impl(context.RequestContext(), "")
    assert all(f'"{tag}"' in page for tag in curves(finished["cma"]))


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_search_that_was_killed_goes_on_from_any_line(lines: int, finished: dict[str, Path], tmp_path: Path) -> None:
    """A killed one may have written some episodes of a batch only."""
    path = tmp_path / "run"
    config = replace(CMA, evaluate_every_steps=0)
    RunFolder(path, asdict(config))
    text = (finished["cma"] / "episodes.jsonl").read_text().splitlines(keepends=True)
    (path / "episodes.jsonl").write_text("".join(text[:lines]))
    assert go_on(path) == "finished"
    expected = left_by(finished["cma"])
    assert left_by(path) == expected | {"evaluations.jsonl": []}


def test_seconds_go_on(tmp_path: Path, finished: dict[str, Path]) -> None:
    path = tmp_path / "run"
    RunFolder(path, asdict(RANDOM))
    lines = read_lines(finished["random"] / "episodes.jsonl")[:3]
    (path / "episodes.jsonl").write_text("".join(json.dumps(line | {"seconds": 1e4}) + "\n" for line in lines))
    go_on(path)
    assert all(1e4 < line["seconds"] < 2e4 for line in read_lines(path / "episodes.jsonl")[3:])


def test_finished_search_has_nothing_to_do(finished: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in finished["cma"].rglob("*") if file.is_file()}
    monkeypatch.setattr(module, "SubEnvironments", lambda *_: pytest.fail("nothing is to be played"))
    assert go_on(finished["cma"]) == "finished"
    assert {file: file.read_bytes() for file in finished["cma"].rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("change", [{"action": [0.0] * 5}, {"seed": 3}], ids=str)
def test_episodes_of_another_search_are_refused(
    change: dict[str, Any], finished: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    RunFolder(path, asdict(RANDOM))
    lines = read_lines(finished["random"] / "episodes.jsonl")[:3]
    lines[2] |= change
    (path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InvalidInputError, match="is not what this search plays in episode 2"):
        go_on(path)


def test_more_episodes_than_the_budget_are_refused(finished: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunFolder(path, asdict(RANDOM))
    for line in read_lines(finished["random"] / "episodes.jsonl"):
        append_line(path / "episodes.jsonl", line)
    append_line(path / "episodes.jsonl", line | {"seconds": 1e6})
    with pytest.raises(InvalidInputError, match="is not what this search plays in episode 10"):
        go_on(path)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"searcher": "grid"}, "searcher='grid' is unknown"),
        ({"vectorization": "threads"}, "vectorization='threads' is unknown"),
        ({"seed": 1000}, "seed=1000: expected a number from 0 to 999"),
        ({"seed": -1}, "seed=-1"),
        ({"episodes": 0}, "episodes=0: expected a number from 1 to 500,000"),
        ({"episodes": 500_001}, "episodes=500001"),
        ({"final_share": 1.0}, "final_share=1.0: expected a number from 0 to below 1"),
        ({"final_share": -0.1}, "final_share=-0.1"),
        ({"num_envs": 0}, "num_envs=0: expected a number of at least 1"),
        ({"population": 3}, "population=3: expected a number of at least 4"),
        ({"evaluate_every_steps": -1}, "evaluate_every_steps=-1"),
        ({"evaluation_episodes": 0}, "evaluation_episodes=0"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        replace(RANDOM, **changes)


def test_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", {"env_id": "SSDKD/Digits-v2", "algorithm": "ppo"})
    with pytest.raises(InvalidInputError, match="was not made by ssdkd search"):
        config_of_search(RunFolder(tmp_path / "run", None))


def test_search_killed_between_its_last_episode_and_its_plan_has_the_plan_of_the_whole(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    """With an evaluation that is still due."""
    path = tmp_path / "run"
    shutil.copytree(finished["random"], path)
    whole = left_by(path)
    plan = whole["constant.json"] | {"mean_return": -1.0, "episodes": 3}
    (path / "constant.json").write_text(json.dumps(plan))
    evaluations = (path / "evaluations.jsonl").read_bytes().splitlines(keepends=True)
    (path / "evaluations.jsonl").write_bytes(b"".join(evaluations[:-1]))
    assert go_on(path) == "finished"
    assert left_by(path) == whole
