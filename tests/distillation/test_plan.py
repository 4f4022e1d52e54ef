"""What a sampling plan accepts."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.distillation.plan import REPLACEMENTS
from ssdkd_env.distillation.scoring import BinScorer
from ssdkd_env.errors import InvalidInputError


def plan_with(name: str, value: float) -> SamplingPlan:
    settings: dict[str, Any] = {name: value}
    return SamplingPlan(**settings)


@pytest.mark.parametrize("name", ["discrepancy_exponent", "diversity_exponent", "difficulty_exponent"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_exponents_must_be_finite(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=name):
        plan_with(name, value)


@pytest.mark.parametrize("name", ["importance_exponent", "replaced_share"])
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_shares_must_lie_in_the_unit_interval(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=name):
        plan_with(name, value)


@pytest.mark.parametrize("name", ["phi_diversity_exponent", "phi_difficulty_exponent", "adversarial_scale"])
@pytest.mark.parametrize("value", [-0.01, math.nan, math.inf, -math.inf])
def test_what_inversion_is_asked_for_must_be_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=rf"SamplingPlan\.{name}=.*: expected a finite number ≥ 0"):
        plan_with(name, value)
    assert getattr(plan_with(name, 0.0), name) == 0.0


def test_phi_is_the_methods_own_unless_it_is_given() -> None:
    plan = SamplingPlan()
    assert (plan.phi_diversity_exponent, plan.phi_difficulty_exponent, plan.adversarial_scale) == (None, None, 1.0)


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_known_replacements_are_accepted(replacement: str) -> None:
    assert SamplingPlan(replacement=replacement).replacement == replacement


def test_unknown_replacement_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"SamplingPlan\.replacement='newest' is unknown; .*oldest, priority, ran"
    ):
        SamplingPlan(replacement="newest")


def test_logits_and_a_scorer_exclude_each_other() -> None:
    logits, scorer = torch.zeros(3), BinScorer(1.0, torch.zeros(3, 4))
    with pytest.raises(InvalidInputError, match="logits and scorer exclude each other"):
        SamplingPlan(logits=logits, scorer=scorer)
    assert SamplingPlan(logits=logits).scorer is None
    assert SamplingPlan(scorer=scorer).logits is None


def test_the_ends_of_every_range_are_accepted() -> None:
    plan = SamplingPlan(-5.0, 5.0, 0.0, importance_exponent=0.0, replaced_share=1.0)
    assert (plan.discrepancy_exponent, plan.importance_exponent, plan.replaced_share) == (-5.0, 0.0, 1.0)


def test_a_plan_cannot_be_changed() -> None:
    plan: Any = SamplingPlan()
    with pytest.raises(FrozenInstanceError):
        plan.replaced_share = 0.1
