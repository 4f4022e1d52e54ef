"""Dense predictions: trainings and searches show the mean IoU of students wherever they show an accuracy."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.searching.search import SearchConfig, search
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]

from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.task import build_teacher
from tests.agents.trainings import PPO, curves, run
from tests.envs.episodes import SMALL_PROBE
from tests.own_networks import DENSE_TASK

SCORES = ("accuracy", "mean_iou")


@pytest.fixture
def dense(tmp_path: Path) -> dict[str, Any]:
    """Arguments of an environment whose images have label maps."""
    save_weights(tmp_path / "teacher.safetensors", build_teacher(DENSE_TASK, seed=3))
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "maps.npz", images=images, labels=(images[:, 0] // 64).astype(np.uint8))
    files = {"teacher": str(tmp_path / "teacher.safetensors"), "evaluation": str(tmp_path / "maps.npz")}
    return {"task": "tests.own_networks:DENSE_TASK", "probe": SMALL_PROBE} | files


def play(what: str, path: Path, env_kwargs: dict[str, Any]) -> None:
    if what == "training":
        hyperparameters = PPO.hyperparameters | {"n_steps": 4, "batch_size": 4}
        run(path, replace(PPO, timesteps=4, env_kwargs=env_kwargs, hyperparameters=hyperparameters,
                          evaluate_every_steps=4, evaluation_episodes=2))  # fmt: skip
        return
    config = SearchConfig(env_id=PPO.env_id, env_kwargs=env_kwargs, searcher="random", episodes=2, num_envs=1,
                          evaluate_every_steps=4, evaluation_episodes=2)  # fmt: skip
    search(config, RunFolder(path, asdict(config)), progress_bar=False)


def charts(path: Path) -> list[str]:
    """Tags of the first category of the page *Custom scalars*."""
    (folder,) = {file.parent for file in path.rglob("events.out.tfevents.*")}
    (event,) = EventAccumulator(str(folder)).Reload().Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return [tag for chart in layout.category[0].chart for tag in chart.multiline.tag]


@pytest.mark.parametrize("what", ["training", "search"])
def test_validation_and_students_have_their_mean_iou(what: str, dense: dict[str, Any], tmp_path: Path) -> None:
    play(what, tmp_path / "run", dense)
    written, line = curves(tmp_path / "run"), read_lines(tmp_path / "run" / "evaluations.jsonl")[-1]
    for name, tag in (("accuracies", "eval/mean_accuracy"), ("mean_ious", "eval/mean_iou")):
        assert len(line[name]) == 2
        step, value = written[tag][-1]
        assert step == line["timesteps"] and value == pytest.approx(np.mean(line[name]), abs=1e-6)
    assert line["mean_ious"] != line["accuracies"]
    episodes = read_lines(tmp_path / "run" / "episodes.jsonl")
    assert written["student/mean_iou"][-1][1] == pytest.approx(episodes[-1]["mean_iou"], abs=0.5)
    shown = set(charts(tmp_path / "run"))
    assert shown >= {"eval/mean_accuracy", "eval/mean_iou", "student/accuracy", "student/mean_iou"}
    assert shown <= set(written), "no chart is empty"


@pytest.mark.parametrize("what", ["training", "search"])
def test_without_real_images_no_chart_waits_for_them(what: str, dense: dict[str, Any], tmp_path: Path) -> None:
    del dense["evaluation"]
    play(what, tmp_path / "run", dense)
    assert "mean_ious" not in read_lines(tmp_path / "run" / "evaluations.jsonl")[-1]
    assert set(charts(tmp_path / "run")) <= set(curves(tmp_path / "run"))
