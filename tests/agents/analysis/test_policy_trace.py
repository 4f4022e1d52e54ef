"""What samplers did is read in the units of the sampling plan, from any kind of action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.analysis.policy_trace import ChoiceTrace, NumberTrace, read_traces
from ssdkd_agents.environments import make_env
from ssdkd_agents.samplers import write_decision

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.distillation import Action
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, actions_of

DIGITS = "SSDKD/Digits-v2"
#: A third of the buffer are candidates, so that ρ is at most 1/3.
SIZES = BUDGET | {"candidates": 8, "buffer_capacity": 24}


def environment(**kwargs: Any) -> SSDKDEnv:
    return make_env(DIGITS, {"budget": SIZES} | kwargs)


def line(sampler: str, env: SSDKDEnv, decisions: Sequence[Action], seed: int = 0, **kwargs: Any) -> dict[str, Any]:
    actions = [write_decision(env, decision) for decision in decisions]
    return {
        "env_id": DIGITS, "sampler": sampler, "seed": seed, "env_kwargs": {"budget": SIZES} | kwargs, "return": 0.0,
        "final": {"instance": 0}, "actions": actions,
    }  # fmt: skip


def numbers(trace: Any) -> NumberTrace:
    assert isinstance(trace, NumberTrace)
    return trace


def test_numbers_are_those_of_the_plan() -> None:
    env = environment()
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 3, 5)).astype(np.float32)
    lines = [line("runs/ppo", env, list(actions[episode]), episode) for episode in range(2)]
    trace = numbers(read_traces(lines, ())["runs/ppo"])
    for episode in range(2):
        for index in range(3):
            plan = env.plan_of(actions[episode, index])
            for part in env.action_names:
                assert trace.values[part][episode, index] == pytest.approx(getattr(plan, part))
    ranges = trace.ranges
    assert (ranges["discrepancy_exponent"].low, ranges["discrepancy_exponent"].high) == (-2, 2)
    assert (ranges["importance_exponent"].low, ranges["importance_exponent"].high) == (0, 1)
    assert ranges["replaced_share"].high == pytest.approx(1 / 3)
    paper = {part: span.paper for part, span in ranges.items()}
    assert paper == pytest.approx(
        {
            "discrepancy_exponent": 1, "diversity_exponent": 0, "difficulty_exponent": 0, "importance_exponent": 0.4,
            "replaced_share": 1 / 3,
        }
    )  # fmt: skip


def test_shorter_episodes_end_in_nothing() -> None:
    env = environment()
    lines = [line("runs/ppo", env, [env.paper_action] * count, count) for count in (1, 3)]
    values = numbers(read_traces(lines, ())["runs/ppo"]).values["importance_exponent"]
    assert np.isnan(values).tolist() == [[False, True, True], [False, False, False]]


def test_plans_are_read_where_no_action_says_them() -> None:
    env = environment()
    steep = SamplingPlan(discrepancy_exponent=3.0, importance_exponent=0.1, replaced_share=0.2)
    trace = numbers(read_traces([line("steep", env, [steep])], ())["steep"])
    values = {part: float(value[0, 0]) for part, value in trace.values.items()}
    assert values == pytest.approx(
        {
            "discrepancy_exponent": 3.0, "diversity_exponent": 0, "difficulty_exponent": 0, "importance_exponent": 0.1,
            "replaced_share": 0.2,
        }
    )  # fmt: skip
    assert trace.note == ""


@pytest.mark.parametrize(("name", "note"), [("fifo", "replaces oldest"), ("reweighted", "reweighted"), ("keep", "")])
def test_what_numbers_leave_out_is_noted(name: str, note: str) -> None:
    env = environment()
    trace = numbers(read_traces([line(name, env, [NAMED_PLANS[name]] * 2)], ())[name])
    assert trace.note == note
    # All candidates are the most that can be replaced, whatever the plan allows.
    assert trace.values["replaced_share"].max() == pytest.approx(0.0 if name == "keep" else 1 / 3)


def test_plan_with_a_scorer_is_its_action() -> None:
    env = environment(action="bins")
    action = np.linspace(-1, 1, 15).astype(np.float32)
    trace = numbers(read_traces([line("x", env, [env.plan_of(action)], action="bins")], ())["x"])
    expected = env.action_scheme.values(action)  # type: ignore[attr-defined]
    assert {part: float(value[0, 0]) for part, value in trace.values.items()} == pytest.approx(expected, abs=1e-6)


def test_choices_are_shares_of_the_episodes() -> None:
    env = environment(action="plans")
    names = list(NAMED_PLANS)
    rounds = ([0, 3], [0, 3], [3, 3], [9])
    lines = [
        line("dqn", env, [np.int64(choice) for choice in choices], seed, action="plans")
        for seed, choices in enumerate(rounds)
    ]
    lines.append(line("baseline", env, [NAMED_PLANS["fifo"]], action="plans"))
    traces = read_traces(lines, ())
    trace = traces["dqn"]
    assert isinstance(trace, ChoiceTrace)
    assert {name: share.tolist() for name, share in trace.shares.items()} == {
        names[0]: [0.5, 0.0], names[3]: [0.25, 1.0], names[9]: [0.25, 0.0],
    }  # fmt: skip
    baseline = traces["baseline"]
    assert isinstance(baseline, ChoiceTrace)
    assert list(baseline.shares) == ["fifo"]


def test_paper_is_a_row_only_where_it_is_alone() -> None:
    env = environment()
    lines = [line(name, env, [env.paper_action]) for name in ("paper", "uniform", "runs/ppo")]
    assert list(read_traces(lines, ())) == ["uniform", "runs/ppo"]
    assert list(read_traces(lines, ("runs/ppo", "paper"))) == ["runs/ppo"]
    assert list(read_traces(lines, ("paper",))) == ["paper"]


def test_runs_of_a_group_are_one_row() -> None:
    env = environment()
    lines = [line(f"runs/{seed}", env, [env.paper_action], seed) | {"group": "ppo"} for seed in range(3)]
    assert numbers(read_traces(lines, ("ppo",))["ppo"]).values["replaced_share"].shape == (3, 1)


def test_range_of_replacement_is_that_of_the_instance() -> None:
    """The instances of a set may have buffers of different sizes."""
    kwargs = {"instances": "digits-train"}
    env = make_env(DIGITS, kwargs)
    shares = []
    for index in range(len(env.instances)):
        budget = env.instances.tasks[index].spec.budget
        shares.append(min(1.0, budget.candidates / budget.buffer_capacity))
    low, high = int(np.argmin(shares)), int(np.argmax(shares))
    assert shares[low] < shares[high]
    written = {"env_id": DIGITS, "sampler": "x", "env_kwargs": kwargs, "return": 0.0, "actions": [[0, 0, 0, 0, 1.0]]}
    lines = [written | {"seed": index, "final": {"instance": index}} for index in (low, high)]
    trace = numbers(read_traces(lines, ())["x"])
    assert trace.values["replaced_share"][:, 0].tolist() == pytest.approx([shares[low], shares[high]])
    assert trace.ranges["replaced_share"].high == pytest.approx((shares[low] + shares[high]) / 2)


def divided(seed: int, actions: list[list[float]], progress: list[float], **kwargs: Any) -> dict[str, Any]:
    """An episode of the scheme that divides the work, on an instance by its seed."""
    return {
        "env_id": DIGITS, "sampler": "ppo", "seed": seed, "return": 0.0, "actions": actions,
        "env_kwargs": {"action": "division", "instances": "digits-work-train"} | kwargs, "instance": seed,
        "final": {"instance": seed, "round": len(actions)}, "curve": {"progress": progress},
    }  # fmt: skip


def test_divided_work_is_seen_by_the_share_that_is_spent() -> None:
    """Unlike rounds: the first takes three quarters of the work, or half of it."""
    lines = [divided(0, [[1.0, 0.0], [-1.0, 0.5]], [0.0, 0.75, 1.0]), divided(1, [[0.0, 0.0]] * 3, [0.0, 0.5, 0.9, 1])]
    trace = numbers(read_traces(lines, ())["ppo"])
    assert trace.axis == "share of the work"
    values = trace.values["inversion_steps"]
    assert np.exp(values[0]) == pytest.approx(np.where(trace.times < 0.75, 8, 1 / 8))
    assert np.exp(values[1]) == pytest.approx(1.0)
    held = divided(0, [[1.0, 0.0], [-1.0, 0.5]], [0.0, 0.75, 1.0], rounds_per_step=2)
    held["final"]["round"] = 3
    again = numbers(read_traces([held], ())["ppo"]).values["inversion_steps"]
    np.testing.assert_array_equal(again, values[:1])


def test_a_row_for_each_value_of_what_instances_differ_in() -> None:
    lines = [divided(seed, [[0.1 * seed, 0.0]], [0.0, 1.0]) for seed in range(24)]
    traces = read_traces(lines, (), "warmup_rounds")
    assert list(traces) == ["ppo, warmup_rounds 1", "ppo, warmup_rounds 12"]
    assert [numbers(trace).values["inversion_steps"].shape[0] for trace in traces.values()] == [12, 12]
    instances = make_env(DIGITS, lines[0]["env_kwargs"]).instances
    first = [0.1 * number for number, each in enumerate(instances.members) if each.budget["warmup_rounds"] == 1]
    seen = numbers(traces["ppo, warmup_rounds 1"]).values["inversion_steps"][:, 0]
    assert seen == pytest.approx(np.log(8) * np.clip(first, -1, 1))
    by_teacher = list(read_traces(lines, (), "teacher"))
    assert len(by_teacher) == 5
    assert by_teacher[0] == "ppo, teacher of the task"
    assert by_teacher[1] == "ppo, teacher digits_teacher_b"


def test_what_instances_do_not_differ_in_is_refused() -> None:
    match = r"by='colour': the instances of 'ppo' do not differ in it; choose among: .*student_arch.*warmup_rounds"
    with pytest.raises(InvalidInputError, match=match):
        read_traces([divided(0, [[0.0, 0.0]], [0.0, 1.0])], (), "colour")
    env = environment()
    with pytest.raises(InvalidInputError, match=r"do not differ in it; give results of --env\.instances"):
        read_traces([line("x", env, [env.paper_action])], (), "teacher")


def test_nothing_is_done_after_a_divergence() -> None:
    ended = divided(0, [[1.0, 0.0]] * 2, [0.0, 0.2, 0.4])
    ended["final"]["diverged"] = True
    trace = numbers(read_traces([ended], ())["ppo"])
    assert np.isnan(trace.values["inversion_steps"][0]).tolist() == (trace.times >= 0.4).tolist()


def test_curve_that_ends_too_early_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="ppo: a curve is shorter than its episode"):
        read_traces([divided(0, [[0.0, 0.0]] * 3, [0.0, 0.5, 1.0])], ())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"actions": [[0.0, 1.0]]}, "x: an action is none of the environment that its line names"),
        ({"actions": [{"plan": 1}]}, "x: an action is none of the environment that its line names"),
        ({"actions": [None]}, "x: an action is none of the environment that its line names"),
        ({"actions": []}, "x: an episode has no actions"),
        ({"env_id": "SSDKD/Nowhere-v9"}, "is unknown"),
        ({"final": {"instance": 7}}, "instance=7 is none of the 1"),
    ],
)
def test_lines_of_another_environment_are_refused(change: dict[str, Any], match: str) -> None:
    env = environment()
    with pytest.raises(InvalidInputError, match=match):
        read_traces([line("x", env, [env.paper_action]) | change], ())


def test_row_with_two_schemes_is_refused() -> None:
    lines = [
        line("x", env, [env.paper_action], action=env.face["action"])
        for env in (environment(), environment(action="full"))
    ]
    with pytest.raises(InvalidInputError, match="x: its episodes have different action schemes"):
        read_traces(lines, ())


def test_unknown_row_is_refused() -> None:
    env = environment()
    with pytest.raises(InvalidInputError, match="samplers='sac' is not in the results; choose from: paper, uniform"):
        read_traces([line(name, env, [env.paper_action]) for name in ("paper", "uniform")], ("sac",))


def test_action_of_several_rounds_is_seen_in_each_of_them() -> None:
    """Three rounds, two of them in the first step."""
    env = environment(rounds_per_step=2)
    actions = actions_of(0, 2)
    held = line("runs/ppo", env, list(actions), rounds_per_step=2)
    held["final"] = {"instance": 0, "round": 3}
    by_round = line("runs/ppo", environment(), [actions[0], actions[0], actions[1]])
    trace, expected = (numbers(read_traces([lines], ())["runs/ppo"]) for lines in (held, by_round))
    assert trace.values.keys() == expected.values.keys()
    for part, values in trace.values.items():
        np.testing.assert_array_equal(values, expected.values[part])
