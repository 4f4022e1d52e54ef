"""Which entries of the observation matter to a sampler: permuted in what it saw, and replaced while it acts.

After permutation importance (Breiman 2001, sec. 10), in two forms. `entries_read` asks the sampler again about recorded
observations: what would it have answered? `play` with a `Replacement` plays the episodes again: what is the information
worth? An entry that the sampler reads may be worth nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier as Dummy
from sklearn.inspection import permutation_importance
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean
from ssdkd_agents.lines import append_line
from ssdkd_agents.playing import PlayedEpisode, play_side_by_side
from ssdkd_agents.samplers import PlanningSampler, Sampler
from ssdkd_agents.seeds import shared_out
from tqdm import tqdm

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError

FloatArray = NDArray[np.float32]
Values = NDArray[np.float64]
#: Group of entries → what a name in it looks like. The first that fits has the entry.
GROUPS = {
    "progress": r"progress",
    "last_action": r"last_action_.*",
    "trends": r".*_trend",
    # Facts of the instance, one by one: an agent that looks at one alone is to be told from one that looks at all.
    "buffer_batches": r"buffer_batches",
    "own_rounds": r"own_rounds",
    "warm_up": r"warm_up",
    "student_share": r"student_share",
    "buffer": r"buffer_.*",
    "effective_sample_size": r"effective_sample_size",
    "candidate": r"candidate_.*",
    "probe": r"probe_.*",
    "other": r".*",
}
PROGRESS, EVERYTHING = "progress", "everything"
UNDISTURBED = "none"
#: Random observations that a sampler is asked about twice.
TRIED = 32
#: Permutations of each entry.
PERMUTATIONS = 10


def group_of(entry: str) -> str:
    """The group of an entry; those of earlier steps (`history`) belong to their entry's."""
    now = re.sub(r"_minus_\d+$", "", entry)
    return next(name for name, pattern in GROUPS.items() if re.fullmatch(pattern, now))


def groups_of(entries: Sequence[str]) -> dict[str, list[int]]:
    """Columns of the observation by group, and those of `everything`."""
    of = [group_of(entry) for entry in entries]
    groups = {name: [column for column, group in enumerate(of) if group == name] for name in GROUPS}
    return {name: columns for name, columns in groups.items() if columns} | {EVERYTHING: list(range(len(entries)))}


def scores_of(episode: PlayedEpisode) -> dict[str, float]:
    """What disturbed episodes are compared by: the return, and the accuracies where there are real data."""
    real = {"held_out_accuracy": episode.held_out_accuracy, "accuracy": episode.final.get("accuracy")}
    return {"return": episode.total} | {name: value for name, value in real.items() if value is not None}


