"""The picture of a run, and the grid of images in it."""

from __future__ import annotations

import random
import runpy
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from ssdkd_env.envs import SSDKDEnv, rendering
from ssdkd_env.envs.actions import ACTION_SCHEMES
from ssdkd_env.envs.rendering import BUFFER_TILE, GAP, HEIGHT, WIDTH, Picture, _step, arrange, image_grid
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.task import build_teacher
from tests.envs.episodes import ROUNDS, SMALL_PROBE, actions_of, assert_same, episode, make, reset, samples_of, steps
from tests.own_networks import DENSE_TASK


def draw_run(env: SSDKDEnv) -> Picture:
    picture = env.render()
    assert picture is not None
    return picture


def draw_buffer(env: SSDKDEnv) -> Picture:
    return env.buffer_picture()


@pytest.fixture
def env() -> SSDKDEnv:
    return make(render_mode="rgb_array")


def test_every_frame_has_one_even_size(env: SSDKDEnv) -> None:
    env.reset(seed=0)
    frames = [env.render()]
    for action in actions_of(0):
        env.step(action)
        frames.append(env.render())
    assert len(frames) == ROUNDS + 1
    for frame in frames:
        assert frame is not None
        assert frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8
        assert frame.flags["C_CONTIGUOUS"]
    assert HEIGHT % 2 == WIDTH % 2 == 0


def test_the_picture_follows_the_run(env: SSDKDEnv) -> None:
    env.reset(seed=0)
    first = draw_run(env)
    np.testing.assert_array_equal(draw_run(env), first)
    env.step(env.paper_action)
    second = draw_run(env)
    curve, action = np.s_[92:430, 600:], np.s_[485:, 640:]
    buffer = np.s_[92:430, 44:586]
    for panel in (curve, action, buffer):
        assert (first[panel] != second[panel]).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scheme", ACTION_SCHEMES)
def test_the_last_action_of_every_scheme_is_drawn(scheme: str) -> None:
    """Blue bars that follow the action, beside the paper's own in the same place."""
    env = make(render_mode="rgb_array", action=scheme)
    env.reset(seed=0)
    frames = [draw_run(env)]
    for action in samples_of(env, 3)[:2]:
        env.step(action)
        frames.append(draw_run(env))
    panels = [frame[485:600, 764:932].astype(int) for frame in frames]
    blue = [(panel[:, :, 2] > panel[:, :, 0] + 80) for panel in panels]
    assert not blue[0].any(), "nothing was done yet"
    assert blue[1].any() and blue[2].any()
    assert (blue[1] != blue[2]).any()
    assert all((panel.max(axis=2) < 80).any() for panel in panels)


def test_the_chosen_strategy_has_the_bar_and_the_papers_one_the_mark() -> None:
    env = make(render_mode="rgb_array", action="plans")
    env.reset(seed=0)
    env.step(np.int64(9))
    panel = draw_run(env)[490:597, 764:932].astype(int)
    blue, dark = panel[:, :, 2] > panel[:, :, 0] + 80, panel.max(axis=2) < 80
    assert blue[:95].sum() == 0 < blue[96:].sum(), "the last of ten"
    assert dark[:11].any() and not dark[12:].any(), "the first of ten"


def test_a_frame_is_the_callers_own(env: SSDKDEnv) -> None:
    env.reset(seed=0)
    draw_run(env)[:] = 0
    assert draw_run(env).max() == 255


def test_drawing_changes_neither_the_run_nor_any_random_state() -> None:
    actions = actions_of(1)
    plain = episode(make(), 5, actions)
    env = make(render_mode="rgb_array")
    moments = [reset(env, 5)]
    for action in actions:
        before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
        draw_run(env)
        draw_buffer(env)
        after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
        moments += steps(env, [action])
    assert_same(plain, moments)


def test_drawing_before_the_first_reset_is_refused(env: SSDKDEnv) -> None:
    with pytest.raises(gym.error.ResetNeeded):
        draw_run(env)
    with pytest.raises(gym.error.ResetNeeded):
        draw_buffer(env)


@pytest.mark.filterwarnings("error")
def test_a_diverged_run_is_drawn_and_marked() -> None:
    env = make(render_mode="rgb_array", student={"lr": 1e9})
    env.reset(seed=0)
    *_, info = env.step(env.paper_action)
    assert info["diverged"]
    frame = draw_run(env)
    red = (frame[:60, 700:, 0] > 150) & (frame[:60, 700:, 1] < 100)
    assert frame.shape == (HEIGHT, WIDTH, 3) and red.any()


