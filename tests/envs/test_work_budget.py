"""A budget of work: the agent divides it, and the episode ends when it is spent."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import nn

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.distillation.allowance import LEAST, Amounts
from ssdkd_env.distillation.costs import Costs, multiply_adds
from ssdkd_env.distillation.sizes import Sizes
from ssdkd_env.distillation.sources import MetaGenerator
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import TASKS, load_task
from ssdkd_env.tasks.digits import DIGITS
from tests.envs.episodes import BUDGET, SMALL_PROBE, Moment, assert_same, make, reset, steps

#: Of the digits' own work; the small budget of the tests takes some 3 %.
SMALL_WORK = 0.05


def small(action: str = "division", **arguments: Any) -> SSDKDEnv:
    return make(**{"action": action, "work_scale": SMALL_WORK} | arguments)


def costs_of(env: SSDKDEnv) -> Costs:
    return Costs.of(env.method, env.budget, Sizes.of(env.method, env.budget, env.task), env.task)


def to_the_end(env: SSDKDEnv, action: Any) -> list[Moment]:
    moments = steps(env, [action])
    while not moments[-1].terminated:
        moments += steps(env, [action])
    return moments


def play(env: SSDKDEnv, action: Any, seed: int = 7) -> list[Moment]:
    return [reset(env, seed), *to_the_end(env, action)]


def student_of(env: SSDKDEnv) -> dict[str, torch.Tensor]:
    assert env.run is not None
    return env.run.student.state_dict()


def action_of(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


# --- what was there before is a point of it ---


@pytest.mark.parametrize("action", ["work", "division"])
@pytest.mark.parametrize("method", ["ssdkd", "fast2", "nayer", "dafl", "vanilla_kd"])
def test_every_methods_own_rounds_are_a_point_of_the_scheme(method: str, action: str) -> None:
    """Bit for bit: the same learning rates, draws and images as where rounds are counted."""
    rounds = make(method=method)
    work = make(method=method, action=action, budget={"work": costs_of(rounds).whole(rounds.budget)})
    # Actions are float32, and so are the exponents that `work` reads off them; `division` has the method's own.
    own = rounds.own_action if action == "work" else rounds.method.own_plan
    expected, found = play(rounds, own), play(work, work.own_action)
    assert len(found) == len(expected) == BUDGET["rounds"] + 1
    for name, value in student_of(rounds).items():
        assert torch.equal(student_of(work)[name], value), name
    for moment, same in zip(found, expected, strict=True):
        assert moment.info | {"work": 0} == same.info
        assert moment.reward == same.reward


def test_ends_and_middle_of_the_box_are_an_eighth_once_and_eight_times_the_own_steps() -> None:
    env = SSDKDEnv(action="work", work_scale=1.0)
    plans = [env.plan_of(action_of(*[value] * 7)) for value in (-1.0, 0.0, 1.0)]
    assert [plan.inversion_steps for plan in plans] == [1, 10, 80]
    assert [plan.student_steps for plan in plans] == [3, 22, 176]
    assert [plan.discrepancy_exponent for plan in plans] == [-2.0, 0.0, 2.0]


@pytest.mark.parametrize("amounts", [(2, 3), (2, 22), (10, 22), (37, 150), (80, 176)])
def test_plan_and_action_are_inverse(amounts: tuple[int, int]) -> None:
    env = SSDKDEnv(action="work", work_scale=1.0)
    plan = SamplingPlan(0.5, inversion_steps=amounts[0], student_steps=amounts[1])
    found = env.plan_of(env.action_of(plan))
    assert (found.inversion_steps, found.student_steps) == amounts
    assert found.discrepancy_exponent == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["paper", "uniform", "class_balanced"])
def test_named_plans_leave_the_steps_to_the_method(name: str) -> None:
    env, plan = SSDKDEnv(action="work", work_scale=1.0), NAMED_PLANS[name]
    found = env.plan_of(env.action_of(plan))
    assert (found.inversion_steps, found.student_steps) == (10, 22)
    assert found.discrepancy_exponent == pytest.approx(plan.discrepancy_exponent)
    assert found.diversity_exponent == pytest.approx(plan.diversity_exponent)


# --- what is counted ---


def test_work_of_one_is_that_of_ssdkd_with_the_tasks_own_budget() -> None:
    """Whatever the method and the settings of the budget, so that all have the same work."""
    own = SSDKDEnv()
    expected = costs_of(own).whole(own.budget)
    different: tuple[dict[str, Any], ...] = ({"method": "fast5"}, {"budget": {"warmup_rounds": 2, "student_steps": 5}})
    for arguments in ({}, *different):
        assert SSDKDEnv(work_scale=1.0, **arguments).budget.work == expected
    assert SSDKDEnv(work_scale=0.5).budget.work == round(expected / 2)
    assert SSDKDEnv(action="work", budget={"work": 10**10}).budget.work == 10**10


def test_costs_by_hand() -> None:
    env = make()
    teacher, student, generator = env.task.pass_costs
    costs, budget = costs_of(env), env.budget
    step = budget.candidates * (3 * generator + 2 * teacher + 2 * student)
    batch = budget.candidates * (generator + teacher + student)
    minibatch, refresh = budget.batch_size * (teacher + 3 * student), budget.buffer_capacity * student
    assert costs.round(Amounts(5, 7)) == 5 * step + batch + 7 * minibatch + refresh
    first = budget.candidates * (3 * generator + 2 * teacher)
    assert costs.warm_up == budget.warmup_rounds * (budget.inversion_steps * first + batch) + refresh


def test_multiply_adds_are_those_of_the_layers() -> None:
    task = make().task
    networks = {"student": task.build_student(0), "teacher": task.teacher_on(torch.device("cpu"))}
    for role, network in networks.items():
        counted: list[int] = []

        def count(layer: Any, _: Any, output: torch.Tensor, counted: list[int] = counted) -> None:
            counted.append(output[0].numel() * layer.weight[0].numel())

        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        network(torch.zeros(1, *task.spec.image_shape))
        for hook in hooks:
            hook.remove()
        assert getattr(task.pass_costs, role) == sum(counted)


# --- an episode ---


@pytest.mark.parametrize("action", [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (0.3, -0.6)])
def test_an_episode_spends_its_work_in_however_many_steps(action: tuple[float, float]) -> None:
    env = small()
    moments = play(env, action_of(*action))
    spent = [moment.info["work"] for moment in moments]
    assert spent == sorted(set(spent))
    assert spent[0] == costs_of(env).warm_up
    assert 0 <= env.budget.work - spent[-1] < costs_of(env).round(LEAST)
    assert moments[-1].info["progress"] == 1.0
    assert not moments[-1].truncated
    assert all(set(moment.info) == set(moments[0].info) for moment in moments)
    with pytest.raises(gym.error.ResetNeeded, match=f"the budget is used up after {len(moments) - 1} rounds"):
        env.step(action_of(*action))


def test_more_steps_a_round_are_fewer_rounds() -> None:
    lengths = [len(play(small(), action_of(factor, factor))) for factor in (-1.0, 0.0, 1.0)]
    assert lengths == sorted(set(lengths), reverse=True)


@pytest.mark.parametrize("steps_of_batch", [2, 16])
def test_the_meta_step_is_as_long_as_the_batch(steps_of_batch: int) -> None:
    """Fast's outer learning rate is the inner one times the steps."""
    env = small()
    env.reset(seed=0)
    env.step(SamplingPlan(inversion_steps=steps_of_batch))
    assert env.run is not None
    source = env.run.inversion.source
    assert isinstance(source, MetaGenerator)
    rates = {group["lr"] for group in source._meta_optimizer.param_groups}
    assert rates == {env.method.generator_lr * steps_of_batch}


