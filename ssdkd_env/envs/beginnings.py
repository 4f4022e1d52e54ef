"""Warm-ups that several episodes share: what one has made, the others with its seed and instance begin from. Ours."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ssdkd_env.envs.episode import Episode

#: Episodes that are compared with one another begin at nearly the same time; a second block may overlap the first.
KEPT = 2


class Beginnings:
    """What the last few warm-ups have made, each a copy of all that an episode holds.

    Agents and plans are compared on common random numbers, so that many episodes begin alike, and filling the memory is
    a good part of a short one. An episode that begins from a copy goes on with the same bits as one that made it.

    Args:
        kept: how many; with 0 every episode makes its own.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._made: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()

    def begin(self, episode: Episode, instance: int) -> None:
        """Begin an episode of the set's instance of this number, as another one with its seed did, if any."""
        key = instance, episode.run.seed
        state = self._made.get(key)
        if state is not None:
            episode.load_state_dict(state)
            self._made.move_to_end(key)
            return
        episode.begin()
        if self._kept:
            self._made[key] = episode.state_dict()
            if len(self._made) > self._kept:
                self._made.popitem(last=False)