@pytest.mark.filterwarnings("error")
def test_colour_images_of_a_task_without_real_data_are_drawn(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    save_weights(teacher, build_teacher(DENSE_TASK, seed=0))
    env = SSDKDEnv("tests.own_networks:DENSE_TASK", teacher=str(teacher), probe=SMALL_PROBE, render_mode="rgb_array")
    env.reset(seed=0)
    assert draw_run(env).shape == (HEIGHT, WIDTH, 3)
    red, green, blue = np.moveaxis(draw_buffer(env), -1, 0)
    assert (red != green).any() and (green != blue).any()


def test_matplotlib_is_not_loaded_before_the_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # an import would now fail
    runpy.run_path(rendering.__file__)


def test_pyplot_and_its_global_figures_are_not_used(env: SSDKDEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.reset(seed=0)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    draw_run(env)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_puts_every_pixel_in_its_place(channels: int) -> None:
    images = torch.randint(256, (5, channels, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    grid = image_grid(images, columns=3, tile=3)
    assert grid.dtype == np.uint8 and grid.shape == (2 * 2 + GAP, 3 * 3 + 2 * GAP, 3)
    expected = np.full(grid.shape, 255, dtype=np.uint8)
    for index, image in enumerate(images.numpy()):
        top, left = (index // 3) * (2 + GAP), (index % 3) * (3 + GAP)
        for channel in range(3):
            expected[top : top + 2, left : left + 3, channel] = image[min(channel, channels - 1)]
    np.testing.assert_array_equal(grid, expected)


def test_image_grid_grows_small_images_by_a_whole_factor_and_shrinks_large_ones() -> None:
    small = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    np.testing.assert_array_equal(image_grid(small, 1, tile=5)[:, :, 0], np.kron([[0, 1], [2, 3]], np.ones((2, 2))))
    large = torch.tensor([10, 20, 30, 40], dtype=torch.uint8).repeat_interleave(2).view(1, 1, 1, 8).expand(1, 3, 4, 8)
    shrunk = image_grid(large, 1, tile=4)
    assert shrunk.shape == (2, 4, 3)
    np.testing.assert_array_equal(shrunk[0, :, 1], [10, 20, 30, 40])


def test_the_buffer_picture_has_one_size_whatever_the_buffer_holds(env: SSDKDEnv) -> None:
    env.reset(seed=0)
    before = draw_buffer(env)
    env.step(env.paper_action)
    after = draw_buffer(env)
    assert before.shape == after.shape and before.shape[0] == 10 * (BUFFER_TILE + GAP) - GAP
    assert (before != after).any()


def test_images_are_arranged_in_a_row_for_each_class_hardest_first() -> None:
    classes = torch.tensor([1, 0, 1, 1, 0, 1, 1])
    discrepancy = torch.tensor([0.1, 0.5, float("nan"), 0.3, 0.9, 0.2, 0.0])
    wide = arrange(classes, discrepancy, num_classes=2, rows=3, columns=5)
    assert wide.view(3, 5).tolist() == [[4, 1, -1, -1, -1], [2, 3, 5, 0, 6], [-1] * 5]
    narrow = arrange(classes, discrepancy, num_classes=2, rows=2, columns=2)
    assert narrow.view(2, 2).tolist() == [[4, 1], [2, 5]], "of five images for two places, the first and the third"


def test_images_of_many_classes_are_arranged_row_after_row() -> None:
    classes = torch.tensor([7, 3, 3, 9])
    places = arrange(classes, torch.tensor([0.1, 0.2, 0.3, 0.4]), num_classes=1000, rows=2, columns=3)
    assert places.tolist() == [2, 1, 0, 3, -1, -1]


@pytest.mark.parametrize(("last", "most", "step"), [(0, 6, 1), (5, 6, 1), (20, 6, 5), (200, 6, 50), (999, 6, 200)])
def test_ticks_stand_at_round_numbers(last: int, most: int, step: int) -> None:
    assert _step(last, most) == step


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, (0, 0, 0)), (2, (0, 0, 0)), (3, (0, 1, 2)), (4, (0, 1, 2)), (13, (0, 1, 2))]
)
def test_images_of_any_number_of_channels_have_a_picture(channels: int, shown: tuple[int, ...]) -> None:
    images = torch.arange(channels, dtype=torch.uint8).view(1, channels, 1, 1).expand(2, channels, 8, 8) * 10
    picture = image_grid(images, columns=2, tile=8)
    assert picture.shape == (8, 16 + GAP, 3)
    assert picture[0, 0].tolist() == [10 * channel for channel in shown]