def test_saved_episode_goes_on(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"observation": "work", "history": 2}
    env, other = small("work", **arguments), small("work", **arguments)
    action = action_of(*[-0.2] * 7)
    before = [reset(env, 7), *steps(env, [action])]
    env.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    rest = [to_the_end(each, action) for each in (env, other)]
    assert len(rest[0]) > 1
    assert_same([*before, *rest[0]], [*before, *rest[1]])
    with pytest.raises(InvalidInputError, match="budget"):
        small("work", work_scale=0.06, **arguments).load(tmp_path / "saved")


def test_what_the_halves_of_a_step_brought_is_observed() -> None:
    env = small(observation="work_unscaled")
    names = list(env.observation_names)
    moments = play(env, action_of(0.0, 0.0))
    seen = {name: [moment.observation[names.index(name)] for moment in moments] for name in names}
    assert seen["step_work"][0] == seen["synthesis_gain"][0] * 0.0
    assert sum(seen["step_work"]) == pytest.approx(1.0, abs=1e-6)
    known, fresh = (
        [(value := moment.info[name]) / (1 + value) for moment in moments]
        for name in ("buffer_discrepancy", "candidate_discrepancy")
    )
    assert seen["distillation_gain"][1:] == pytest.approx([a - b for a, b in pairwise(known)], abs=1e-6)
    pairs = zip(fresh[1:], known, strict=False)
    assert seen["synthesis_gain"][1:] == pytest.approx([now - before for now, before in pairs], abs=1e-6)


@pytest.mark.parametrize("action", ["work", "division"])
def test_the_checker_of_gymnasium_is_content(action: str) -> None:
    check_env(small(action, observation="work"), skip_render_check=True)


def test_the_picture_is_over_the_work() -> None:
    env = small(render_mode="rgb_array")
    play(env, action_of(0.0, 0.0))
    assert [point["progress"] for point in env.curve] == sorted({point["progress"] for point in env.curve})
    assert env.curve[-1]["progress"] == 1.0
    frame = env.render()
    assert frame is not None
    assert frame.std() > 10


