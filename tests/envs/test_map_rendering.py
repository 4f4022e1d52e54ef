"""Pictures of dense predictions: image, teacher's map, student's map, and a legend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.map_rendering import ENTRY, GAP, LINE, draw_legend, legend_rows, palette, triptych
from ssdkd_env.envs.rendering import HEIGHT, MAPS_HEIGHT, MAPS_WIDTH, WIDTH
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.task import Task, build_teacher
from tests.envs.episodes import SMALL_PROBE, actions_of, assert_same, reset, steps
from tests.own_networks import DENSE_TASK

TASK = "tests.own_networks:DENSE_TASK"


@pytest.fixture
def env(tmp_path: Path) -> SSDKDEnv:
    """Begun, with evaluation data."""
    save_weights(tmp_path / "teacher.safetensors", build_teacher(DENSE_TASK, seed=3))
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "maps.npz", images=images, labels=(images[:, 0] // 64).astype(np.uint8))
    made = SSDKDEnv(
        TASK,
        teacher=str(tmp_path / "teacher.safetensors"),
        evaluation=str(tmp_path / "maps.npz"),
        probe=SMALL_PROBE,
        render_mode="rgb_array",
    )
    made.reset(seed=0)
    return made


def test_rows_are_image_teachers_map_and_students_map(env: SSDKDEnv) -> None:
    assert env.run is not None
    picture = triptych(env.run, width=3 * 8 + 2 * GAP + 7, height=3 * 8 + 2 * GAP)
    assert picture.shape == (3 * 8 + 2 * GAP, 3 * 8 + 2 * GAP, 3)
    residents, colors = env.run.buffer.residents, palette(4)
    hardest = residents.discrepancy.argsort(descending=True, stable=True)[:3]
    teacher, student = env.run.teacher, env.run.student
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (DENSE_TASK.mean, DENSE_TASK.std))
    inputs = (residents.images[hardest] / 255 - mean) / std
    for column in range(3):
        left = slice(column * (8 + GAP), column * (8 + GAP) + 8)
        expected = [residents.images[hardest[column]].permute(1, 2, 0).numpy()]
        with torch.no_grad():
            expected += [colors[network(inputs)[column].argmax(dim=0).numpy()] for network in (teacher, student)]
        for row, part in enumerate(expected):
            top = slice(row * (8 + GAP), row * (8 + GAP) + 8)
            assert np.array_equal(picture[top, left], part), (row, column)


def test_colours_of_classes_differ_enough_to_be_told_apart() -> None:
    for count in (2, 11, 13, 40):
        colors = palette(count).astype(int)
        distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(count, dtype=int)
        assert distances.min() > (40 if count <= 13 else 8)


def test_pictures_have_their_size_and_the_run_goes_on_as_if_not_drawn(env: SSDKDEnv) -> None:
    plain = [reset(env, 5), *steps(env, actions_of(1, 2))]
    drawn = [reset(env, 5)]
    for action in actions_of(1, 2):
        frame, alone = env.render(), env.buffer_picture()
        assert frame is not None and frame.shape == (HEIGHT, WIDTH, 3)
        assert alone.shape == (MAPS_HEIGHT, MAPS_WIDTH, 3)
        drawn += steps(env, [action])
    assert_same(plain, drawn)


def test_legend_has_every_classes_colour(env: SSDKDEnv) -> None:
    picture = env.buffer_picture()
    below = picture[picture.shape[0] // 2 :].reshape(-1, 3)
    for color in palette(4):
        assert (np.abs(below.astype(int) - color).sum(axis=1) <= 3).sum() >= 40


def test_class_that_occurs_nowhere_is_told_from_one_that_is_never_right(env: SSDKDEnv) -> None:
    assert env.episode is not None
    pictures = []
    for nothing in (0.0, float("nan")):
        env.episode.snapshot = replace(env.episode.snapshot, class_iou=(0.5, nothing, 1.0, 0.0))
        pictures.append(env.render())
    assert pictures[0] is not None and pictures[1] is not None
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_of_any_number_of_channels_are_shown(channels: int, tmp_path: Path) -> None:
    """As `image_grid` shows them: the first three, or the first one."""
    many: dict[str, Any] = {"image_shape": (channels, 8, 8), "mean": (0.5,) * channels, "std": (0.5,) * channels}
    spec = replace(DENSE_TASK, **many, teacher_options={"in_channels": channels})
    task = Task(spec, build_teacher(spec, seed=0))
    run = DistillationRun(task, task.make_method("ssdkd"), seed=0)
    run.warm_up()
    picture = triptych(run, width=8, height=3 * 8 + 2 * GAP)
    residents = run.buffer.residents
    hardest = residents.images[residents.discrepancy.argmax()]
    shown = hardest[:3] if channels >= 3 else hardest[:1].expand(3, -1, -1)
    assert np.array_equal(picture[:8], shown.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("classes", "rows"), [(2, 1), (11, 3), (21, 6), (40, 10), (150, 11)])
def test_legend_takes_half_of_the_room_at_most(classes: int, rows: int) -> None:
    assert legend_rows(classes, width=4 * ENTRY, room=2 * 11 * LINE) == rows


@pytest.mark.parametrize(("classes", "last"), [(8, "7 h"), (9, "2 more")])
def test_legend_says_how_many_classes_it_leaves_out(classes: int, last: str) -> None:
    figure = Figure(figsize=(6, 4), dpi=100)
    draw_legend(figure, tuple("abcdefghi"[:classes]), left=0, top=0, width=4 * ENTRY, size=7, rows=2)
    texts = [text.get_text() for text in figure.texts]
    assert (texts[0], texts[-1], len(texts)) == ("0 a", last, 8)
