"""Simple policies that are lists of numbers: what each does, as a sampler and in a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.families import FAMILIES, make_family
from ssdkd_agents.policies.storage import face_of, load_sampler
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.samplers import decide, make_sampler
from ssdkd_agents.searching.search import SearchConfig, constant_name, search, searcher_of

from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, SMALL_PROBE, make

ENV: dict[str, Any] = {"budget": BUDGET, "probe": SMALL_PROBE}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("observation", ["scaled", "unscaled", "work"])
def test_the_member_around_an_action_gives_it_whatever_it_sees(family: str, observation: str) -> None:
    env = make(observation=observation, history=2)
    made = make_family(family, env)
    action = np.linspace(-1.0, 1.0, 5).astype(np.float32)
    seen = np.random.default_rng(0).normal(size=(4, len(env.observation_names))).astype(np.float32)
    found = made.actions(made.around(action), seen)
    assert found.shape == (4, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.tile(action, (4, 1)), atol=1e-6)
    assert made.around(action).shape == (made.size,)


@pytest.mark.parametrize("observation", ["scaled", "unscaled", "work"])
def test_a_schedule_goes_from_its_first_action_to_its_last(observation: str) -> None:
    env = make(observation=observation, history=2, budget={"rounds": 4})
    first, last = [-1.0, 0.0, 1.0, 0.5, 0.25], [1.0, 0.0, -1.0, -0.5, 0.75]
    sampler = make_sampler(f"schedule:{json.dumps(first + last)}", env)
    seen, _ = env.reset(seed=0)
    for progress in (0.0, 0.25, 0.5, 0.75):
        action, _ = decide(sampler, env, seen, None, progress == 0.0)
        np.testing.assert_allclose(
            np.asarray(action), (1 - progress) * np.array(first) + progress * np.array(last), atol=1e-6
        )
        seen, *_ = env.step(action)


def test_a_linear_policy_is_a_weighted_sum() -> None:
    env = make()
    made = make_family("linear", env)
    random = np.random.default_rng(0)
    parameters = random.uniform(-1, 1, made.size).astype(np.float32)
    seen = random.normal(size=(3, 25)).astype(np.float32)
    constant, weights = parameters[:5], parameters[5:].reshape(5, 25)
    expected = [np.clip([c + sum(w * o) / 5.0 for c, w in zip(constant, weights, strict=True)], -1, 1) for o in seen]
    np.testing.assert_allclose(made.actions(parameters, seen), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(25,), (4, 25)])
@pytest.mark.parametrize("family", ["schedule", "linear"])
def test_a_member_answers_one_observation_or_several(family: str, shape: tuple[int, ...]) -> None:
    env = make()
    numbers = [0.5] * make_family(family, env).size
    sampler = make_sampler(f"{family}:{json.dumps(numbers)}", env)
    actions, _ = sampler.predict(np.zeros(shape, np.float32))
    assert actions.shape == (*shape[:-1], 5)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("schedule:[0, 0]", r"expected schedule:\[...\] with 10 numbers in \[-1, 1\]"),
        ("schedule:[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]", "with 10 numbers"),
        ("schedule:nonsense", "with 10 numbers"),
        ("schedule:", "with 10 numbers"),
        ("linear:[NaN]", "with 130 numbers"),
    ],
)
def test_numbers_that_are_no_member_are_refused(name: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        make_sampler(name, make())


@pytest.mark.parametrize("family", ["schedule", "linear"])
def test_choices_have_no_such_families(family: str) -> None:
    with pytest.raises(InvalidInputError, match=f"family='{family}': action='plans' has .*Discrete"):
        make_family(family, make(action="plans"))


# --- searched ---


def searched(folder: Path, **settings: Any) -> dict[str, Any]:
    config = SearchConfig("SSDKD/Digits-v2", "cma", env_kwargs=ENV, num_envs=4, population=4, **settings)
    made = RunFolder(folder, vars(config))
    assert search(config, made, progress_bar=False) == "finished"
    found: dict[str, Any] = json.loads((folder / "constant.json").read_text())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_search_finds_a_member_that_can_be_evaluated(family: str, tmp_path: Path) -> None:
    found = searched(tmp_path / "run", family=family, episodes=9, plays=2)
    env = make()
    assert found["family"] == family
    assert len(found["action"]) == make_family(family, env).size
    seen = np.zeros(25, np.float32)
    by_name, by_file = make_sampler(constant_name(found), env), load_sampler(str(tmp_path / "run"), env)
    np.testing.assert_array_equal(by_name.predict(seen)[0], by_file.predict(seen)[0])


def test_all_of_a_generation_play_the_same_seeds(tmp_path: Path) -> None:
    searched(tmp_path / "run", family="schedule", episodes=17, plays=2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    generations = [lines[:8], lines[8:16]]
    for generation in generations:
        assert len({line["seed"] for line in generation}) == 2
        assert len({str(line["action"]) for line in generation}) == 4
        assert generation[0]["action"] == generation[4]["action"]
        assert [line["seed"] for line in generation] == [generation[0]["seed"]] * 4 + [generation[4]["seed"]] * 4
    assert len({line["seed"] for line in lines}) == 5


def test_a_search_may_begin_around_an_action(tmp_path: Path) -> None:
    start = [0.9, -0.9, 0.9, -0.9, 0.9]
    searched(tmp_path / "run", family="schedule", episodes=8, plays=2, start=start)
    lines = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    mean = np.mean([line["action"] for line in lines], axis=0)
    assert (np.sign(mean) == np.sign(start * 2)).mean() > 0.7


def test_what_was_found_wants_its_own_observation(tmp_path: Path) -> None:
    searched(tmp_path / "run", family="linear", episodes=4)
    for arguments in ({"observation": "work"}, {"observation": "unscaled"}, {"rounds_per_step": 2}):
        with pytest.raises(InvalidInputError, match=r"was made with (observation='scaled'|rounds_per_step=1)"):
            load_sampler(str(tmp_path / "run"), make(**arguments))
    face = {"action": "exponents", "observation": "scaled", "history": 1, "rounds_per_step": 1}
    assert face_of(str(tmp_path / "run")) == face


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"family": "nope"}, "family='nope' is unknown"),
        ({"plays": 0}, "plays=0"),
        ({"start": [0.0]}, r"start=\[0.0\]: expected 5 numbers"),
        ({"start": [0.0, 0.0, 0.0, 0.0, 2.0]}, "expected 5 numbers in"),
        ({"plays": 100}, "episodes=400: expected at least population=16 times plays=100"),
    ],
)
def test_bad_settings_of_a_search_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        searcher_of(SearchConfig("SSDKD/Digits-v2", "cma", env_kwargs=ENV, **settings), make())


def test_random_search_has_neither_plays_nor_a_start() -> None:
    with pytest.raises(InvalidInputError, match="choose searcher='cma'"):
        SearchConfig("SSDKD/Digits-v2", "random", plays=2)
