"""How long a run goes on: rounds, or work that rounds divide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdkd_env.distillation.allowance import LEAST, Allowance, Amounts


def rounds(count: int) -> Allowance:
    return Allowance(count, lambda amounts: 1)


def work(total: int) -> Allowance:
    """An inversion step costs 7, a student minibatch 3, and 10 are the round's own."""
    return Allowance(total, lambda amounts: 10 + 7 * amounts.inversion_steps + 3 * amounts.student_steps, 100)


def test_rounds_are_counted_whatever_they_spend() -> None:
    allowance, seen = rounds(3), []
    while not allowance.done:
        assert allowance.affordable(Amounts(1000, 1000)) == Amounts(1000, 1000)
        seen.append((allowance.progress, allowance.position(LEAST)))
        allowance.spend(Amounts(1000, 1000))
    assert seen == [(0.0, 0.0), (1 / 3, 0.5), (2 / 3, 1.0)]
    assert allowance.progress == 1.0
    assert allowance.work == 0


def test_a_single_round_is_the_first() -> None:
    assert rounds(1).position(LEAST) == 0.0


def test_work_that_rounds_divide_equally_has_the_places_of_as_many_rounds() -> None:
    """Bit for bit: the learning rate of a run of fixed rounds must not change by being counted in work."""
    amounts, count = Amounts(5, 11), 7
    by_work, by_rounds = work(78 * count), rounds(count)
    for _ in range(count):
        assert not by_work.done
        assert by_work.affordable(amounts) == amounts
        assert by_work.position(amounts) == by_rounds.position(amounts)
        assert by_work.progress == by_rounds.progress
        by_work.spend(amounts)
        by_rounds.spend(amounts)
        assert by_work.has_passed(0.3) == by_rounds.has_passed(0.3)
    assert by_work.done
    assert by_work.work == 100 + 78 * count


def test_what_is_left_is_spent_and_the_end_is_where_no_round_can_be_paid() -> None:
    allowance = work(1000)
    while not allowance.done:
        amounts = allowance.affordable(Amounts(6, 30))
        assert amounts.inversion_steps >= 1 and amounts.student_steps >= 1
        allowance.spend(amounts)
        assert allowance.spent <= 1000
    assert 1000 - allowance.spent < 20, "the cheapest round costs 20"
    assert allowance.progress == 1.0


@pytest.mark.parametrize(
    ("left", "wanted", "expected"),
    [
        (100, Amounts(6, 16), Amounts(6, 16)),  # exactly all
        (99, Amounts(6, 16), Amounts(5, 16)),  # 15 of 16 minibatches leave 5 steps, and then there is room for 16
        (55, Amounts(6, 16), Amounts(3, 8)),
        (20, Amounts(6, 16), Amounts(1, 1)),
        (47, Amounts(40, 3), Amounts(4, 3)),  # not even a third of the steps
        (40, Amounts(1, 30), Amounts(1, 7)),
    ],
)
def test_both_parts_of_a_round_that_cannot_be_paid_shrink_alike(left: int, wanted: Amounts, expected: Amounts) -> None:
    assert work(left).affordable(wanted) == expected


@given(
    total=st.integers(20, 5000),
    wanted=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    per_batch=st.integers(1, 50),
    parts=st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 90)),
)
def test_what_cannot_be_paid_in_full_ends_the_run(
    total: int, wanted: tuple[int, int], per_batch: int, parts: tuple[int, int, int]
) -> None:
    """Where a round is one batch; with several, a last batch may not fit whose minibatches would."""
    step, minibatch, own = parts

    def cost(amounts: Amounts) -> int:
        batches = -(-amounts.student_steps // per_batch)
        return own + batches * step * amounts.inversion_steps + minibatch * amounts.student_steps

    allowance = Allowance(total, cost)
    if allowance.done:
        return
    amounts = allowance.affordable(Amounts(*wanted))
    assert amounts >= LEAST
    assert cost(amounts) <= total
    assert amounts.inversion_steps <= wanted[0] and amounts.student_steps <= wanted[1]
    allowance.spend(amounts)
    if amounts != wanted and per_batch >= wanted[1]:
        assert allowance.done


def test_a_round_that_takes_all_that_is_left_has_the_last_place() -> None:
    allowance = work(100)
    allowance.spend(Amounts(1, 1))
    assert allowance.position(allowance.affordable(Amounts(50, 50))) == pytest.approx(1.0, abs=0.05)
    assert allowance.position(Amounts(50, 50)) == 1.0, "also where it could not be paid"


def test_a_share_is_passed_once() -> None:
    allowance, passed = rounds(100), []
    for index in range(100):
        if allowance.has_passed(0.07):
            passed.append(index)
        allowance.spend(LEAST)
    assert passed == [7]


def test_a_state_dict_continues() -> None:
    original, restored = work(500), work(500)
    original.spend(Amounts(3, 3))
    original.spend(Amounts(4, 4))
    restored.load_state_dict(original.state_dict())
    assert vars(restored) | {"_cost": None} == vars(original) | {"_cost": None}