def test_instances_may_differ_in_work() -> None:
    sizes = "tests.own_networks:WORK_SIZES"
    env = SSDKDEnv(instances=sizes, action="division", probe=SMALL_PROBE)
    lengths = []
    for number in range(2):
        env.reset(seed=1, options={"instance": number})
        lengths.append(len(to_the_end(env, action_of(0.5, 0.5))))
    assert lengths[0] < lengths[1]
    fixed: tuple[dict[str, Any], ...] = ({"work_scale": 0.3}, {"budget": {"work": 10**9}})
    for arguments in fixed:
        with pytest.raises(InvalidInputError, match=r"the instances of .* choose it"):
            SSDKDEnv(instances=sizes, probe=SMALL_PROBE, **arguments)


# --- bad input ---


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), 1e300, True, "1"], ids=repr)
def test_bad_amount_is_refused(scale: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"work_scale=.*expected a number above 0"):
        make(work_scale=scale)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"work_scale": 1.0, "budget": {"work": 10**9}}, "say the same; give one of them"),
        (
            {"action": "work", "work_scale": None},
            "divides a budget of work, and this one counts rounds; give work_scale",
        ),
        ({"action": "work", "budget": {"work": 0}}, "divides a budget of work"),
        ({"budget": {"work": -1}}, r"budget\['work'\]=-1: expected multiply-adds, or 0"),
        ({"budget": {"work": 1.5}}, r"budget\['work'\]=1.5: expected int"),
    ],
)
def test_bad_budget_of_work_is_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        make(**arguments)


def test_work_that_the_warm_up_uses_up_is_refused_before_anything_runs() -> None:
    with pytest.raises(
        InvalidInputError, match=r"\(work_scale\): filling the memory and the cheapest round take \d+ multiply-adds"
    ):
        make(budget={"work": 1000})


def test_more_steps_are_refused_where_they_would_cost_nothing() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(InvalidInputError, match="need a budget that counts them; give work_scale"):
        env.step(SamplingPlan(student_steps=1000))


@pytest.mark.parametrize("name", ["inversion_steps", "student_steps"])
def test_no_steps_at_all_are_refused(name: str) -> None:
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(InvalidInputError, match=rf"SamplingPlan.{name}=0: expected a whole number of at least 1"):
        SamplingPlan(**arguments)


@pytest.mark.parametrize("name", ["inversion_steps", "student_steps"])
def test_half_a_step_is_refused(name: str) -> None:
    arguments: dict[str, Any] = {name: 2.5}
    with pytest.raises(InvalidInputError, match=rf"SamplingPlan.{name}=2.5: expected a whole number"):
        SamplingPlan(**arguments)


@pytest.mark.parametrize("arguments", [{"work_scale": 1.0}, {"budget": {"work": 10**10}}], ids=str)
def test_rounds_beside_work_are_refused(arguments: dict[str, Any]) -> None:
    """They would say nothing, and two instances or suites that differ in them would be the same."""
    budget = {"rounds": 2} | arguments.get("budget", {})
    with pytest.raises(InvalidInputError, match=r"budget\['rounds'\] and .* both say how long a run is"):
        SSDKDEnv(**arguments | {"budget": budget})
    with pytest.raises(InvalidInputError, match=r"instances='digits-train', number 0: .* both say how long"):
        SSDKDEnv(instances="digits-train", **arguments)


def test_work_is_that_of_the_preset_however_its_numbers_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache must not answer for another preset whose numbers come out equal."""
    spec = replace(DIGITS, budgets={"small": {"candidates": 8, "student_steps": 3}})
    monkeypatch.setitem(TASKS._entries, "presets", spec)
    given: list[dict[str, Any]] = [{"preset": "small"}, {"candidates": 8, "student_steps": 3}]
    one, other = (load_task("presets", budget=budget, work_scale=1.0).spec.budget.work for budget in given)
    assert one < other
    assert load_task("presets", budget=given[0], work_scale=1.0).spec.budget.work == one


def test_attention_is_counted_in_evaluation_mode() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    inputs = torch.zeros(2, 8, 16)
    assert multiply_adds(layer.eval(), inputs) == multiply_adds(layer.train(), inputs) > 0
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_stream_never_draws_more_than_it_holds() -> None:
    env = make(method="dafl", action="division", budget={"student_steps": 3})
    sizes = Sizes.of(env.method, env.budget, env.task)
    for student_steps in (1, 3, 24):
        assert max(sizes.turns(student_steps)) * env.budget.batch_size <= sizes.capacity


def test_a_scheme_without_sampling_says_other_samplers_by_their_plans() -> None:
    env = small()
    assert env.paper_action.discrepancy_exponent == 1.0
    assert env.uniform_action.discrepancy_exponent == 0.0
    env.reset(seed=0)
    env.step(env.uniform_action)


def test_work_of_large_networks_is_loaded_again(tmp_path: Path) -> None:
    """Half of the paper's run of CIFAR-10 are 3 · 10¹⁶ multiply-adds, more than 2⁵³."""
    env = small()
    env.reset(seed=0)
    assert env.run is not None
    env.run.allowance.spent, env.run.allowance.total = 3 * 10**16, 6 * 10**16
    env.save(tmp_path / "episode.safetensors")
    other = small()
    other.load(tmp_path / "episode.safetensors")
    assert other.run is not None
    assert other.run.allowance.spent == 3 * 10**16
