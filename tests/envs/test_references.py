"""Rewards that compare with what the method's own plan reaches on the same task."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs import SSDKDEnv, references
from ssdkd_env.envs.references import FIRST_SEED, RUNS, References
from ssdkd_env.envs.rewards import REWARDS, SMALLEST_DEVIATION, Reference, Reward, probe_agreement
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_json
from ssdkd_env.reading import read_json
from ssdkd_env.recent import Recent
from ssdkd_env.tasks.probe import probe_set
from tests.envs.episodes import BUDGET as BUDGET_OF_RUNS
from tests.envs.episodes import ROUNDS, SMALL_PROBE, actions_of, assert_same, episode, make, reset, steps

#: Enough to gain something.
BUDGET = {"student_steps": 10}


def relative(against: str = "relative", **arguments: Any) -> SSDKDEnv:
    return make(**{"reward": f"{against}_probe_agreement", "budget": BUDGET} | arguments)


@lru_cache(maxsize=1)
def curves() -> np.ndarray[Any, np.dtype[np.float64]]:
    """(RUNS, ROUNDS + 1) agreement after the warm-up and each round, without the environment."""
    env = make(budget=BUDGET)
    probes = probe_set(env.task, env.device)
    played = []
    for seed in range(FIRST_SEED, FIRST_SEED + RUNS):
        run = DistillationRun(env.task, env.method, seed, env.device)
        run.warm_up()
        scores = [probes.score(run.student.eval()).agreement]
        for _ in range(ROUNDS):
            run.step(env.method.own_plan)
            scores.append(probes.score(run.student.eval()).agreement)
        played.append(scores)
    return np.array(played)


def reference() -> Reference:
    means, deviation = curves().mean(axis=0), curves()[:, -1].std(ddof=1)
    return Reference(tuple(round_ / ROUNDS for round_ in range(ROUNDS + 1)), tuple(means), float(deviation))


def test_reference_is_the_mean_of_runs_of_the_own_plan() -> None:
    env, expected = relative(), reference()
    made = env.references.of(env.task)
    assert made is not None
    assert made.progress == pytest.approx(expected.progress)
    assert made.scores == pytest.approx(expected.scores, abs=1e-6)
    assert made.deviation == pytest.approx(expected.deviation, abs=1e-6)
    assert made.deviation > 0


@pytest.mark.parametrize("against", ["relative", "standardized"])
def test_return_is_how_far_the_student_ends_above_the_reference(against: str) -> None:
    env, plain, expected = relative(against), make(budget=BUDGET), reference()
    unit = expected.deviation if against == "standardized" else 1.0
    moments, others = (episode(each, 4, actions_of(5)) for each in (env, plain))
    gained = sum(moment.reward for moment in moments)
    assert gained == pytest.approx((others[-1].info["score"] - expected.scores[-1]) / unit, abs=1e-5)
    assert gained == pytest.approx(moments[-1].info["score"], abs=1e-12)
    paid = 0.0
    for moment, other, mean in zip(moments[1:], others[1:], expected.scores[1:], strict=True):
        paid += moment.reward
        assert paid == pytest.approx((other.info["score"] - mean) / unit, abs=1e-5)
        assert moment.info["probe_agreement"] == other.info["probe_agreement"]


def test_terminal_one_pays_the_same_at_the_end() -> None:
    soon, late = (
        episode(make(reward=name, budget=BUDGET), 4, actions_of(5))
        for name in ("relative_probe_agreement", "terminal_relative_probe_agreement")
    )
    assert [moment.reward for moment in late[:-1]] == [0.0] * ROUNDS
    assert late[-1].reward == pytest.approx(sum(moment.reward for moment in soon), abs=1e-12)


def test_student_that_diverges_falls_to_nothing_not_to_the_reference() -> None:
    env = relative()
    reset(env, 3)
    assert env.run is not None
    with torch.no_grad():
        next(env.run.student.parameters()).fill_(math.nan)
    (last,) = steps(env, actions_of(5)[:1])
    assert last.terminated
    # Not −scores[1]: whoever diverges at once would lose less than whoever ends below the reference.
    assert last.reward == last.info["score"] == pytest.approx(-reference().scores[-1], abs=1e-6)


def test_environments_that_are_grouped_play_one_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comes to its reset beside the others, and finds that the reference is missing."""
    played: list[int] = []
    curve = References._curve

    def noted(self: References, task: Any, seed: int) -> Any:
        played.append(seed)
        return curve(self, task, seed)

    monkeypatch.setattr(References, "_curve", noted)
    budget = BUDGET_OF_RUNS | BUDGET | {"candidates": 15}  # of which no other test has a reference
    settings = {"reward": "relative_probe_agreement", "budget": budget, "probe": SMALL_PROBE}
    pool = SubEnvironments(3, settings, "grouped", 1)
    try:
        pool.reset(dict(enumerate(range(3))))
    finally:
        pool.close()
    assert played == [*range(FIRST_SEED, FIRST_SEED + RUNS)]


