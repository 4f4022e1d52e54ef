"""The small dynamic replay buffer: fixed capacity, partial update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ssdkd_env.distillation.restoring import restore
from ssdkd_env.errors import InvalidInputError

#: Columns of `Entries` that are written anew for images that stay.
MEASURED = ("discrepancy", "importance_weight")
#: Residents for each place given away, from which on looking for the lowest beats sorting all.
MUCH_LARGER = 8


@dataclass
class Entries:
    """Images and what the priorities need to know of each, row by row.

    Attributes:
        images: (N, C, H, W) uint8.
        teacher_logits: (N, classes) float32, the teacher's answer, which never changes; (N, 0) for dense prediction,
            where it would be larger than the images.
        class_share: (N, classes) float32, the teacher's arg-max classes (one-hot for classification).
        confidence: (N,) float32, p_T.
        discrepancy: (N,) float32, KL(f_T ‖ f_S) in nats when last refreshed.
        importance_weight: (N,) float32, w of the last draws; of an image that was never drawn from, what residents
            of its KL carry (`priority.entering_weights`), and 1 before the first draws.
        born: (N,) int64, the round in which the image was synthesised.
    """

    images: Tensor
    teacher_logits: Tensor
    class_share: Tensor
    confidence: Tensor
    discrepancy: Tensor
    importance_weight: Tensor
    born: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Tensor | slice) -> Entries:
        """The chosen rows."""
        return Entries(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class Update:
    """Who is in the buffer after an update.

    Attributes:
        rows: (size,) int64, for each slot the row of its image among residents and candidates, residents first, as
            they were before.
        replaced: number of residents replaced, a scalar int64 tensor (no host synchronisation).
    """

    rows: Tensor
    replaced: Tensor


class ReplayBuffer:
    """Residents in fixed slots; a round replaces some of them and never grows beyond `capacity`.

    Args:
        capacity: number of images.
        image_shape: (C, H, W).
        num_classes: number of classes.
        device: where everything is kept.
        dense: the teacher answers for each pixel.

    Raises:
        InvalidInputError: when `capacity` is below 1.
    """

    def __init__(
        self,
        capacity: int,
        image_shape: tuple[int, int, int],
        num_classes: int,
        device: torch.device,
        dense: bool = False,
    ) -> None:
        if capacity < 1:
            raise InvalidInputError(f"buffer_capacity={capacity}: expected at least 1 image")
        self.capacity = capacity
        self.size = 0
        #: Rows that updates have overwritten, and what was there, while somebody may want it back.
        self._overwritten: list[tuple[Tensor, Entries]] | None = None
        self._slots = Entries(
            images=torch.zeros((capacity, *image_shape), dtype=torch.uint8, device=device),
            teacher_logits=torch.zeros((capacity, 0 if dense else num_classes), device=device),
            class_share=torch.zeros((capacity, num_classes), device=device),
            confidence=torch.zeros(capacity, device=device),
            discrepancy=torch.zeros(capacity, device=device),
            importance_weight=torch.ones(capacity, device=device),
            born=torch.zeros(capacity, dtype=torch.int64, device=device),
        )

    def __len__(self) -> int:
        return self.size

    @property
    def residents(self) -> Entries:
        """The filled slots, as views: writing into them writes into the buffer."""
        return self._slots.rows(slice(0, self.size))

    @property
    def free(self) -> int:
        """Number of empty slots."""
        return self.capacity - self.size

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, filled or not."""
        return sum(getattr(self._slots, f.name).nbytes for f in fields(Entries))

    def mean_class_share(self) -> Tensor:
        """(classes,) share of each class among the residents; zeros when empty."""
        if self.size == 0:
            return torch.zeros_like(self._slots.class_share[0])
        return self.residents.class_share.mean(dim=0)

    def update(self, candidates: Entries, keys: Tensor, most_replaced: int) -> Update:
        """Take candidates into free slots first, then in place of residents with lower keys.

        With keys = log-weights + Gumbel noise and `most_replaced` unbounded, the new residents are a draw
        without replacement of `capacity` images ∝ P over buffer ∪ candidates. The bound makes the update
        partial: the best candidate meets the worst resident, the second best the second worst, and so on.

        Args:
            candidates: the new images.
            keys: (size + len(candidates),) float, residents first; higher stays.
            most_replaced: largest number of residents that may leave; filling free slots does not count.
        """
        joining, contenders, weakest, wins = self._contest(keys, most_replaced)
        rows = torch.cat([torch.arange(self.size, device=keys.device), self.size + joining])
        rows[weakest] = torch.where(wins, self.size + contenders, weakest)
        self._keep_what_is_overwritten(weakest)
        for field in fields(Entries):
            slots, new = getattr(self._slots, field.name), getattr(candidates, field.name)
            slots[self.size : self.size + len(joining)] = new.index_select(0, joining)
            if len(wins):
                won = wins.view(-1, *[1] * (slots.dim() - 1))
                # On the CPU these move rows faster than indexing with brackets.
                entering, leaving = new.index_select(0, contenders), slots.index_select(0, weakest)
                slots.index_copy_(0, weakest, torch.where(won, entering, leaving))
        self.size += len(joining)
        return Update(rows, wins.sum())

    def count_replaced(self, keys: Tensor, most_replaced: int) -> Tensor:
        """How many residents `update` would replace, a scalar int64 tensor."""
        return self._contest(keys, most_replaced)[3].sum()

    def _contest(self, keys: Tensor, most_replaced: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Who meets whom in an update.

        Returns:
            Candidates that take free slots; the other candidates and the residents that they meet, pair by pair; and
            whether the candidate wins.
        """
        resident_keys, candidate_keys = keys[: self.size], keys[self.size :]
        best_first = candidate_keys.argsort(descending=True, stable=True)
        joining, contenders = best_first[: self.free], best_first[self.free :]
        pairs = min(most_replaced, len(contenders), self.size)
        weakest, contenders = lowest(resident_keys, pairs), contenders[:pairs]
        return joining, contenders, weakest, candidate_keys[contenders] > resident_keys[weakest]

    def _keep_what_is_overwritten(self, rows: Tensor) -> None:
        """Copies of rows that are written over inside `undone_by_errors`, of all together at most twice the buffer.

        Which rows are copied twice only the device knows, and to ask it takes longer than to copy.
        """
        kept = self._overwritten
        if kept is None or (kept and len(kept[0][0]) == self.capacity):  # every row is there
            return
        kept.append((rows, self._slots.rows(rows)))
        if sum(len(copied) for copied, _ in kept) > self.capacity:
            everything = torch.arange(self.capacity, device=rows.device)
            before = self._slots.rows(everything)
            self._put_back(before)
            self._overwritten = [(everything, before)]

    def _put_back(self, slots: Entries) -> None:
        """Write what was overwritten into slots, the first copy of a row last."""
        for rows, entries in reversed(self._overwritten or []):
            for field in fields(Entries):
                getattr(slots, field.name).index_copy_(0, rows, getattr(entries, field.name))

    @property
    def is_undoable(self) -> bool:
        """Whether this is inside `undone_by_errors`."""
        return self._overwritten is not None

    @contextmanager
    def undone_by_errors(self) -> Iterator[None]:
        """Put everything back as it was if the block raises.

        Updates keep what they overwrite, and only the columns that are measured anew every round are copied: a large
        buffer would not fit into memory twice.
        """
        size, self._overwritten = self.size, []
        measured = {name: getattr(self._slots, name).clone() for name in MEASURED}
        try:
            yield
        except BaseException:
            self._put_back(self._slots)
            for name, before in measured.items():
                getattr(self._slots, name).copy_(before)
            self.size = size
            raise
        finally:
            self._overwritten = None

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything, copied."""
        state: dict[str, Tensor | int] = {f.name: getattr(self._slots, f.name).clone() for f in fields(Entries)}
        return state | {"size": self.size}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Continue from `state_dict()`."""
        size = state["size"]
        if not isinstance(size, int) or not 0 <= size <= self.capacity:
            raise ValueError(f"a buffer of {self.capacity} images holds {size!r}")
        self.size = size
        for field in fields(Entries):
            restore(getattr(self._slots, field.name), state[field.name], field.name)


def lowest(keys: Tensor, count: int) -> Tensor:
    """Rows of the `count` lowest keys (N,), lowest first, equal ones in their order.

    That is `keys.argsort(stable=True)[:count]`, but a large buffer is not sorted for the few places that a round can
    give away.

    Returns:
        (count,) int64.
    """
    if count == 0 or count * MUCH_LARGER > len(keys) or keys.device.type != "cpu":  # `nonzero` would wait for a GPU
        return keys.argsort(stable=True)[:count]
    limit = keys.kthvalue(count).values
    if limit.isnan():  # of a diverged student; it compares with nothing
        return keys.argsort(stable=True)[:count]
    rows = torch.cat([(keys < limit).nonzero()[:, 0], (keys == limit).nonzero()[:, 0]])[:count]
    return rows[keys[rows].argsort(stable=True)]
