"""What a sampling plan accepts."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from ssdkd_env.distillation import SamplingPlan
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


def test_the_ends_of_every_range_are_accepted() -> None:
    plan = SamplingPlan(-5.0, 5.0, 0.0, importance_exponent=0.0, replaced_share=1.0)
    assert (plan.discrepancy_exponent, plan.importance_exponent, plan.replaced_share) == (-5.0, 0.0, 1.0)


def test_a_plan_cannot_be_changed() -> None:
    plan: Any = SamplingPlan()
    with pytest.raises(FrozenInstanceError):
        plan.replaced_share = 0.1
