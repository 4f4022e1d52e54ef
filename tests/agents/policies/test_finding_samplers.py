"""A sampler is found by its name, its file or its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.benchmarking.suites import _sampler_file
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import TrainedSampler, load_sampler, save_sampler
from ssdkd_agents.samplers import SAMPLERS, ConstantSampler, RandomSampler

from ssdkd_env.errors import InvalidInputError
from tests.agents.policies.test_storage import config_of, fresh
from tests.envs.episodes import make

ACTION = [0.5, 0.0, 0.25, -0.5, 1.0]


def checkpoints(folder: Path, *names: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name in names:
        (folder / "checkpoints" / name).touch()
    return folder


def test_last_checkpoint_is_that_of_most_steps(tmp_path: Path) -> None:
    """By number, not by letters: 1200 comes after 400."""
    folder = checkpoints(tmp_path, "400.safetensors", "1200.safetensors", "80.safetensors")
    assert find_sampler_file(folder) == folder / "checkpoints" / "1200.safetensors"


@pytest.mark.parametrize(
    "stray", [".800.safetensors.x1y2.safetensors", "best.safetensors", "900.txt", "900.safetensors~"]
)
def test_other_files_among_the_checkpoints_do_not_matter(stray: str, tmp_path: Path) -> None:
    """A killed process leaves its temporary file; a user leaves a copy."""
    folder = checkpoints(tmp_path, "400.safetensors", stray)
    assert find_sampler_file(folder) == folder / "checkpoints" / "400.safetensors"


def test_file_means_itself(tmp_path: Path) -> None:
    (tmp_path / "s.safetensors").touch()
    assert find_sampler_file(tmp_path / "s.safetensors") == tmp_path / "s.safetensors"


def test_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    begun = checkpoints(tmp_path / "run")
    (begun / "config.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="holds no checkpoint yet; let ssdkd train run for longer"):
        find_sampler_file(begun)
    with pytest.raises(InvalidInputError, match="is no run; give the folder of a training"):
        find_sampler_file(tmp_path)
    (begun / "trials").mkdir()
    with pytest.raises(InvalidInputError, match=r"is a study; give one of its trainings, such as .*run/trials/0"):
        find_sampler_file(begun)


def test_samplers_are_found_by_name_file_and_folder(tmp_path: Path) -> None:
    env = make()
    observations = np.stack([env.observation_space.sample() for _ in range(5)])
    assert isinstance(load_sampler("paper", env), ConstantSampler)
    random = load_sampler("random", env, seed=3)
    assert isinstance(random, RandomSampler)
    np.testing.assert_array_equal(
        random.predict(observations)[0], RandomSampler(env.action_space, 3).predict(observations)[0]
    )
    save_sampler(tmp_path / "checkpoints" / "8.safetensors", fresh(config_of("ppo")), config_of("ppo"))
    by_folder, by_file = (load_sampler(str(path), env) for path in (tmp_path, tmp_path / "checkpoints/8.safetensors"))
    assert isinstance(by_folder, TrainedSampler)
    np.testing.assert_array_equal(
        by_folder.predict(observations, deterministic=True)[0], by_file.predict(observations, deterministic=True)[0]
    )


def test_unknown_sampler_is_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidInputError, match=r"sampler='ppr' is neither .* nor one of: ") as caught:
        load_sampler("ppr", make())
    assert str(caught.value).partition("one of: ")[2].partition(";")[0] == ", ".join(sorted(SAMPLERS))


# --- plans that a search found ---


def plan(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    value = {"action": ACTION, "action_names": list(make().action_names), "env_kwargs": {}, "score": 1.5} | changes
    (folder / "constant.json").write_text(json.dumps(value))
    return folder


def test_plan_is_a_constant_sampler_by_folder_and_file(tmp_path: Path) -> None:
    env = make()
    folder = plan(tmp_path / "search")
    for path in (folder, folder / "constant.json", Path(_sampler_file(str(folder)))):
        sampler = load_sampler(str(path), env)
        assert isinstance(sampler, ConstantSampler)
        assert sampler.predict(np.zeros((2, 25), np.float32))[0].tolist() == [ACTION, ACTION]


@pytest.mark.parametrize("rounds_per_step", [1, 16])
def test_plan_of_a_search_is_the_same_at_any_number_of_rounds_a_step(rounds_per_step: int, tmp_path: Path) -> None:
    searched = plan(tmp_path, env_kwargs={"rounds_per_step": 2})
    assert isinstance(load_sampler(str(searched), make(rounds_per_step=rounds_per_step)), ConstantSampler)


def test_plan_comes_before_checkpoints(tmp_path: Path) -> None:
    plan(checkpoints(tmp_path, "5.safetensors"))
    assert isinstance(load_sampler(str(tmp_path), make()), ConstantSampler)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"env_kwargs": {"action": "plans"}}, "was made with action='plans', this environment has "),
        ({"env_kwargs": None}, "holds no plan"),
        ({"action_names": ["a", "b", "c", "d", "e"]}, "found with other action entries"),
        ({"action_names": list(reversed(make().action_names))}, "found with other action entries"),
        ({"action_names": None}, "action_names: expected array, got null"),
        ({"action": ACTION[:4]}, "action=.*expected 5 numbers in"),
        ({"action": [*ACTION[:4], 1.5]}, "action=.*expected 5 numbers in"),
        ({"action": [*ACTION[:4], float("nan")]}, "action=.*expected 5 numbers in"),
        ({"action": [*ACTION[:4], "x"]}, r"action\[4\]: expected float, got str"),
        ({"action": {"a": 1}}, r"action: expected int \| array, got object"),
        ({"action": None}, r"action: expected int \| array, got null"),
        ({"action": [[0.1], 0.2, 0.3]}, r"action\[0\]: expected float, got array"),
    ],
)
def test_plan_that_does_not_fit_is_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=rf"constant\.json.*{match}"):
        load_sampler(str(plan(tmp_path / "run", **changes)), make())


@pytest.mark.parametrize(
    "content", ["", "[1, 2]", "{}", '{"action": [1]}', '{"action": [1], "action_names": []}', "null", '{"action": [']
)
def test_damaged_plan_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "constant.json").write_text(content)
    with pytest.raises(InvalidInputError, match=r"constant\.json"):
        load_sampler(str(tmp_path), make())
