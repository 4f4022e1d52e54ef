"""An environment obeys nobody's modes of PyTorch: a seed is one episode under each, and they are there afterwards."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from tests.envs.episodes import BUDGET, SMALL_PROBE, actions_of, episode, make, reset, steps
from tests.test_modes import AMBIENT, as_told

Mode = Callable[[], AbstractContextManager[Any]]


@contextmanager
def deterministic() -> Iterator[None]:
    """An algorithm that may give other bits the next time is an error."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


#: With what says how the machine computes, which an environment obeys without giving other bits.
MODES: dict[str, Mode] = AMBIENT | {"with deterministic algorithms": deterministic}


def randomness() -> tuple[Any, ...]:
    """State of the generators that everybody shares."""
    name, keys, *rest = np.random.get_state()
    return torch.default_generator.get_state().tolist(), random.getstate(), name, np.asarray(keys).tolist(), rest


def weights_of(env: SSDKDEnv) -> list[bytes]:
    assert env.run is not None
    return [tensor.numpy().tobytes() for tensor in env.run.student.state_dict().values()]


def everything(folder: Path) -> list[Any]:
    """All that one environment gives from being made to a loaded episode's end, to the last bit."""
    env = make(render_mode="rgb_array")
    moments = episode(env, 3, actions_of(5)[:2])
    env.save(folder / "half.safetensors")
    other = make(render_mode="rgb_array")
    observation, info = other.load(folder / "half.safetensors")
    moments += steps(other, actions_of(5)[2:])
    picture = other.render()
    assert picture is not None
    seen = [picture.tobytes(), other.buffer_picture().tobytes(), other.held_out_accuracy(), env.task.pass_costs]
    return [(m.observation.tobytes(), m[1:]) for m in moments] + [observation.tobytes(), info, *seen]


def everything_of_two(vectorization: str, folder: Path, envs: SSDKDVectorEnv | None = None) -> list[Any]:
    """The same of a vector environment."""
    if envs is None:
        arguments: dict[str, Any] = {"budget": BUDGET, "probe": SMALL_PROBE, "render_mode": "rgb_array"}
        envs = SSDKDVectorEnv(2, vectorization=vectorization, processes=1, **arguments)
    observations, infos = envs.reset(seed=3)
    given = [observations.tobytes(), infos]
    for action in actions_of(5):
        observations, rewards, *_, infos = envs.step(np.stack([action, -action]))
        given += [observations.tobytes(), rewards.tobytes(), infos]
    envs.call("save", folder / "last.safetensors")
    return given + [picture.tobytes() for picture in envs.render() or ()] + [envs.call("held_out_accuracy")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("expected")
    return {"single": repr(everything(folder)), "grouped": repr(everything_of_two("grouped", folder))}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("way", ["single", "grouped"])
def test_a_seed_is_one_episode_under_every_mode(way: str, mode: Mode, expected: dict[str, str], tmp_path: Path) -> None:
    shared = randomness()
    with warnings.catch_warnings(), mode():
        told = as_told()
        given = everything(tmp_path) if way == "single" else everything_of_two(way, tmp_path)
        assert as_told() == told
    assert randomness() == shared
    assert repr(given) == expected[way]


@pytest.mark.usefixtures("empty_caches")
@pytest.mark.parametrize("mode", ["in inference mode", "in float64", "on another device", "with functions changed"])
def test_teacher_and_probe_set_of_a_process_are_made_as_without(
    mode: str, expected: dict[str, str], tmp_path: Path
) -> None:
    with MODES[mode]():
        made = repr(everything(tmp_path))
    assert made == expected["single"] == repr(everything(tmp_path))


def test_processes_are_asked_the_same_under_all_modes_at_once(tiny_teacher: str, tmp_path: Path) -> None:
    task: dict[str, Any] = {"task": "tests.envs.own_networks:TINY", "teacher": tiny_teacher}
    envs = SSDKDVectorEnv(2, vectorization="process", processes=2, budget=BUDGET, probe=SMALL_PROBE, **task)
    expected = repr(everything_of_two("process", tmp_path, envs))
    with ExitStack() as modes:
        for mode in ("in inference mode", "in float64", "on another device", "with operations changed"):
            modes.enter_context(MODES[mode]())
        assert repr(everything_of_two("process", tmp_path, envs)) == expected
    envs.close()


def test_a_mode_comes_back_after_a_refusal() -> None:
    env = make()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        told = as_told()
        reset(env, 1)
        with pytest.raises(ValueError, match="action="):
            env.step(np.full(5, np.nan, np.float32))
        assert as_told() == told


def test_what_was_made_in_inference_mode_learns_outside(expected: dict[str, str]) -> None:
    """A tensor of inference mode would never be trained again."""
    for way in ("loop", "grouped"):
        envs = SSDKDVectorEnv(2, vectorization=way, processes=1, budget=BUDGET, probe=SMALL_PROBE)
        with torch.inference_mode():
            envs.reset(seed=3)
            envs.step(actions_of(5)[:2])
        inside = [envs.step(actions_of(6)[:2])[0].tobytes() for _ in range(2)]
        envs.reset(seed=3)
        envs.step(actions_of(5)[:2])
        assert [envs.step(actions_of(6)[:2])[0].tobytes() for _ in range(2)] == inside


@pytest.mark.parametrize(("transform", "slope"), [(torch.func.grad, 4.0), (torch.func.hessian, 2.0), (torch.vmap, 4.0)])
def test_functions_that_are_transformed_may_step_it(transform: Callable[[Any], Any], slope: float) -> None:
    """An agent's loss may ask the environment for a factor."""

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return weight.square().sum() * (1.0 + sum(moment.reward for moment in episode(make(), 3, actions_of(5))))

    factor = 1.0 + sum(moment.reward for moment in episode(make(), 3, actions_of(5)))
    point = torch.tensor([2.0])
    result = transform(loss)(point)
    assert result.item() == pytest.approx(slope * factor)


def test_a_diverged_student_is_an_end_though_somebody_looks_for_nan() -> None:
    def play() -> list[Any]:
        env = make(student={"lr": 1e30})
        reset(env, 3)
        moment = steps(env, actions_of(5)[:1])[0]
        return [moment.observation.tobytes(), *moment[1:], weights_of(env)]

    expected = play()
    assert expected[2] and expected[4]["diverged"]
    with warnings.catch_warnings(), torch.autograd.detect_anomaly():
        assert repr(play()) == repr(expected)
