"""The learning curve of a distillation, and what is said of a collapsed generator."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from ssdkd_agents.curves import BUFFER_TAGS, STUDENT_TAGS
from ssdkd_agents.distilling.curve import CLASSES_TAG, FEW, INVERSION_TAGS, LearningCurve
from ssdkd_agents.distilling.recent import Recent
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.task import build_teacher
from tests.agents.trainings import curves
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE
from tests.own_networks import DENSE_TASK


def play(folder: Path, **arguments: Any) -> tuple[SSDKDEnv, list[dict[str, Any]]]:
    """An episode with its curve; returns infos after the warm-up and after each step."""
    env, recent = SSDKDEnv(**({"budget": BUDGET, "probe": SMALL_PROBE} | arguments)), Recent()
    _, info = env.reset(seed=1)
    assert env.run is not None
    recent.see(env.run)
    curve, infos, over = LearningCurve(folder, env, recent, {}, info), [info], False
    while not over:
        _, _, over, _, info = env.step(env.own_action)
        recent.see(env.run)
        curve.see(info)
        infos.append(info)
    return env, infos


def test_every_round_has_its_numbers(tmp_path: Path) -> None:
    env, infos = play(tmp_path)
    written = curves(tmp_path)
    for tag, key in (STUDENT_TAGS | INVERSION_TAGS | BUFFER_TAGS | {"student/learning_rate": "learning_rate"}).items():
        if key == "mean_iou":
            assert tag not in written
            continue
        begins = 1 if tag in ("student/loss", "student/learning_rate", "buffer/replaced",
                              "buffer/effective_sample_size") else 0  # fmt: skip
        expected: Any = [(info["round"], pytest.approx(float(info[key]), rel=1e-6)) for info in infos[begins:]]
        assert written[tag] == expected, tag
    assert [step for step, _ in written[CLASSES_TAG]] == list(range(ROUNDS + 1))
    assert env.run is not None
    counts = env.run.synthesized_class_counts / env.run.synthesized_class_counts.sum()
    # 64 images in all, fewer than ten of each class: the last value is of all of them.
    assert written[CLASSES_TAG][-1][1] == pytest.approx(math.exp(torch.special.entr(counts).sum()), rel=1e-6)


def test_accuracy_is_written_when_it_was_measured(tmp_path: Path) -> None:
    _, infos = play(tmp_path, evaluate_every_rounds=2, budget=BUDGET | {"rounds": 5})
    written = curves(tmp_path)
    expected: Any = [(n, pytest.approx(infos[n]["accuracy"])) for n in (0, 2, 4, 5)]
    assert written["student/accuracy"] == expected
    assert len(written["student/probe_agreement"]) == 6


def test_pictures_of_the_buffer_come_ten_times_at_most(tmp_path: Path) -> None:
    play(tmp_path, budget=BUDGET | {"rounds": 25, "student_steps": 1, "inversion_steps": 1})
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("buffer/images")] == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25]


def test_a_method_that_synthesises_nothing_has_no_classes(tmp_path: Path) -> None:
    play(tmp_path, method="vanilla_kd")
    assert CLASSES_TAG not in curves(tmp_path)


class Counted(Recent):
    """Says so many classes, one number a step."""

    def __init__(self, *classes: float | None) -> None:
        super().__init__()
        self.said = iter(classes)

    @property
    def is_enough(self) -> bool:
        return True

    @property
    def effective_classes(self) -> float | None:
        return next(self.said)


def complaints(tmp_path: Path, classes: tuple[float | None, ...], **arguments: Any) -> list[str]:
    env = SSDKDEnv(**({"budget": BUDGET, "probe": SMALL_PROBE} | arguments))
    _, info = env.reset(seed=1)
    curve = LearningCurve(tmp_path, env, Counted(*classes), {}, info)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for round_number in range(1, len(classes)):
            curve.see(info | {"round": round_number, "progress": round_number / len(classes)})
    return [str(warning.message) for warning in caught]


def test_images_of_few_classes_are_said_once_with_the_figure(tmp_path: Path) -> None:
    """Of ten classes, below five and a half; not of the warm-up, which is before the student learns."""
    (said,) = complaints(tmp_path, (1.0, 5.6, 5.4, 3.0, 2.0))
    assert said.startswith("round 2: the images are of few classes, effectively 5.4 of 10 (")
    assert "5.5 or more are expected" in said and "--method" in said
    assert complaints(tmp_path, (1.0, 5.5, 9.0, None)) == []


def test_of_dense_predictions_few_classes_are_fewer(tmp_path: Path) -> None:
    save_weights(tmp_path / "teacher.safetensors", build_teacher(DENSE_TASK, seed=3))
    own = {"task": "tests.own_networks:DENSE_TASK", "teacher": str(tmp_path / "teacher.safetensors"), "budget": None}
    few = 1 + 0.05 * (DENSE_TASK.num_classes - 1)
    assert complaints(tmp_path / "fine", (3.0, few + 0.01), **own) == []
    assert len(complaints(tmp_path / "few", (3.0, few - 0.01), **own)) == 1


def test_a_generator_that_collapses_is_said_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    """DAFL on digits, with the task's own budget, of which a round is enough."""
    with pytest.warns(UserWarning, match=r"round 1: the images are of few classes, effectively [234]\.\d of 10"):
        play(tmp_path / "dafl", method="dafl", budget={"rounds": 1})
    values = [value for _, value in curves(tmp_path / "dafl")[CLASSES_TAG]]
    assert max(values) < 1 + FEW * 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(tmp_path / "ssdkd", budget={"rounds": 1})
