"""`measure_decisions`: what follows from a design, and the command in little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laboratory.decisions import Surfaces, Wanted, by_seed, facts_of, levels, plan_of, surfaces, verdict
from numpy.typing import NDArray
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.environments import make_env
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.storage import load_sampler

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import read_json
from ssdkd_env.tasks.instances import INSTANCE_SETS, Instance
from tests.scripts.commands import assert_refused, in_this_process

SMALL = (
    "--env.instances", "tests.own_networks:LITTLE_WORK", "--plugins", "tests.own_networks", "--env.action", "division",
    "--levels", 2, "--plays", 1, "--seeds", 2, "--num-envs", 2,
    "--env.budget.warmup-rounds", 1, "--env.budget.candidates", 8, "--env.budget.student-steps", 4,
    "--env.budget.batch-size", 8,
    "--env.probe.generators", 1, "--env.probe.batches", 1, "--env.probe.kept", 1, "--env.probe.steps", 1,
)  # fmt: skip


def bowls(centres: list[tuple[float, float]], count: int = 5) -> Surfaces:
    """Instances whose return falls with the square of the distance from a centre."""
    plans = np.array(levels(2, count))
    return Surfaces(plans, np.array([-((plans - centre) ** 2).sum(axis=1) for centre in centres]))


def test_a_grid_has_every_combination_of_the_values_of_its_parts() -> None:
    assert levels(2, 3) == [(a, b) for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)]
    assert len(levels(3, 4)) == 64


def test_best_plans_are_those_of_the_grid_nearest_to_the_centres() -> None:
    surface = bowls([(-1.0, 0.5), (0.1, 0.4), (0.9, 0.6)])
    assert surface.oracle() == [(-1.0, 0.5), (0.0, 0.5), (1.0, 0.5)]
    assert surface.constant() == (0.0, 0.5)


def test_neighbours_have_a_say_in_what_a_plan_is_worth() -> None:
    """A lucky draw among bad ones is not the best plan."""
    surface = bowls([(0.0, 0.0)])
    lucky = Surfaces(surface.plans, surface.returns.copy())
    lucky.returns[0, 0] = 0.05  # in the corner, whose neighbours are bad
    assert lucky.returns.argmax() == 0
    assert lucky.oracle() == [(0.0, 0.0)]
    flat = Surfaces(surface.plans, np.full((1, 25), 3.0))
    assert np.allclose(flat.at(np.array([[0.3, -0.9]])), 3.0)
    direct = Surfaces(np.array(levels(2, 3)), np.eye(9)[4:5]).at(np.array([[0.0, 0.0], [1.0, 0.0]]))[0]
    assert direct[1] / direct[0] == pytest.approx(np.exp(-2.0), rel=0.35)  # the kernel at a step of two widths


def test_policy_of_the_facts_follows_the_centres() -> None:
    facts: NDArray[np.float64] = np.array([(-1.0, 0.0), (0.0, 1.0), (1.0, -1.0), (0.5, 0.5)])
    wanted = np.array([[0.1, 0.5, 0.0], [-0.2, 0.0, 0.4]])
    surface = bowls([plan_of(wanted, row)[:2] for row in facts], count=9)  # type: ignore[misc]
    policy = surface.of_facts(facts)
    assert np.abs(policy - wanted).max() < 0.15
    assert surface.of_facts(facts).tolist() == policy.tolist()  # the same every time
    assert plan_of(np.array([[5.0, 0.0], [0.0, -5.0]]), [1.0]) == (1.0, -1.0)


def test_facts_are_of_buffer_work_and_warm_up() -> None:
    assert facts_of(Instance(buffer_scale=0.1, work_scale=1.0)) == (0.0, 0.0, 0.0)
    assert facts_of(Instance(None, None, 0.025, {"warmup_rounds": 48}, 2.0)) == (-1.0, 1.0, 1.0)


def test_returns_of_a_plan_on_an_instance_are_averaged() -> None:
    plans = levels(1, 2)
    lines = [
        {"plan": list(plan), "instance": instance, "return": 10.0 * instance + number + seed}
        for number, plan in enumerate(plans)
        for instance in range(2)
        for seed in (0, 1)
    ]
    assert surfaces(plans, 2, lines).returns.tolist() == [[0.5, 1.5], [10.5, 11.5]]


def test_every_instance_counts_alike_in_a_seed() -> None:
    plans = [(0.0,), (1.0,)]
    lines: dict[Wanted, dict[str, Any]] = {
        Wanted(plan, index, seed): {"score": 100.0 * index + seed}
        for index, plan in enumerate(plans)
        for seed in (3, 4)
    }
    assert by_seed(plans, lines, [3, 4], "score") == {3: 53.0, 4: 54.0}


def test_headroom_needs_a_gain_and_an_interval_above_zero() -> None:
    gains = {"facts": bootstrap_mean([0.02, 0.03, 0.02, 0.03, 0.02]), "oracle": bootstrap_mean([0.005] * 5)}
    assert verdict(gains, "the constant plan").startswith("Headroom over the constant plan (at least 0.01): facts;")
    assert "): none;" in verdict({"oracle": bootstrap_mean([-0.2, 0.3, 0.1, -0.1, 0.02])}, "x")
    assert "not known, on fewer than 5 seeds; oracle" in verdict({"oracle": bootstrap_mean([0.02, 0.03])}, "x")


def test_the_sets_that_are_shipped_have_facts() -> None:
    for name in ("digits-work-train", "digits-work-test", "digits-work-far"):
        facts = np.array([facts_of(each) for each in INSTANCE_SETS[name].instances])
        assert np.linalg.matrix_rank(np.c_[np.ones(len(facts)), facts]) == 4, name


def test_design_and_comparison_go_on_where_they_stopped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = in_this_process("measure_decisions", "--out", out, *SMALL)
    assert first.code == 0, first.stderr[-3000:]
    assert "Headroom over the constant plan" in first.stdout and (out / "plans.png").stat().st_size > 10_000
    design, results = (read_lines(out / name) for name in ("design.jsonl", "results.jsonl"))
    assert len(design) == 4 * 2  # plans, instances
    assert {line["instance"] for line in results} == {0, 1}
    assert len({(*line["plan"], line["instance"], line["seed"]) for line in results}) == len(results)
    for row in ("constant", "facts", "oracle", "middle"):
        found = read_json(out / "plans" / "tests.own_networks-LITTLE_WORK" / row / "constant.json")
        env = make_env(found["env_id"], found["env_kwargs"])
        sampler = load_sampler(str(out / "plans" / "tests.own_networks-LITTLE_WORK" / row), env)
        for index in range(2):
            env.instances.index = index
            action, _ = sampler.predict(np.zeros((1, 3), np.float32))
            played = {tuple(line["plan"]) for line in results if line["instance"] == index}
            assert tuple(round(float(part), 4) for part in action[0]) in played
    other_set = make_env("SSDKD/Digits-v2", {"instances": "digits-work-test", "action": "division"})
    with pytest.raises(InvalidInputError, match=r"has a plan for each instance of 'tests\.own_networks:LITTLE_WORK'"):
        load_sampler(str(out / "plans" / "tests.own_networks-LITTLE_WORK" / "oracle"), other_set)
    kept = (out / "results.jsonl").read_text().splitlines()
    (out / "results.jsonl").write_text("\n".join(kept[:-1]) + "\n")
    again = in_this_process("measure_decisions", "--out", out, *SMALL)
    assert again.code == 0, again.stderr[-3000:]
    assert sorted(map(str, read_lines(out / "results.jsonl"))) == sorted(map(str, results))
    table = (out / "table.md").read_text()
    assert in_this_process("measure_decisions", "--out", out, *SMALL, "--seeds", 0).code == 0
    assert (out / "table.md").read_text() == table
    other = in_this_process("measure_decisions", "--out", out, *SMALL, "--levels", 3)
    assert_refused(other, "was begun with other settings")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--env.action", "division"), "--env.instances: none given; name a set"),
        (
            ("--env.instances", "digits-work-train", "--env.action", "work"),
            "has no grid of plans; choose one of at most 3",
        ),
        (("--env.instances", "digits-work-train", "--levels", 1), "--levels 1: expected at least 2"),
        (("--env.instances", "digits-work-train", "--seeds", 1), "--seeds 1: expected 0, for the design alone"),
    ],
)
def test_what_has_no_design_is_refused(words: tuple[Any, ...], said: str, tmp_path: Path) -> None:
    assert_refused(in_this_process("measure_decisions", "--out", tmp_path / "out", *words), said)
    assert not (tmp_path / "out").exists()