class Replacement(NamedTuple):
    """Columns that a sampler sees from elsewhere while it acts: in episode i from `source[i]`, (steps, entries)."""

    columns: Sequence[int]
    source: Sequence[FloatArray]

    @classmethod
    def of(cls, episodes: Sequence[PlayedEpisode], columns: Sequence[int], across_steps: bool) -> Replacement:
        """Values of the next episode at the same step; of the last episode, those of the first.

        Args:
            episodes: the same ones, undisturbed.
            columns: of the observation.
            across_steps: take the same episode's values half an episode away instead, for what is alike in all
                episodes at the same step.
        """
        seen = [episode.observations for episode in episodes]
        if across_steps:
            return cls(columns, [np.roll(each, -(len(each) // 2), axis=0) for each in seen])
        return cls(columns, [*seen[1:], seen[0]])

    def apply(self, observations: FloatArray, first: int, step_index: int) -> FloatArray:
        """What is shown in a step in place of (n, entries) observations of the episodes from number `first` on.

        Where an episode outlasts its source, the source's last observation stays.
        """
        shown = observations.copy()
        for row, source in zip(shown, self.source[first:], strict=False):
            row[self.columns] = source[min(step_index, len(source) - 1), self.columns]
        return shown


def play(
    pool: SubEnvironments, sampler: Sampler, seeds: Sequence[int], replacement: Replacement | None = None
) -> Iterator[PlayedEpisode]:
    """Play a sampler deterministically, an episode a seed, as many side by side as the pool has environments.

    Equal seeds meet in equal batches, so that two calls differ by nothing but what the sampler does, also where
    environments are grouped. The instances of a set take turns.

    Args:
        pool: environments of the face that the sampler is used to.
        sampler: asked once a step for all environments.
        seeds: of the episodes.
        replacement: what it sees from elsewhere; one episode of its source for each seed.
    """
    first, state = 0, None

    def decide(observations: FloatArray, step_index: int) -> list[Any]:
        nonlocal state
        shown = observations if replacement is None else replacement.apply(observations, first, step_index)
        begins, state = np.full(len(shown), step_index == 0), state if step_index else None
        actions, state = sampler.predict(shown, state, begins, deterministic=True)
        return [sampler.plan_for(pool.first, a) if isinstance(sampler, PlanningSampler) else a for a in actions]

    beginnings = np.stack([seeds, shared_out(len(seeds), len(pool.first.instances))])
    for batch, instances in np.array_split(beginnings, math.ceil(len(seeds) / pool.count), axis=1):
        played = play_side_by_side(pool, batch.tolist(), decide, held_out=True, instances=instances.tolist())
        assert played is not None
        yield from played
        first += len(batch)


def answers(sampler: Sampler, env: SSDKDEnv, observations: FloatArray) -> Values:
    """What a sampler answers to (n, entries), each as the first of an episode: (n, parts), one-hot of choices."""
    actions, _ = sampler.predict(observations, None, np.ones(len(observations), dtype=bool), deterministic=True)
    discrete = isinstance(env.action_space, spaces.Discrete)
    parts: Values = np.eye(len(env.action_names))[actions] if discrete else actions.clip(-1.0, 1.0).astype(np.float64)
    return parts


def refuse_drawing(sampler: Sampler, env: SSDKDEnv) -> None:
    """Ask about random observations twice.

    Raises:
        InvalidInputError: when the answers differ.
    """
    env.observation_space.seed(0)
    seen = np.stack([env.observation_space.sample() for _ in range(TRIED)])
    if not np.array_equal(answers(sampler, env, seen), answers(sampler, env, seen)):
        raise InvalidInputError(
            "sampler: it answers the same observations in another way the second time; what it reads can only be "
            "measured of a deterministic one, such as a trained sampler"
        )


def entries_read(sampler: Sampler, env: SSDKDEnv, episodes: Sequence[PlayedEpisode]) -> dict[str, float]:
    """Entry → mean absolute change of the action's parts when its values change places between all steps.

    Parts lie in [−1, 1]; those of a choice are one-hot. A sampler with a memory is asked without it.
    """
    seen = np.concatenate([episode.observations for episode in episodes])

    def unchanged(asked: Dummy, shown: FloatArray, before: Values) -> float:
        return -float(np.abs(answers(sampler, env, shown) - before).mean())

    options = {"scoring": unchanged, "n_repeats": PERMUTATIONS, "random_state": 0}
    found = permutation_importance(Dummy(), seen, answers(sampler, env, seen), **options)
    return dict(zip(env.observation_names, found.importances_mean.tolist(), strict=True))


def play_all(
    pool: SubEnvironments, sampler: Sampler, seeds: Sequence[int], out: Path
) -> dict[str, list[PlayedEpisode]]:
    """Episodes of the sampler undisturbed, and of each group of entries that is shown from elsewhere."""
    groups = groups_of(pool.first.observation_names)
    episodes: dict[str, list[PlayedEpisode]] = {}
    with tqdm(total=(1 + len(groups)) * len(seeds), unit="episode") as bar:
        for name in (UNDISTURBED, *groups):
            replacement = None
            if name != UNDISTURBED:
                replacement = Replacement.of(episodes[UNDISTURBED], groups[name], across_steps=name == PROGRESS)
            episodes[name] = []
            for episode in play(pool, sampler, seeds, replacement):
                episodes[name].append(episode)
                scores = {"scores": scores_of(episode), "final": dict(episode.final)}
                append_line(out, {"replaced": name, "seed": episode.seed, **scores})
                bar.update()
    return episodes


def differences_of(episodes: Mapping[str, Sequence[PlayedEpisode]]) -> dict[str, dict[str, Interval]]:
    """Score → group → difference to the undisturbed episodes of the same seeds."""
    scores = {name: [scores_of(episode) for episode in played] for name, played in episodes.items()}
    calm = scores.pop(UNDISTURBED)
    return {
        score: {
            group: bootstrap_mean(one[score] - other[score] for one, other in zip(disturbed, calm, strict=True))
            for group, disturbed in scores.items()
        }
        for score in calm[0]
    }
