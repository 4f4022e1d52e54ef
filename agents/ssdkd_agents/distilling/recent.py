"""What has lately been synthesised in a run: the images, where they are to be kept, and of how many classes."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.errors import InvalidInputError

#: Images for each class over which the effective number of classes is taken: fewer would be of few classes by chance.
IMAGES_A_CLASS = 10


class Recent:
    """Looks at a run after each of its steps; saved with the run's checkpoints.

    Args:
        images: the last so many that came into the buffer are held; 0 for none.
    """

    def __init__(self, images: int = 0) -> None:
        self._most = images
        self._images: deque[Tensor] = deque()
        self._rounds: deque[Tensor] = deque()
        self._counts: deque[Tensor] = deque()
        self._counted: Tensor | None = None
        self._seen = 0

    def see(self, run: DistillationRun) -> None:
        """Take in what the last step has synthesised; after the warm-up, all that there is.

        Of a step of several rounds, those images count that are still in the buffer after it.
        """
        counts = run.synthesized_class_counts.cpu().clone()
        self._counts.append(counts if self._counted is None else counts - self._counted)
        while self._count() - float(self._counts[0].sum()) >= IMAGES_A_CLASS * len(counts):
            self._counts.popleft()
        if self._most:
            self._take_images(run, first=self._counted is None)
        self._counted, self._seen = counts, run.round

    def _take_images(self, run: DistillationRun, first: bool) -> None:
        residents = run.buffer.residents
        new = slice(None) if first else residents.born >= self._seen
        order = residents.born[new].argsort(stable=True)
        images, rounds = residents.images[new][order], residents.born[new][order]
        self._images.append(images[-self._most :].cpu())
        self._rounds.append(rounds[-self._most :].cpu())
        while sum(map(len, self._images)) - len(self._images[0]) >= self._most:
            self._images.popleft()
            self._rounds.popleft()

    def _count(self) -> float:
        return sum(float(counts.sum()) for counts in self._counts)

    @property
    def is_enough(self) -> bool:
        """Whether `effective_classes` is of `IMAGES_A_CLASS` images for each class."""
        return self._count() >= IMAGES_A_CLASS * len(self._counts[0])

    @property
    def effective_classes(self) -> float | None:
        """exp(entropy) of the teacher's classes of the last images, between 1 and the number of classes.

        Of dense predictions, of their pixels. None where nothing was synthesised.
        """
        counts = torch.stack(list(self._counts)).sum(dim=0)
        if not counts.sum() > 0:
            return None
        share = counts / counts.sum()
        return float(torch.special.entr(share).sum().exp())

    def images(self) -> tuple[Tensor, Tensor]:
        """The last images (N, C, H, W) uint8, oldest first, and the round in which each was made, (N,)."""
        images, rounds = torch.cat(list(self._images)), torch.cat(list(self._rounds))
        return images[-self._most :], rounds[-self._most :]

    def state_dict(self) -> dict[str, Any]:
        """Everything."""
        held = {"most": self._most, "images": list(self._images), "rounds": list(self._rounds)}
        return held | {"counts": list(self._counts), "counted": self._counted, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`.

        Raises:
            InvalidInputError: when another number of images was held.
        """
        if state["most"] != self._most:
            raise InvalidInputError(f"the last {state['most']} images were held, {self._most} are asked for")
        self._images, self._rounds = deque(state["images"]), deque(state["rounds"])
        self._counts, self._counted, self._seen = deque(state["counts"]), state["counted"], state["seen"]
