"""The replay buffer against a model of it in plain lists."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssdkd_env.distillation.buffer import Entries, ReplayBuffer, lowest
from ssdkd_env.errors import InvalidInputError

CLASSES = 4
CPU = torch.device("cpu")


def entries(ids: list[int]) -> Entries:
    """Rows that carry their id in every column."""
    number = torch.tensor(ids, dtype=torch.int64)
    image = torch.stack([number % 256, number // 256], dim=1).to(torch.uint8)
    return Entries(
        images=image[:, :, None, None].expand(-1, -1, 2, 2).contiguous(),
        teacher_logits=number.float()[:, None] - torch.arange(CLASSES),
        class_share=number.float()[:, None] + torch.arange(CLASSES),
        confidence=number.float(),
        discrepancy=number.float() * 2,
        importance_weight=number.float() * 3,
        born=number,
    )


def ids_of(rows: Entries) -> list[int]:
    """Ids of the rows; every column must tell the same."""
    ids: list[int] = rows.born.tolist()
    expected = entries(ids)
    for field in fields(Entries):
        assert torch.equal(getattr(rows, field.name), getattr(expected, field.name)), field.name
    return ids


def make_buffer(capacity: int) -> ReplayBuffer:
    return ReplayBuffer(capacity, (2, 2, 2), CLASSES, CPU)


@dataclass
class Round:
    """Keys of the candidates, and what the rest of an update needs."""

    candidate_keys: list[float]
    resident_keys: list[float]
    most_replaced: int


# Few levels, so that ties are common.
keys = st.one_of(st.integers(0, 4).map(float), st.floats(-5, 5))


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[Round]]:
    capacity = draw(st.integers(1, 8))
    size, rounds = 0, []
    for _ in range(draw(st.integers(1, 5))):
        count = draw(st.integers(1, 10))
        rounds.append(
            Round(
                candidate_keys=draw(st.lists(keys, min_size=count, max_size=count)),
                resident_keys=draw(st.lists(keys, min_size=size, max_size=size)),
                most_replaced=draw(st.integers(0, 10)),
            )
        )
        size = min(size + count, capacity)
    return capacity, rounds


def tensor_of(chosen: Round) -> Tensor:
    return torch.tensor(chosen.resident_keys + chosen.candidate_keys, dtype=torch.float64)


@given(histories())
def test_every_update_keeps_the_buffers_promises(history: tuple[int, list[Round]]) -> None:
    capacity, rounds = history
    buffer, next_id = make_buffer(capacity), 1
    for chosen in rounds:
        before = ids_of(buffer.residents)
        free = capacity - len(before)
        candidates = list(range(next_id, next_id + len(chosen.candidate_keys)))
        next_id += len(candidates)

        update = buffer.update(entries(candidates), tensor_of(chosen), chosen.most_replaced)
        replaced = update.replaced

        after = ids_of(buffer.residents)
        joined = [i for i in after if i in candidates]
        left = [i for i in before if i not in after]
        assert len(after) == len(buffer) == buffer.size == min(capacity, len(before) + len(candidates))
        assert buffer.free == capacity - len(after)
        assert len(set(after)) == len(after), "an image entered twice"
        assert [(before + candidates)[row] for row in update.rows.tolist()] == after
        assert set(after) <= set(before) | set(candidates)
        assert replaced.dtype == torch.int64
        assert int(replaced) == len(left) <= chosen.most_replaced
        assert len(joined) == min(free, len(candidates)) + len(left)
        stayed = [(slot, i) for slot, i in enumerate(before) if i in after]
        assert all(after[slot] == i for slot, i in stayed), "a resident that stays keeps its slot"


@given(histories())
def test_update_equals_a_plain_model(history: tuple[int, list[Round]]) -> None:
    capacity, rounds = history
    buffer, model, next_id = make_buffer(capacity), list[int](), 1
    for chosen in rounds:
        candidates = list(range(next_id, next_id + len(chosen.candidate_keys)))
        next_id += len(candidates)
        buffer.update(entries(candidates), tensor_of(chosen), chosen.most_replaced)

        waiting = sorted(zip(candidates, chosen.candidate_keys, strict=True), key=lambda pair: -pair[1])
        victims = sorted(range(len(model)), key=lambda slot: chosen.resident_keys[slot])
        while waiting and len(model) < capacity:
            model.append(waiting.pop(0)[0])
        for (new, key), slot in list(zip(waiting, victims, strict=False))[: chosen.most_replaced]:
            if key > chosen.resident_keys[slot]:
                model[slot] = new
        assert ids_of(buffer.residents) == model


def test_a_candidate_must_be_better_than_the_resident_that_it_meets() -> None:
    buffer = make_buffer(2)
    buffer.update(entries([1, 2]), torch.tensor([0.7, 0.5]), most_replaced=2)
    update = buffer.update(entries([3, 4]), torch.tensor([0.5, 0.7, 0.5, 0.5]), most_replaced=2)
    assert ids_of(buffer.residents) == [1, 2] and int(update.replaced) == 0, "a tie is the resident's"
    update = buffer.update(entries([5]), torch.tensor([0.5, 0.7, 0.6]), most_replaced=2)
    assert ids_of(buffer.residents) == [5, 2] and int(update.replaced) == 1


@given(histories())
def test_an_unbounded_update_keeps_the_highest_keys_of_buffer_and_candidates(
    history: tuple[int, list[Round]],
) -> None:
    capacity, rounds = history
    buffer, next_id = make_buffer(capacity), 1
    for chosen in rounds:
        candidates = list(range(next_id, next_id + len(chosen.candidate_keys)))
        next_id += len(candidates)
        union = ids_of(buffer.residents) + candidates
        key_of = dict(zip(union, chosen.resident_keys + chosen.candidate_keys, strict=True))
        buffer.update(entries(candidates), tensor_of(chosen), most_replaced=capacity)
        kept = sorted((key_of[i] for i in ids_of(buffer.residents)), reverse=True)
        assert kept == sorted(key_of.values(), reverse=True)[:capacity]


def test_free_slots_are_filled_even_by_the_lowest_keys() -> None:
    buffer = make_buffer(4)
    buffer.update(entries([1, 2]), torch.tensor([5.0, 6.0]), most_replaced=0)
    replaced = buffer.update(entries([3, 4]), torch.tensor([5.0, 6.0, -9.0, -8.0]), most_replaced=0).replaced
    assert int(replaced) == 0
    assert sorted(ids_of(buffer.residents)) == [1, 2, 3, 4]


def test_the_best_candidate_meets_the_worst_resident() -> None:
    buffer = make_buffer(3)
    buffer.update(entries([1, 2, 3]), torch.tensor([3.0, 2.0, 1.0]), most_replaced=0)
    replaced = buffer.update(entries([7, 8, 9]), torch.tensor([3.0, 1.0, 2.0, 0.0, 5.0, 4.0]), most_replaced=1).replaced
    assert int(replaced) == 1
    assert ids_of(buffer.residents) == [1, 8, 3]


def test_residents_are_views_into_the_buffer() -> None:
    buffer = make_buffer(3)
    buffer.update(entries([1, 2]), torch.zeros(2), most_replaced=0)
    buffer.residents.discrepancy.copy_(torch.tensor([10.0, 20.0]))
    assert buffer.residents.discrepancy.tolist() == [10.0, 20.0]


def test_candidates_are_copied() -> None:
    buffer, candidates = make_buffer(2), entries([1, 2])
    buffer.update(candidates, torch.zeros(2), most_replaced=0)
    candidates.images.zero_()
    candidates.born.zero_()
    assert ids_of(buffer.residents) == [1, 2]


def test_mean_class_share_is_that_of_the_residents_alone() -> None:
    buffer = make_buffer(5)
    assert buffer.mean_class_share().tolist() == [0.0] * CLASSES
    candidates = entries([1, 2, 3])
    candidates.class_share = torch.eye(CLASSES)[[0, 0, 2]]
    buffer.update(candidates, torch.zeros(3), most_replaced=0)
    assert buffer.mean_class_share().tolist() == pytest.approx([2 / 3, 0, 1 / 3, 0])


def test_a_state_dict_restores_every_row_and_shares_nothing() -> None:
    buffer, other = make_buffer(4), make_buffer(4)
    buffer.update(entries([1, 2, 3]), torch.zeros(3), most_replaced=0)
    state = buffer.state_dict()
    buffer.update(entries([4, 5]), torch.arange(5.0), most_replaced=4)
    other.load_state_dict(state)
    assert ids_of(other.residents) == [1, 2, 3]
    other.update(entries([6]), torch.zeros(4), most_replaced=0)
    assert ids_of(other.residents) == [1, 2, 3, 6]
    assert state["size"] == 3


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_buffer_without_room_is_refused(capacity: int) -> None:
    with pytest.raises(InvalidInputError, match="buffer_capacity"):
        make_buffer(capacity)


@given(
    st.lists(
        st.one_of(st.integers(0, 5).map(float), st.just(float("inf")), st.just(float("nan"))), min_size=1, max_size=200
    ),
    st.floats(0, 1),
)
def test_the_lowest_keys_are_those_of_a_stable_sort(values: list[float], share: float) -> None:
    """Few of many, where the buffer is not sorted, and many of few; keys of a diverged student come last."""
    many = torch.tensor(values, dtype=torch.float64)
    count = int(share * len(many) / 8)
    order = sorted(range(len(values)), key=lambda row: (values[row] != values[row], values[row]))
    for number in (count, len(many)):
        assert lowest(many, number).tolist() == order[:number]


@given(histories())
def test_replaced_residents_are_counted_before_they_leave(history: tuple[int, list[Round]]) -> None:
    """And counting moves nothing."""
    capacity, rounds = history
    buffer, next_id = make_buffer(capacity), 1
    for chosen in rounds:
        candidates = list(range(next_id, next_id + len(chosen.candidate_keys)))
        next_id += len(candidates)
        before = ids_of(buffer.residents)
        count = buffer.count_replaced(tensor_of(chosen), chosen.most_replaced)
        assert ids_of(buffer.residents) == before
        assert torch.equal(count, buffer.update(entries(candidates), tensor_of(chosen), chosen.most_replaced).replaced)
