"""The commands on dense predictions, one after the other: what one leaves the next one takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssdkd_agents.lines import read_lines
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from tests.scripts.commands import ENV_BUDGET, SMALL_PPO, in_this_process

TASK = "tests.own_networks:MAPS_TASK"
PROBE = ("--env.probe.generators", 1, "--env.probe.batches", 1, "--env.probe.kept", 1, "--env.probe.steps", 1)
DENSE = ("--env.task", TASK, "--env.probe.batch-size", 4, *PROBE)


def write_maps(folder: Path) -> Path:
    """PNGs of images and of label maps of four classes, some pixels without one, as a user has them."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for number in range(count):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            for kind, content in (("images", pixels), ("labels", pixels[:, :, 0] // 64)):
                path = folder / split / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
    return folder


def done(script: str, *arguments: object) -> str:
    result = in_this_process(script, *arguments)
    assert result.code == 0, result.stderr
    return result.stdout


def test_teacher_sampler_student_and_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    data, out = write_maps(tmp_path / "maps"), tmp_path / "runs"

    done("train_teacher", "--out", out / "teacher", "--task", TASK, "--data", data, "--settings.epochs", 1)
    card = json.loads((out / "teacher" / "teacher.json").read_text())
    assert 0.0 <= card["mean_iou"]["test"] <= 1.0 and len(card["class_iou"]) == 4

    # A sampler that has seen digits alone drives a segmentation.
    done("train_sampler", "--out", out / "sampler", "--algo", "ppo", "--timesteps", 6, *ENV_BUDGET, *PROBE,
         "--hyperparameters", *SMALL_PPO)  # fmt: skip
    given = ("--teacher", out / "teacher" / "teacher.safetensors", "--evaluation", data)
    probe = [str(word).replace("--env.", "--") for word in (*PROBE, "--env.probe.batch-size", 4)]
    done("distill", "--out", out / "student", "--task", TASK, *given, *probe, "--sampler", out / "sampler")
    student = json.loads((out / "student" / "student.json").read_text())
    assert 0.0 <= student["mean_iou"]["evaluation"] <= 1.0
    with Image.open(out / "student" / "picture.png") as picture:
        assert min(picture.size) > 100
    (folder,) = {file.parent for file in (out / "student").rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["images"] and any("mean_iou" in tag for tag in events.Tags()["scalars"])

    env = [str(word).replace("--", "--env.", 1) for word in given]
    table = done("evaluate_sampler", "--out", out / "evaluation", "--samplers", out / "sampler", "paper",
                 "--episodes", 2, "--processes", 1, *DENSE, *env)  # fmt: skip
    assert "mean IoU" in table
    table = done(
        "benchmark",
        "--out",
        out / "benchmark",
        "--methods",
        "ssdkd",
        "dfad",
        "--seeds",
        1,
        "--processes",
        1,
        *DENSE,
        *env,
    )
    assert "mean IoU" in table
    lines = read_lines(out / "benchmark" / "results.jsonl")
    assert len(lines) == 2 and all("mean_iou" in line["final"] for line in lines)
