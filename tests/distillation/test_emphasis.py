"""What a plan asks of inversion reaches its loss, of every run its own."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.distillation.emphasis import Emphasis
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.losses import adversarial_loss, one_hot_loss
from ssdkd_env.distillation.methods import METHODS, make_method
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.distillation.priority import class_share, confidence, difficulty, diversity, target_probability
from tests.distillation.halfway import synthesis_work
from tests.distillation.test_grouped import assert_same, assert_same_runs, digits, make_runs, step_alone, step_together
from tests.distillation.test_inversion import CLASSES
from tests.distillation.test_objective import SHARE, as_inputs, lively_pair, make_images, make_objective, make_targets
from tests.distillation.test_run import make_run, plain, same_state
from tests.distillation.test_sampling import PAPER_BY_SCORERS

#: φ and adversary off, on, and stronger than the method's own.
EMPHASES = [
    Emphasis(1.0, 0.5),
    Emphasis(0.0, 0.0, 0.0),
    Emphasis(2.0, 0.0, 1.0),
    Emphasis(0.0, 1.7, 4.0),
    Emphasis(0.3, 2.0, 0.5),
]


def plan_of(emphasis: Emphasis) -> SamplingPlan:
    return SamplingPlan(
        phi_diversity_exponent=emphasis.diversity_exponent,
        phi_difficulty_exponent=emphasis.difficulty_exponent,
        adversarial_scale=emphasis.adversarial_scale,
    )


# --- the numbers ---


@pytest.mark.parametrize("name", METHODS)
def test_the_default_plan_asks_for_the_methods_own(name: str) -> None:
    method = METHODS[name]
    own = Emphasis.of(method)
    assert own == Emphasis.of(method, SamplingPlan())
    assert own.adversarial_scale == 1.0
    assert own.diversity_exponent == (1.0 if method.modulate_diversity else 0.0)
    assert own.difficulty_exponent == (method.gamma if method.modulate_difficulty else 0.0)


def test_a_plan_may_give_some_of_the_numbers() -> None:
    method = make_method("ssdkd", {"gamma": 0.5})
    assert Emphasis.of(method, SamplingPlan(phi_diversity_exponent=0.0)) == Emphasis(0.0, 0.5)
    assert Emphasis.of(method, SamplingPlan(phi_difficulty_exponent=2.0)) == Emphasis(1.0, 2.0)
    assert Emphasis.of(method, SamplingPlan(adversarial_scale=3.0)) == Emphasis(1.0, 0.5, 3.0)


# --- the loss ---


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("emphasis", EMPHASES)
@pytest.mark.parametrize(
    ("name", "options"), [("ssdkd", {}), ("ssdkd", {"focal": True}), ("fast5", {}), ("dfq", {}), ("deepinversion", {})]
)
def test_the_emphasis_reaches_the_loss(name: str, options: dict[str, Any], emphasis: Emphasis) -> None:
    """The loss without φ and adversary, plus both by hand; and so its gradient."""
    (teacher, student), images, targets = lively_pair(), make_images(), make_targets()
    method, share = make_method(name, options), torch.tensor(SHARE)
    objective = make_objective(method, teacher)
    losses, _ = objective(images, targets, student, share[None], [emphasis])

    bare = replace(method, one_hot_weight=0.0, adversarial_weight=0.0)
    rest = make_objective(bare, teacher)(images, targets, None, share[None])[0][0]
    inputs = as_inputs(images)
    logits, answers = teacher(inputs), student(inputs)
    targets = targets if method.drawn_targets else logits.argmax(dim=1)
    p_teacher = target_probability(logits, targets) if method.focal else confidence(logits)
    phi = diversity(class_share(logits), share) ** emphasis.diversity_exponent
    phi = (phi * difficulty(p_teacher, emphasis.difficulty_exponent)).detach()
    rival = adversarial_loss(logits, answers, method.masked, method.adversarial_distance).mean()
    expected = (
        rest
        + method.one_hot_weight * (phi * one_hot_loss(logits, targets)).mean()
        + method.adversarial_weight * emphasis.adversarial_scale * rival
    )
    torch.testing.assert_close(losses[0], expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(value, images)[0] for value in (losses[0], expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ssdkd", "fast5", "dfq"])
def test_several_runs_get_the_emphasis_of_each(name: str) -> None:
    teacher, student = lively_pair()
    method, runs = METHODS[name], len(EMPHASES)
    joined = Objective.joined([make_objective(method, teacher, seed=seed) for seed in range(runs)])
    images = [make_images(seed) for seed in range(runs)]
    targets = [make_targets().roll(seed) for seed in range(runs)]
    shares = torch.rand(runs, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    losses, _ = joined(torch.cat(images), torch.cat(targets), student, shares, EMPHASES)
    alone = [
        make_objective(method, teacher)(images[run], targets[run], student, shares[run : run + 1], [EMPHASES[run]])[0]
        for run in range(runs)
    ]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-10, atol=1e-12)
    assert len({round(loss, 9) for loss in losses.tolist()}) == runs


def test_no_root_of_a_number_below_zero_is_taken() -> None:
    """Where all the buffer is of one class, rounding can bring its share a hair above 1."""
    teacher, _ = lively_pair()
    share = torch.full((1, CLASSES), 1.0 + 2e-7)
    objective = make_objective(METHODS["ssdkd"], teacher)
    losses, _ = objective(make_images(), make_targets(), None, share, [Emphasis(0.5, 0.0)])
    assert losses.isfinite().all()


# --- runs ---


def test_the_default_plan_leaves_a_run_bit_identical_to_the_methods_own() -> None:
    given = SamplingPlan(phi_diversity_exponent=1.0, phi_difficulty_exponent=1.0, adversarial_scale=1.0)
    runs = [make_run(5), make_run(5)]
    assert runs[0].method.gamma == 1.0
    for _ in range(2):
        assert plain(runs[0].step(SamplingPlan())) == plain(runs[1].step(given))
    assert same_state(runs[0].state_dict(), runs[1].state_dict())


def test_batches_without_emphasis_are_the_methods_own() -> None:
    """As the probe set is made."""
    run = make_run(5)
    run.warm_up()
    engines = run.inversion, copy.deepcopy(run.inversion)
    share = run.buffer.mean_class_share()
    own = engines[0].synthesize(run.student, share)
    given = engines[1].synthesize(run.student, share, emphasis=Emphasis.of(run.method, SamplingPlan()))
    assert same_state(list(own), list(given))


@pytest.mark.parametrize("emphasis", EMPHASES[1:])
def test_a_plan_changes_what_is_synthesised_from_its_own_round_on(emphasis: Emphasis) -> None:
    run = make_run(5)
    run.warm_up()
    work = synthesis_work(run, plan_of(emphasis))
    assert work.emphasis == emphasis
    images, _ = work.alone()
    own = make_run(5)
    own.warm_up()
    assert not torch.equal(images, synthesis_work(own, SamplingPlan()).alone()[0])


def test_the_warm_up_is_the_methods_own_whatever_the_plan() -> None:
    by_itself, by_hand = make_run(5), make_run(5)
    by_hand.warm_up()
    plan = plan_of(EMPHASES[3])
    assert plain(by_itself.step(plan)) == plain(by_hand.step(plan))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ssdkd", "fast5"])
def test_runs_of_different_emphasis_give_in_a_group_what_they_give_alone(name: str) -> None:
    method = make_method(name, {} if name == "ssdkd" else {"steps": 2})
    plans = [plan_of(emphasis) for emphasis in EMPHASES]
    together, apart = (make_runs(digits(), method, range(len(plans))) for _ in range(2))
    grouped = GroupedRuns()
    for _ in range(2):
        assert_same(step_together(grouped, together, plans), step_alone(apart, plans))
        plans = plans[1:] + plans[:1]
    assert_same_runs(together, apart)


@pytest.mark.usefixtures("float64")
def test_runs_of_different_kinds_of_plan_give_in_a_group_what_they_give_alone() -> None:
    plans = [
        SamplingPlan(scorer=PAPER_BY_SCORERS["samples"], adversarial_scale=2.0),
        SamplingPlan(scorer=PAPER_BY_SCORERS["bins"], replacement="oldest", replaced_share=0.5),
        SamplingPlan(reweighted=True, replacement="random"),
    ]
    together, apart = (make_runs(digits(), METHODS["ssdkd"], range(len(plans))) for _ in range(2))
    grouped = GroupedRuns()
    for _ in range(2):
        assert_same(step_together(grouped, together, plans), step_alone(apart, plans))
    assert_same_runs(together, apart)
