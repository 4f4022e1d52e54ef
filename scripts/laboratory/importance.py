"""Which entries of the observation matter to a sampler: permuted in what it saw, and replaced while it acts.

After permutation importance (Breiman 2001, sec. 10), in two forms. `permuted_change` asks the sampler again about
recorded observations: what would it have answered? `play` with a `Replacement` plays the episodes again: what is the
information worth? An entry that the sampler reads may be worth nothing.
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
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean
from ssdkd_agents.playing import PlayedEpisode, play_side_by_side
from ssdkd_agents.runs import append_line
from ssdkd_agents.samplers import PlanningSampler, Sampler, State
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
#: Permutations of each entry: an entry's values come from so many other episodes, or steps, at the most.
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


class Recording(NamedTuple):
    """What was shown in several episodes.

    Attributes:
        observations: (episodes, steps, entries) float32; after an episode's end its last observation is repeated.
        lengths: (episodes,) steps of each.
    """

    observations: FloatArray
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, episodes: Sequence[PlayedEpisode]) -> Recording:
        """The observations of played episodes."""
        lengths = np.array([len(episode.observations) for episode in episodes])
        rows = [np.minimum(np.arange(lengths.max()), length - 1) for length in lengths]
        return cls(np.stack([episode.observations[r] for episode, r in zip(episodes, rows, strict=True)]), lengths)


class Replacement(NamedTuple):
    """Columns that a sampler sees from elsewhere while it acts: episode i from `source[i]`, shaped as a recording."""

    columns: Sequence[int]
    source: FloatArray

    @classmethod
    def of(cls, recording: Recording, columns: Sequence[int], across_steps: bool) -> Replacement:
        """Values of the next episode at the same step; of the last episode, those of the first.

        Args:
            recording: of the same episodes.
            columns: of the observation.
            across_steps: take the same episode's values half an episode away instead, for what is alike in all
                episodes at the same step.
        """
        seen, steps = recording.observations, np.arange(recording.observations.shape[1])
        if not across_steps:
            return cls(columns, np.roll(seen, -1, axis=0))
        away = [seen[i, (steps + length // 2) % length] for i, length in enumerate(recording.lengths)]
        return cls(columns, np.stack(away))

    def apply(self, observations: FloatArray, first: int, step_index: int) -> FloatArray:
        """What is shown in a step in place of (n, entries) observations of the episodes from number `first` on."""
        shown = observations.copy()
        last = min(step_index, self.source.shape[1] - 1)
        shown[:, self.columns] = self.source[first : first + len(shown), last][:, self.columns]
        return shown


def play(
    pool: SubEnvironments, sampler: Sampler, seeds: Sequence[int], replacement: Replacement | None = None
) -> Iterator[PlayedEpisode]:
    """Play a sampler deterministically, an episode a seed, as many side by side as the pool has environments.

    Equal seeds meet in equal batches, so that two calls differ by nothing but what the sampler does, also where
    environments are grouped.

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

    for batch in np.array_split(np.asarray(seeds), math.ceil(len(seeds) / pool.count)):
        played = play_side_by_side(pool, batch.tolist(), decide, held_out=True)
        assert played is not None
        yield from played
        first += len(batch)


class Change(NamedTuple):
    """How much a sampler's answers change when entries are permuted.

    Attributes:
        names: parts of the action, or its choices.
        parts: (episodes, parts) absolute change of each part, which lies in [−1, 1], as a mean over steps and
            permutations; of a choice, the share of steps in which it is newly made or no longer made.
        discrete: whether the action is one of the names.
    """

    names: tuple[str, ...]
    parts: Values
    discrete: bool

    @property
    def mean(self) -> Values:
        """(episodes,) mean over the parts; of a discrete action, the share of steps with another choice."""
        # Where the choice is another one, two of them change: one is newly made, one no longer.
        mean: Values = self.parts.sum(axis=1) / 2 if self.discrete else self.parts.mean(axis=1)
        return mean

    @property
    def most(self) -> int | None:
        """Number of the part that changes most; None where none does."""
        means = self.parts.mean(axis=0)
        return int(means.argmax()) if means.max() > 0 else None

    @property
    def said(self) -> str:
        """The part that changes most, and by how much."""
        return "none" if self.most is None else f"{self.names[self.most]}: {bootstrap_mean(self.parts[:, self.most])}"

    def line(self) -> dict[str, Any]:
        """As JSON: its interval, the part that changes most, and the mean of each."""
        parts = dict(zip(self.names, self.parts.mean(axis=0).tolist(), strict=True))
        most = None if self.most is None else self.names[self.most]
        return {"change": vars(bootstrap_mean(self.mean)), "most": most, "parts": parts, "episodes": self.mean.tolist()}


