"""Which seeds are whose, so that what is selected and what is compared was never trained on."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

#: Trainings and searches draw their episodes' seeds below; validation, by which agents are selected, begins here.
VALIDATION_SEED = 500_000
#: The final comparison begins here.
HELD_OUT_SEED = 1_000_000
#: Episodes by which rewards, budgets and observations are chosen begin here, beyond all of the others.
MEASUREMENT_SEED = 2_000_000


class Beginning(NamedTuple):
    """What an episode begins with.

    Attributes:
        seed: of its random numbers.
        instance: number of it in the set.
    """

    seed: int
    instance: int


def in_turn(seed: int, number: int, instances: int) -> Beginning:
    """The beginning of one of a training's episodes, of which as many play one instance as play any other.

    Args:
        seed: of the training.
        number: of the episode, from 0 on.
        instances: of the set, which are gone through again and again, each time in an order of chance.
    """
    round_, place = divmod(number, instances)
    order = np.random.default_rng([seed, round_]).permutation(instances)
    drawn = np.random.default_rng([seed, number, 1]).integers(VALIDATION_SEED)
    return Beginning(int(drawn), int(order[place]))


def instances_in_turn(random: np.random.Generator, instances: int) -> Iterator[int]:
    """Numbers of instances without end: all of a set, each time in an order of chance. Of one nothing is drawn."""
    while True:
        yield from random.permutation(instances).tolist() if instances > 1 else [0]


def shared_out(episodes: int, instances: int, skipped: int = 0) -> list[int]:
    """The instance of each of some episodes that are compared: none is played twice before all are played once.

    Their order is one of chance, always the same, so that fewer episodes than instances are of all kinds.

    Args:
        episodes: how many.
        instances: of the set.
        skipped: episodes before them, which somebody else plays.
    """
    order = instances_in_turn(np.random.default_rng(0), instances)
    return list(islice(order, skipped, skipped + episodes))


def unequally_shared(episodes: int, instances: int) -> str | None:
    """What there is to say where some instances are played more often than others, in a line."""
    if episodes % instances == 0:
        return None
    return (
        f"{episodes} episodes on {instances} instances: some are played once more than others; a multiple of "
        f"{instances} plays all of them equally often"
    )
