"""Every action scheme: what its actions mean, what it refuses, and that it can say the paper's sampler."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ssdkd_env.distillation import DistillationRun, SamplingPlan, make_method
from ssdkd_env.distillation.scoring import FEATURES, BinScorer, ClassBinScorer, NeuralScorer
from ssdkd_env.envs.actions import ACTION_SCHEMES, OF_WORK
from ssdkd_env.envs.exponent_actions import RangedScheme
from ssdkd_env.envs.named_plans import NAMED_PLANS, NamedPlans
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Budget
from tests.distillation.halfway import recorded_weights
from tests.envs.episodes import BUDGET, FloatArray, assert_same, episode, make, reset, samples_of, steps
from tests.envs.test_actions import EPSILON, engine_probabilities, forget_nothing, probabilities_by_hand

CLASSES = 10
SCHEMES = {name: scheme(Budget(**BUDGET), make_method("ssdkd"), CLASSES) for name, scheme in ACTION_SCHEMES.items()}
BOXES = {name: scheme for name, scheme in SCHEMES.items() if name != "plans"}
PARTS = {"exponents": 5, "full": 8, "bins": 3 + 12, "class_bins": 3 + 4 * CLASSES, "samples": 2 + 7 + 3 * 9}
PARTS |= {"work": 7, "division": 2}
#: Those that say how to sample.
SAMPLING = [name for name in SCHEMES if name != "division"]


# --- spaces and names ---


@pytest.mark.parametrize("name", BOXES)
def test_boxes_have_a_name_for_each_part(name: str) -> None:
    scheme = BOXES[name]
    assert scheme.space == spaces.Box(-1.0, 1.0, (PARTS[name],), np.float32)
    assert len(set(scheme.names)) == len(scheme.names) == PARTS[name]
    assert scheme.names[: len(scheme.observed_names)] == scheme.observed_names


def test_strategies_have_a_name_for_each_choice() -> None:
    assert SCHEMES["plans"].space == spaces.Discrete(len(NAMED_PLANS))
    assert SCHEMES["plans"].names == tuple(NAMED_PLANS)
    assert {"paper", "uniform"} < {*NAMED_PLANS}


@pytest.mark.parametrize("name", ACTION_SCHEMES)
def test_only_class_bins_depend_on_the_number_of_classes(name: str, tiny_teacher: str) -> None:
    digits, tiny = make(action=name), make(action=name, task="tests.envs.own_networks:TINY", teacher=tiny_teacher)
    assert tiny.task.spec.num_classes == 3
    assert digits.observation_space == tiny.observation_space
    assert digits.observation_names == tiny.observation_names
    if name == "class_bins":
        assert (digits.action_space.shape, tiny.action_space.shape) == ((43,), (15,))
    else:
        assert digits.action_space == tiny.action_space
        assert digits.action_names == tiny.action_names
    moments, actions = [reset(tiny, 3)], iter(samples_of(tiny, 0))
    while len(moments) < 4 and not moments[-1].terminated:
        moments += steps(tiny, [next(actions)])
    assert all(moment.observation in digits.observation_space for moment in moments)


# --- actions and plans ---


@pytest.mark.parametrize("name", BOXES)
@given(data=st.data())
def test_action_and_plan_are_inverse(name: str, data: st.DataObject) -> None:
    scheme = BOXES[name]
    action = data.draw(npst.arrays(np.float32, PARTS[name], elements=st.floats(-1.0, 1.0, width=32)))
    again = scheme.from_plan(scheme.to_plan(action))
    assert again.dtype == np.float32
    assert again in scheme.space
    if name in OF_WORK:  # steps are whole numbers, so that many actions mean one plan
        plan, same = scheme.to_plan(action), scheme.to_plan(again)
        assert (plan.inversion_steps, plan.student_steps) == (same.inversion_steps, same.student_steps)
        again, action = again[:-2], action[:-2]
    np.testing.assert_allclose(again, action, atol=1e-6)


@pytest.mark.parametrize("index", range(len(NAMED_PLANS)))
def test_strategy_and_plan_are_inverse(index: int) -> None:
    scheme = SCHEMES["plans"]
    plan = scheme.to_plan(index)
    assert plan is [*NAMED_PLANS.values()][index]
    assert scheme.from_plan(plan) == scheme.from_plan(replace(plan)) == index
    assert scheme.from_plan(plan) in scheme.space


def test_a_plan_that_is_no_strategy_becomes_the_nearest() -> None:
    from_plan, names = SCHEMES["plans"].from_plan, [*NAMED_PLANS]
    assert names[from_plan(SamplingPlan(1.1, importance_exponent=0.35))] == "paper"
    assert names[from_plan(SamplingPlan(0.1, importance_exponent=0.0))] == "uniform"
    assert names[from_plan(SamplingPlan(0.9, replacement="oldest"))] == "fifo", "numbers differ less than rules"
    assert names[from_plan(SamplingPlan(0.2, reweighted=True))] == "reweighted"


def test_parts_of_full_are_the_plans_numbers() -> None:
    scheme = SCHEMES["full"]
    low, high = (scheme.to_plan(np.full(8, value, np.float32)) for value in (-1.0, 1.0))
    assert (low.phi_diversity_exponent, low.phi_difficulty_exponent, low.adversarial_scale) == (0.0, 0.0, 0.0)
    assert (high.phi_diversity_exponent, high.phi_difficulty_exponent, high.adversarial_scale) == (2.0, 2.0, 4.0)
    assert (low.discrepancy_exponent, high.difficulty_exponent) == (-2.0, 2.0)


@pytest.mark.parametrize(("method", "options"), [("ssdkd", {"gamma": 0.5}), ("fast5", {}), ("dfad", {})])
def test_full_says_the_methods_own_phi_where_a_plan_says_nothing(method: str, options: dict[str, Any]) -> None:
    own = make_method(method, options)
    scheme = ACTION_SCHEMES["full"](Budget(**BUDGET), own, CLASSES)
    plan = scheme.to_plan(scheme.from_plan(SamplingPlan()))
    assert plan.phi_diversity_exponent == (1.0 if own.modulate_diversity else 0.0)
    assert plan.phi_difficulty_exponent == (own.gamma if own.modulate_difficulty else 0.0)
    assert plan.adversarial_scale == 1.0


@pytest.mark.parametrize("name", ["bins", "class_bins"])
def test_a_part_of_a_table_is_the_logit_of_its_own_cell(name: str) -> None:
    scheme = BOXES[name]
    row, column = (2, 1) if name == "bins" else (7, 3)
    action = scheme.from_plan(SamplingPlan())
    action[scheme.names.index(f"{'rarity' if name == 'bins' else 'class'}_{row}_difficulty_{column}")] = 0.75
    scorer = scheme.to_plan(action).scorer
    assert isinstance(scorer, BinScorer if name == "bins" else ClassBinScorer)
    expected = torch.zeros(3 if name == "bins" else CLASSES, 4)
    expected[row, column] = 1.5
    assert torch.equal(scorer.logits, expected)
    assert scorer.exponent == 1.0


def test_parts_of_samples_are_the_weights_of_the_network() -> None:
    scheme = BOXES["samples"]
    action = np.zeros(36, np.float32)
    for number, part in enumerate(("linear_age_rank", "hidden_1_rarity_rank", "hidden_2_bias", "hidden_0_output")):
        action[scheme.names.index(part)] = 0.25 * (number + 1)
    scorer = scheme.to_plan(action).scorer
    assert isinstance(scorer, NeuralScorer)
    assert scorer.linear.tolist() == [0.0] * 6 + [0.5]
    hidden = torch.zeros(3, len(FEATURES))
    hidden[1, FEATURES.index("rarity_rank")] = 1.0
    assert torch.equal(scorer.hidden, hidden)
    assert scorer.bias.tolist() == [0.0, 0.0, 1.5]
    assert scorer.output.tolist() == [2.0, 0.0, 0.0]


def test_exponents_of_a_plan_are_weights_of_the_network() -> None:
    scheme = BOXES["samples"]
    scorer = scheme.to_plan(scheme.from_plan(SamplingPlan(0.5, -1.5, 2.0))).scorer
    assert isinstance(scorer, NeuralScorer)
    assert scorer.linear.tolist() == [0.5, -1.5, 2.0, 0.0, 0.0, 0.0, 0.0]


FOREIGN = {
    "a table of rarity": BinScorer(0.5, torch.ones(3, 4)),
    "a finer table": BinScorer(0.5, torch.ones(3, 5)),
    "a table of three classes": ClassBinScorer(0.5, torch.ones(3, 4)),
    "a table of ten classes": ClassBinScorer(0.5, torch.ones(10, 4)),
    "a larger network": NeuralScorer(torch.ones(7), torch.ones(5, 7), torch.ones(5), torch.ones(5)),
    "a function": lambda features: features.column("age_rank"),
}


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("scorer", FOREIGN.values(), ids=FOREIGN)
def test_a_scorer_that_the_scheme_cannot_say_is_left_out(scorer: Any, classes: int) -> None:
    """A table of rarity is no table of as many classes."""
    own = {"bins": (BinScorer, (3, 4)), "class_bins": (ClassBinScorer, (classes, 4))}
    for name, make_scheme in ACTION_SCHEMES.items():
        scheme = make_scheme(Budget(**BUDGET), make_method("ssdkd"), classes)
        action = scheme.from_plan(SamplingPlan(importance_exponent=0.25, scorer=scorer))
        assert action in scheme.space
        said = (type(scorer), np.shape(getattr(scorer, "logits", ()))) == own.get(name)
        without = scheme.from_plan(SamplingPlan(importance_exponent=0.25))
        assert np.array_equal(action, without) != said, name


# --- the paper's sampler and uniform sampling, distribution against distribution ---


@pytest.mark.parametrize("name", ACTION_SCHEMES)
def test_paper_action_samples_by_priority_and_weighs_by_importance(name: str) -> None:
    env = make(action=name)
    reset(env, 3)
    for _ in range(3):
        before = forget_nothing(env)
        probabilities = engine_probabilities(env, env.paper_action)
        expected = probabilities_by_hand(env, before, lambda delta: np.abs(delta) + EPSILON)
        np.testing.assert_allclose(probabilities, expected, rtol=2e-4)
        weights = (len(expected) * expected) ** -0.4
        assert env.run is not None
        found = env.run.buffer.residents.importance_weight.numpy()
        np.testing.assert_allclose(found, weights / (expected * weights).sum(), rtol=2e-4)
    assert expected.max() > 1.5 * expected.min()


@pytest.mark.parametrize("name", SAMPLING)
def test_uniform_action_gives_equal_weights(name: str) -> None:
    env = make(action=name)
    reset(env, 3)
    with recorded_weights() as found:
        moments = steps(env, [env.uniform_action] * 3)
    assert len(found) == 3
    for log_weights, moment in zip(found, moments, strict=True):
        assert (log_weights == log_weights[0]).all()
        assert env.run is not None
        assert (env.run.buffer.residents.importance_weight == 1).all()
        assert moment.info["effective_sample_size"] == pytest.approx(1.0)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("name", SAMPLING)
def test_run_by_a_named_action_is_the_run_by_its_plan(name: str, uniform: bool) -> None:
    """The engine alone goes the same way but for the last digits of β in float32."""
    env = make(action=name)
    plan = SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0) if uniform else SamplingPlan()
    reset(env, 3)
    assert env.run is not None
    alone = DistillationRun(env.task, env.method, env.run.seed)
    for _ in range(3):
        moment = steps(env, [env.uniform_action if uniform else env.paper_action])[0]
        report = alone.step(plan)
        assert (moment.info["replaced"], moment.info["round"]) == (report.replaced, report.round)
        assert moment.info["student_loss"] == pytest.approx(report.student_loss, rel=1e-4)
        assert moment.info["buffer_discrepancy"] == pytest.approx(report.discrepancy_quantiles[1], rel=1e-3)
    residents, others = env.run.buffer.residents, alone.buffer.residents
    assert torch.equal(residents.born, others.born)
    assert (residents.images.int() - others.images.int()).abs().max() <= 1


@pytest.mark.parametrize("name", NAMED_PLANS)
def test_every_strategy_runs(name: str) -> None:
    env = make(action="plans")
    assert isinstance(env.action_scheme, NamedPlans)
    moments = episode(env, 3, [[*NAMED_PLANS].index(name)] * 3)
    assert moments[-1].terminated
    assert not moments[-1].info["diverged"]
    if name == "keep":
        assert [moment.info["replaced"] for moment in moments] == [0] * 4
    if name == "fifo":
        assert [moment.info["replaced"] for moment in moments[2:]] == [16] * 2


@pytest.mark.parametrize("value", [-1.0, 1.0])
@pytest.mark.parametrize("name", BOXES)
def test_extreme_actions_run(name: str, value: float) -> None:
    env = make(action=name, work_scale=0.03 if name in OF_WORK else None)
    moments = [reset(env, 3)]
    while not moments[-1].terminated:
        moments += steps(env, [np.full(PARTS[name], value, np.float32)])
    assert not moments[-1].info["diverged"]


# --- a plan in place of an action ---


PLANS = {
    "paper": SamplingPlan(),
    "a rule": SamplingPlan(0.5, 1.0, -1.0, replacement="oldest", reweighted=True, adversarial_scale=2.0),
    "a scorer": SamplingPlan(scorer=lambda features: features.column("age_rank")),
    "logits": SamplingPlan(logits=torch.linspace(0, 2, 16 + 16)),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", ACTION_SCHEMES)
def test_a_plan_may_be_given_in_place_of_an_action(name: str, plan: SamplingPlan) -> None:
    """The engine does what the plan says; the observation repeats the action that comes nearest."""
    env = make(action=name)
    reset(env, 3)
    assert env.run is not None
    alone = DistillationRun(env.task, env.method, env.run.seed)
    moment = steps(env, [plan])[0]
    report = alone.step(plan)
    assert moment.info["student_loss"] == report.student_loss
    assert torch.equal(env.run.buffer.residents.images, alone.buffer.residents.images)
    scheme = env.action_scheme
    repeated = scheme.observed(scheme.from_plan(plan))
    np.testing.assert_array_equal(moment.observation[-len(repeated) :], repeated)


def test_unusable_plan_is_refused_and_the_episode_goes_on() -> None:
    env = make()
    actions = samples_of(env, 5)
    moments = [reset(env, 3), *steps(env, actions[:1])]
    with pytest.raises(InvalidInputError, match="logits has shape"):
        env.step(SamplingPlan(logits=torch.zeros(7)))
    moments += steps(env, actions[1:])
    assert_same(moments, episode(make(), 3, actions))


# --- what is refused ---


def bad_actions(name: str) -> dict[str, Any]:
    common: dict[str, Any] = {
        "None": None,
        "text": "paper",
        "NaN": math.nan,
        "a list of lists": [[1], [2, 3]],
        "a mapping": {},
    }
    if name == "plans":
        ends = {"below": -1, "above": len(NAMED_PLANS), "huge": 2**40, "a fraction": 0.5, "a float": np.float32(1.0)}
        return common | ends | {"a truth": True, "two": np.array([1, 2]), "none": np.array([], np.int64)}
    count = PARTS[name]
    broken = np.zeros(count, np.float32)
    broken[-1] = np.nan
    lengths = {"short": np.zeros(count - 1, np.float32), "long": np.zeros(count + 1, np.float32)}
    return common | lengths | {"a batch": np.zeros((1, count), np.float32), "a choice": 3, "one NaN": broken}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in ACTION_SCHEMES for kind in bad_actions(name)])
def test_bad_action_is_refused_in_one_line_that_names_the_parts(name: str, kind: str) -> None:
    scheme = SCHEMES[name]
    with pytest.raises(InvalidInputError, match="action=") as caught:
        scheme.to_plan(bad_actions(name)[kind])
    assert "\n" not in str(caught.value)
    for part in scheme.names:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ACTION_SCHEMES)
def test_episode_goes_on_after_bad_actions(name: str) -> None:
    env = make(action=name)
    actions = samples_of(env, 5)
    moments = [reset(env, 3), *steps(env, actions[:1])]
    for action in bad_actions(name).values():
        with pytest.raises(InvalidInputError):
            env.step(action)
    moments += steps(env, actions[1:])
    assert_same(moments, episode(make(action=name), 3, actions))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", [int, np.int32, np.uint8, np.array, lambda n: np.array([n]), torch.tensor])
def test_strategy_may_come_as_any_whole_number(form: Any) -> None:
    """Trainers give NumPy scalars, arrays of no dimension or of one."""
    env = make(action="plans")
    assert_same(episode(env, 3, [form(n) for n in (3, 0, 8)]), episode(env, 3, [3, 0, 8]))


@pytest.mark.parametrize("name", BOXES)
def test_action_outside_the_box_is_clipped(name: str) -> None:
    scheme = BOXES[name]
    assert isinstance(scheme, RangedScheme)
    far: FloatArray = np.linspace(-3.0, 3.0, PARTS[name], dtype=np.float32)
    near = far.clip(-1.0, 1.0)
    assert scheme.values(far) == scheme.values(near)
    np.testing.assert_array_equal(scheme.observed(far), near[: len(scheme.observed_names)])
