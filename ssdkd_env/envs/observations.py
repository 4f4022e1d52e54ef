"""Run statistics → a named float32 vector with finite bounds. Ours, not the paper's.

No entry depends on the number of classes or of images, and none sees real data, so that an agent trained on one
task runs unchanged on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ssdkd_env import ranges
from ssdkd_env.envs.facts import Facts
from ssdkd_env.envs.snapshot import Snapshot
from ssdkd_env.registry import Registry

FloatArray = NDArray[np.float32]


def squash(divergence: float) -> float:
    """Map a divergence in [0, ∞) to [0, 1)."""
    return 1.0 if divergence == math.inf else divergence / (1.0 + divergence)


@dataclass(frozen=True)
class Moment:
    """What an observation is made from.

    Attributes:
        now: after the step's last round.
        before: one step earlier; `now` after a reset.
        facts: of the task.
    """

    now: Snapshot
    before: Snapshot
    facts: Facts

    def trend(self, value: Callable[[Snapshot], float]) -> float:
        """Change of a value since the step before, per round: a step may be of several."""
        lasted = max(self.now.report.round - self.before.report.round, 1)
        return (value(self.now) - value(self.before)) / lasted


@dataclass(frozen=True)
class Entry:
    """An entry of the observation.

    Attributes:
        low, high: bounds of its value.
        mean, deviation: with which a scaled observation brings it to a like size without a file of statistics. Ours are
            over rounds of digits episodes under random actions (`results/digits-observations`; where it was constant,
            0.1).
        value: gives it. What a diverged student leaves may not be finite: it is clipped into the bounds.
    """

    low: float
    high: float
    mean: float
    deviation: float
    value: Callable[[Moment], float]


def _candidate_agreement(snapshot: Snapshot) -> float:
    return snapshot.report.candidate_agreement


def _probe_discrepancy(snapshot: Snapshot) -> float:
    return squash(snapshot.probe.discrepancy)


def _probe_agreement(snapshot: Snapshot) -> float:
    return snapshot.probe.agreement


#: KL divergences d appear as d / (1 + d), which keeps them in [0, 1).
ENTRIES: dict[str, Entry] = {
    "progress": Entry(0.0, 1.0, 0.5, 0.31, lambda at: at.now.report.progress),
    "buffer_fill": Entry(0.0, 1.0, 1.0, 0.1, lambda at: at.now.report.buffer_fill),
    "buffer_class_imbalance": Entry(0.0, 1.0, 0.034, 0.016, lambda at: at.now.report.class_imbalance),
    "buffer_difficulty_q10": Entry(0.0, 1.0, 0.039, 0.035, lambda at: at.now.report.difficulty_quantiles[0]),
    "buffer_difficulty_q50": Entry(0.0, 1.0, 0.24, 0.076, lambda at: at.now.report.difficulty_quantiles[1]),
    "buffer_difficulty_q90": Entry(0.0, 1.0, 0.54, 0.046, lambda at: at.now.report.difficulty_quantiles[2]),
    "buffer_discrepancy_q10": Entry(0.0, 1.0, 0.16, 0.16, lambda at: squash(at.now.report.discrepancy_quantiles[0])),
    "buffer_discrepancy_q50": Entry(0.0, 1.0, 0.46, 0.18, lambda at: squash(at.now.report.discrepancy_quantiles[1])),
    "buffer_discrepancy_q90": Entry(0.0, 1.0, 0.69, 0.12, lambda at: squash(at.now.report.discrepancy_quantiles[2])),
    "buffer_agreement": Entry(0.0, 1.0, 0.44, 0.16, lambda at: at.now.report.buffer_agreement),
    "buffer_mean_age": Entry(0.0, 1.0, 0.45, 0.14, lambda at: at.now.report.mean_age / at.facts.rounds),
    "effective_sample_size": Entry(0.0, 1.0, 0.32, 0.29, lambda at: at.now.report.effective_sample_size),
    "candidate_confidence": Entry(0.0, 1.0, 0.74, 0.041, lambda at: at.now.report.candidate_confidence),
    "candidate_discrepancy": Entry(0.0, 1.0, 0.61, 0.13, lambda at: squash(at.now.report.candidate_discrepancy)),
    "candidate_agreement": Entry(0.0, 1.0, 0.29, 0.15, lambda at: _candidate_agreement(at.now)),
    "probe_discrepancy": Entry(0.0, 1.0, 0.6, 0.13, lambda at: _probe_discrepancy(at.now)),
    "probe_agreement": Entry(0.0, 1.0, 0.38, 0.15, lambda at: _probe_agreement(at.now)),
    "candidate_agreement_trend": Entry(-1.0, 1.0, 0.018, 0.12, lambda at: at.trend(_candidate_agreement)),
    "probe_discrepancy_trend": Entry(-1.0, 1.0, -0.0065, 0.11, lambda at: at.trend(_probe_discrepancy)),
    "probe_agreement_trend": Entry(-1.0, 1.0, 0.022, 0.066, lambda at: at.trend(_probe_agreement)),
}


def _unlearnt(snapshot: Snapshot) -> float:
    """What the student does not know of the middle image of the buffer."""
    return squash(snapshot.report.discrepancy_quantiles[1])


#: What the last step cost and what its halves brought, for agents that divide the work. Their means and deviations are
#: those of digits episodes under random actions of the scheme `work` (`results/digits-observations-work`).
WORK_ENTRIES: dict[str, Entry] = {
    # Share of the budget that it took.
    "step_work": Entry(0.0, 1.0, 0.095, 0.084, lambda at: at.now.report.progress - at.before.report.progress),
    # How much less the student knew of the fresh images than of the buffer.
    "synthesis_gain": Entry(
        -1.0, 1.0, 0.14, 0.13, lambda at: squash(at.now.report.candidate_discrepancy) - _unlearnt(at.before)
    ),
    # How much of the buffer it has learnt, fresh images included.
    "distillation_gain": Entry(-1.0, 1.0, 0.031, 0.165, lambda at: _unlearnt(at.before) - _unlearnt(at.now)),
}
#: What the instance is, for agents that are to play unlike ones. Means and deviations are those over the instances of
#: `digits-work-train`.
INSTANCE_ENTRIES: dict[str, Entry] = {
    "buffer_batches": Entry(-10.0, 20.0, 1.4, 1.8, lambda at: at.facts.buffer_batches),
    "own_rounds": Entry(-10.0, 20.0, 2.7, 1.0, lambda at: at.facts.own_rounds),
    "warm_up": Entry(-10.0, 20.0, 0.9, 1.8, lambda at: at.facts.warm_up),
    "student_share": Entry(0.0, 1.0, 0.43, 0.06, lambda at: at.facts.student_share),
}
#: What is known before the first step, and how far the budget is spent: plans that suit the instance need no more.
FACTS = {"progress": ENTRIES["progress"]} | INSTANCE_ENTRIES
#: Scaled entries are clipped here, in standard deviations.
CLIP = 5.0


@dataclass(frozen=True)
class Observation:
    """What an agent sees, beside its last action.

    Attributes:
        entries: by name.
        scaled: show (value − mean) / deviation, clipped to ±`CLIP`; otherwise each as it is, in its bounds.
    """

    entries: Mapping[str, Entry]
    scaled: bool


OBSERVATIONS: Registry[Observation] = Registry(
    "observation",
    Observation,
    {
        "unscaled": Observation(ENTRIES, False),
        "scaled": Observation(ENTRIES, True),
        "work": Observation(ENTRIES | WORK_ENTRIES, True),
        "work_unscaled": Observation(ENTRIES | WORK_ENTRIES, False),
        "instance": Observation(ENTRIES | WORK_ENTRIES | INSTANCE_ENTRIES, True),
        "facts": Observation(FACTS, True),
        "instance_unscaled": Observation(ENTRIES | WORK_ENTRIES | INSTANCE_ENTRIES, False),
    },
)


class Observer:
    """Builds observations and remembers the last ones.

    Args:
        observation: what is seen.
        history: observations that are stacked, the newest first.
        action_names: numbers of the last action that are repeated.

    Attributes:
        names: of each entry; those of k steps ago end in `_minus_k`.
        space: the Box that holds every observation.
        frames: what was seen after the last steps, newest first, `history` of them; before the first step all alike.
    """

    def __init__(self, observation: Observation, history: int, action_names: Sequence[str]) -> None:
        self._entries, self._scaled = list(observation.entries.values()), observation.scaled
        self._history = history
        names = (*observation.entries, *(f"last_action_{name}" for name in action_names))
        self.names = names + tuple(f"{name}_minus_{back}" for back in range(1, history) for name in names)
        bounds = [(-CLIP, CLIP) if self._scaled else (entry.low, entry.high) for entry in self._entries]
        low, high = np.array(history * [*bounds, *[(-1.0, 1.0)] * len(action_names)], dtype=np.float32).T
        self.space: spaces.Space[FloatArray] = spaces.Box(low, high, dtype=np.float32)
        self.frames: list[FloatArray] = []

    def begin(self, snapshot: Snapshot, facts: Facts, last_action: FloatArray) -> None:
        """Start an episode: what is seen now is all there was."""
        self.frames = [self._frame(snapshot, snapshot, facts, last_action)] * self._history

    @ranges.phase("observation")
    def see(self, snapshot: Snapshot, previous: Snapshot, facts: Facts, last_action: FloatArray) -> None:
        """Take in a step.

        Args:
            snapshot: after the step's last round.
            previous: one step earlier.
            facts: of the task.
            last_action: what is repeated of the agent's.
        """
        self.frames = [self._frame(snapshot, previous, facts, last_action), *self.frames[: self._history - 1]]

    @ranges.phase("observation")
    def observation(self) -> FloatArray:
        """What the agent is given, (len(names),) float32, inside `space`; a copy."""
        return np.concatenate(self.frames)

    def _frame(self, snapshot: Snapshot, previous: Snapshot, facts: Facts, last_action: FloatArray) -> FloatArray:
        entries, moment = self._entries, Moment(snapshot, previous, facts)
        values = np.nan_to_num(np.array([entry.value(moment) for entry in entries]), posinf=1.0, neginf=-1.0)
        values = values.clip([entry.low for entry in entries], [entry.high for entry in entries])
        if self._scaled:
            means, deviations = ([getattr(entry, name) for entry in entries] for name in ("mean", "deviation"))
            values = ((values - means) / deviations).clip(-CLIP, CLIP)
        return np.concatenate([values, last_action]).astype(np.float32)