def test_reference_depends_on_the_real_data_that_a_score_is_made_of(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(0, 255, (2, 20, 8, 8), dtype=np.uint8)
    keys = []
    for name, images in {"a": first, "b": second, "c": second}.items():
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(20) % 10)
        env = make(reward="relative_oracle_accuracy", evaluation=str(tmp_path / f"{name}.npz"), budget=BUDGET)
        keys.append(env.references.fingerprint(env.task))
    assert keys[0] != keys[1] == keys[2]
    plain = [
        make(reward="relative_probe_agreement", evaluation=str(tmp_path / f"{name}.npz"), budget=BUDGET)
        for name in ("a", "b")
    ]
    assert len({env.references.fingerprint(env.task) for env in plain}) == 1


def test_score_without_a_name_of_its_own_cannot_compare() -> None:
    Reward(lambda snapshot: 0.0)
    for score in (lambda snapshot: 0.0, partial(probe_agreement)):
        with pytest.raises(InvalidInputError, match="references are kept by the name of the score"):
            Reward(score, against="relative")


def test_a_deviation_of_nothing_divides_by_a_little() -> None:
    reward, flat = REWARDS["standardized_probe_agreement"], Reference((0.0, 1.0), (0.1, 0.5), 0.0)
    assert reward.compared(0.6, 1.0, flat) == pytest.approx(0.1 / SMALLEST_DEVIATION)
    assert reward.compared(0.4, 0.5, flat) == pytest.approx(0.1 / SMALLEST_DEVIATION)


def test_reward_of_ones_own_may_compare() -> None:
    assert Reward(probe_agreement, against="relative").against == "relative"
    with pytest.raises(InvalidInputError, match=r"Reward\(against=\)='paper'"):
        Reward(probe_agreement, against="paper")


