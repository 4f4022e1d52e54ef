"""Warm-ups that several episodes share: what one has made, the others with its seed and instance begin from. Ours."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ssdkd_env.envs.episode import Episode

#: Episodes that are compared with one another begin at nearly the same time; a second block may overlap the first.
KEPT = 2


class Beginnings:
    """What the last few warm-ups have made, each a copy of all that an episode holds.

    Agents and plans are compared on common random numbers, so that many episodes begin alike; filling the memory is a
    fifth of a short one. An episode that begins from a copy goes on with the same bits as one that made it.
    """

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()

    def begin(self, episode: Episode, instance: int) -> None:
        """Begin an episode of the set's instance of this number, as another one with its seed did, if any."""
        key = instance, episode.run.seed
        state = self._made.get(key)
        if state is None:
            episode.begin()
            self._made[key] = episode.state_dict()
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        else:
            episode.load_state_dict(state)
            self._made.move_to_end(key)