def permuted_change(
    sampler: Sampler, env: SSDKDEnv, recording: Recording, columns: Sequence[int], across_steps: bool
) -> Change:
    """How a sampler's answers to recorded observations change when some entries are permuted.

    Values change places between episodes at the same step, so that what is usual at that time stays usual; by
    cyclic shifts, which take each episode's values whole, so that trends in time stay trends.

    Args:
        sampler: answers deterministically.
        env: whose names and action space it is used to.
        recording: at least two episodes.
        columns: entries that are permuted together.
        across_steps: shift the steps of each episode instead.
    """
    seen, lengths = recording.observations, recording.lengths
    alive = np.arange(seen.shape[1]) < lengths[:, None]
    most = (int(lengths.max()) if across_steps else len(seen)) - 1
    shifts = np.unique(np.linspace(min(1, most), most, min(PERMUTATIONS, max(most, 1))).round().astype(int))
    shuffled = np.concatenate([_shifted(seen, lengths, columns, int(shift), across_steps) for shift in shifts])
    # Asked as many at once, because a network's rounding may depend on how many rows it is given.
    before = answers(sampler, env, np.tile(seen, (len(shifts), 1, 1)))
    moved = np.abs(_ask(sampler, env, shuffled) - before).reshape(len(shifts), *alive.shape, -1).mean(axis=0)
    parts = (moved * alive[..., None]).sum(axis=1) / lengths[:, None]
    return Change(env.action_names, parts, isinstance(env.action_space, spaces.Discrete))


def _shifted(
    seen: FloatArray, lengths: NDArray[np.int64], columns: Sequence[int], shift: int, across_steps: bool
) -> FloatArray:
    """A copy of (episodes, steps, entries) whose columns come from `shift` steps or episodes further on."""
    shuffled = seen.copy()
    if across_steps:
        for index, length in enumerate(lengths):
            moved = np.roll(seen[index, :length], -_within(shift, length), axis=0)
            shuffled[index, :length, columns] = moved[:, columns].T
        return shuffled
    for step_index in range(seen.shape[1]):
        here = np.flatnonzero(lengths > step_index)
        source = np.roll(here, -_within(shift, len(here)))
        shuffled[here[:, None], step_index, columns] = seen[source[:, None], step_index, columns]
    return shuffled


def _within(shift: int, count: int) -> int:
    """A shift of `count` places that leaves none where it is, if there is one."""
    return 1 + (shift - 1) % (count - 1) if count > 1 else 0


def answers(sampler: Sampler, env: SSDKDEnv, observations: FloatArray) -> Values:
    """What a sampler answers to (episodes, steps, entries): (episodes, steps, parts), one-hot of discrete choices.

    Raises:
        InvalidInputError: when it draws its answers, which then change whatever it sees.
    """
    given = _ask(sampler, env, observations)
    if not np.array_equal(given, _ask(sampler, env, observations)):
        raise InvalidInputError(
            "sampler: it answers the same observations in another way the second time; what it reads can only be "
            "measured of a deterministic one, such as a trained sampler"
        )
    return given


def _ask(sampler: Sampler, env: SSDKDEnv, observations: FloatArray) -> Values:
    state: State = None
    given = []
    for step_index in range(observations.shape[1]):
        begins = np.full(len(observations), step_index == 0)
        actions, state = sampler.predict(observations[:, step_index], state, begins, deterministic=True)
        given.append(actions)
    stacked = np.stack(given, axis=1)
    discrete = isinstance(env.action_space, spaces.Discrete)
    parts: Values = np.eye(len(env.action_names))[stacked] if discrete else stacked.clip(-1.0, 1.0).astype(np.float64)
    return parts


def refuse_drawing(sampler: Sampler, env: SSDKDEnv) -> None:
    """Ask about random observations twice.

    Raises:
        InvalidInputError: when the answers differ.
    """
    env.observation_space.seed(0)
    answers(sampler, env, np.stack([env.observation_space.sample() for _ in range(TRIED)])[None])


def changes_of(sampler: Sampler, env: SSDKDEnv, recording: Recording) -> dict[str, dict[str, Change]]:
    """`entry` and `group` → name → change when it is permuted; `progress` alone across steps."""
    names = env.observation_names
    columns = {"entry": {name: [column] for column, name in enumerate(names)}, "group": groups_of(names)}
    return {
        kind: {
            name: permuted_change(sampler, env, recording, of, all(group_of(names[i]) == PROGRESS for i in of))
            for name, of in wanted.items()
        }
        for kind, wanted in columns.items()
    }


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
                recording = Recording.of(episodes[UNDISTURBED])
                replacement = Replacement.of(recording, groups[name], across_steps=name == PROGRESS)
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