# --- what is kept ---


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that begins."""
    monkeypatch.setattr(references, "_known", Recent(10))


def refuse_to_play(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(*_: Any) -> Reference:
        raise AssertionError("it is played although it is there")

    monkeypatch.setattr(References, "play", play)


def test_it_is_played_once_a_machine(empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = relative()
    first = env.references.of(env.task)
    assert len(list(empty_caches.glob("reference-*.json"))) == 1
    forget(monkeypatch)
    refuse_to_play(monkeypatch)
    other = relative("standardized")
    assert other.references.of(other.task) == first


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"progress": [0, 1], "scores": [0.1], "deviation": 0.1}',
        '{"progress": [0, 1], "scores": [0.1, NaN], "deviation": 0.1}',
        '{"progress": [0, 0], "scores": [0.1, 0.2], "deviation": 0.1}',
        '{"progress": [0, 1], "scores": [0.1, 0.2], "deviation": -1}',
        '{"progress": [0, 1], "scores": [0.1, "0.2"], "deviation": 0.1}',
        '{"progress": [0, 1], "scores": [0.1, 0.2]}',
    ],
)
def test_damaged_one_is_played_anew(content: str, empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = relative()
    path = empty_caches / f"reference-{env.references.fingerprint(env.task)}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    made = Reference((0.0, 1.0), (0.1, 0.5), 0.2)
    monkeypatch.setattr(References, "play", lambda *_: made)
    assert env.references.of(env.task) == made
    assert read_json(path) == {"progress": [0.0, 1.0], "scores": [0.1, 0.5], "deviation": 0.2}


def test_folder_that_cannot_be_written_costs_a_warning(empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_caches.write_text("a file where the folder should be")
    monkeypatch.setattr(References, "play", lambda *_: Reference((0.0, 1.0), (0.1, 0.5), 0.2))
    env = relative()
    with pytest.warns(UserWarning, match="played anew in every process: cannot write .* SSDKD_CACHE"):
        assert env.references.of(env.task) is not None


def test_task_may_ship_it(empty_caches: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env, shipped = relative(), Reference((0.0, 1.0), (0.25, 0.75), 0.1)
    task = env.task.with_spec(replace(env.task.spec, probe_sets=str(tmp_path / "shipped")))
    write_json(tmp_path / "shipped" / "references.json", {env.references.fingerprint(task): asdict(shipped)})
    refuse_to_play(monkeypatch)
    assert env.references.of(task) == shipped
    assert not empty_caches.exists()


@pytest.mark.parametrize("content", ["[]", '{"a": {}}', "{"])
def test_shipped_file_that_is_none_is_refused(content: str, empty_caches: Path, tmp_path: Path) -> None:
    (tmp_path / "references.json").write_text(content)
    env = relative()
    with pytest.raises(InvalidInputError, match=r"references\.json"):
        env.references.of(env.task.with_spec(replace(env.task.spec, probe_sets=str(tmp_path))))


def test_what_changes_the_runs_changes_the_key() -> None:
    base = relative()
    others = [
        relative(reward="relative_probe_discrepancy"),
        relative(method="fast2"),
        relative(student_arch="convnet8"),
        relative(budget=BUDGET | {"buffer_capacity": 25}),
        relative(student={"lr": 0.1}),
    ]
    same = [relative("standardized"), relative("terminal_relative"), relative(action="full"), relative(history=2)]
    keys = [env.references.fingerprint(env.task) for env in (base, *others)]
    assert len(set(keys)) == len(keys)
    assert {env.references.fingerprint(env.task) for env in same} == {keys[0]}


def test_saved_episode_goes_on_with_its_own_reference(empty_caches: Path, tmp_path: Path) -> None:
    """On another machine the same runs round otherwise."""
    whole = episode(env := relative(), 3, actions_of(5))
    before = [reset(env, 3), *steps(env, actions_of(5)[:1])]
    env.save(tmp_path / "saved")
    other = relative()
    references._known.get(other.references.fingerprint(other.task), lambda: Reference((0.0, 1.0), (0.0, 0.9), 0.2))
    other.load(tmp_path / "saved")
    assert_same(whole, [*before, *steps(other, actions_of(5)[1:])])


@pytest.mark.parametrize("reward", ["relative", "standardized"])
def test_instances_to_train_on_ship_theirs(reward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No reset of a training may wait for them; held-out ones are judged by accuracy."""
    forget(monkeypatch)
    refuse_to_play(monkeypatch)
    env = SSDKDEnv(instances="digits-work-train", action="work", reward=f"{reward}_probe_agreement")
    found = [env.references.of(task) for task in env.instances.tasks]
    for each in found:
        assert each is not None and each.scores[-1] > each.scores[0] and each.deviation > SMALLEST_DEVIATION
    assert len({json.dumps(asdict(each)) for each in found if each}) == len(found)
