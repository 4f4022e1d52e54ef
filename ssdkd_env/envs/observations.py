"""Run statistics → a named float32 vector with finite bounds. Ours, not the paper's.

No entry depends on the number of classes or of images, and none sees real data, so that an agent trained on one
task runs unchanged on another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ssdkd_env.envs.snapshot import Snapshot

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Statistic:
    """An entry of the observation.

    Attributes:
        low, high: bounds of its value.
        mean, deviation: over rounds of digits episodes under random actions (`results/digits-observations`; where it
            was constant, 0.1); with them the `"scaled"` observation brings every entry to a like size without a file
            of statistics.
    """

    low: float
    high: float
    mean: float
    deviation: float


#: KL divergences d appear as d / (1 + d), which keeps them in [0, 1).
ENTRIES: dict[str, Statistic] = {
    "progress": Statistic(0.0, 1.0, 0.5, 0.31),
    "buffer_fill": Statistic(0.0, 1.0, 1.0, 0.1),
    "buffer_class_imbalance": Statistic(0.0, 1.0, 0.034, 0.016),
    "buffer_difficulty_q10": Statistic(0.0, 1.0, 0.039, 0.035),
    "buffer_difficulty_q50": Statistic(0.0, 1.0, 0.24, 0.076),
    "buffer_difficulty_q90": Statistic(0.0, 1.0, 0.54, 0.046),
    "buffer_discrepancy_q10": Statistic(0.0, 1.0, 0.16, 0.16),
    "buffer_discrepancy_q50": Statistic(0.0, 1.0, 0.46, 0.18),
    "buffer_discrepancy_q90": Statistic(0.0, 1.0, 0.69, 0.12),
    "buffer_agreement": Statistic(0.0, 1.0, 0.44, 0.16),
    "buffer_mean_age": Statistic(0.0, 1.0, 0.45, 0.14),
    "effective_sample_size": Statistic(0.0, 1.0, 0.32, 0.29),
    "candidate_confidence": Statistic(0.0, 1.0, 0.74, 0.041),
    "candidate_discrepancy": Statistic(0.0, 1.0, 0.61, 0.13),
    "candidate_agreement": Statistic(0.0, 1.0, 0.29, 0.15),
    "probe_discrepancy": Statistic(0.0, 1.0, 0.6, 0.13),
    "probe_agreement": Statistic(0.0, 1.0, 0.38, 0.15),
    "candidate_agreement_trend": Statistic(-1.0, 1.0, 0.018, 0.12),
    "probe_discrepancy_trend": Statistic(-1.0, 1.0, -0.0065, 0.11),
    "probe_agreement_trend": Statistic(-1.0, 1.0, 0.022, 0.066),
}
#: Scaled entries are clipped here, in standard deviations.
CLIP = 5.0
#: Forms of the observation.
OBSERVATIONS = {
    "statistics": "every entry as it is, in its bounds",
    "scaled": "(entry − mean) / deviation with the constants of `ENTRIES`, clipped to ±5",
}


def squash(divergence: float) -> float:
    """Map a divergence in [0, ∞) to [0, 1)."""
    return 1.0 if divergence == math.inf else divergence / (1.0 + divergence)


class Observer:
    """Builds observations and remembers the last ones.

    Args:
        form: a key of `OBSERVATIONS`.
        history: observations that are stacked, the newest first.
        action_names: numbers of the last action that are repeated.

    Attributes:
        names: of each entry; those of k steps ago end in `_minus_k`.
        space: the Box that holds every observation.
        frames: what was seen after the last steps, newest first, `history` of them; before the first step all alike.
    """

    def __init__(self, form: str, history: int, action_names: Sequence[str]) -> None:
        self._scaled = form == "scaled"
        self._history = history
        names = (*ENTRIES, *(f"last_action_{name}" for name in action_names))
        self.names = names + tuple(f"{name}_minus_{back}" for back in range(1, history) for name in names)
        bounds = [(-CLIP, CLIP) if self._scaled else (entry.low, entry.high) for entry in ENTRIES.values()]
        low, high = np.array(history * [*bounds, *[(-1.0, 1.0)] * len(action_names)], dtype=np.float32).T
        self.space: spaces.Space[FloatArray] = spaces.Box(low, high, dtype=np.float32)
        self.frames: list[FloatArray] = []

    def begin(self, snapshot: Snapshot, rounds: int, last_action: FloatArray) -> None:
        """Start an episode: what is seen now is all there was."""
        self.frames = [self._frame(snapshot, snapshot, rounds, last_action)] * self._history

    def see(self, snapshot: Snapshot, previous: Snapshot, rounds: int, last_action: FloatArray) -> None:
        """Take in a step.

        Args:
            snapshot: after the step's last round.
            previous: one step earlier.
            rounds: length of the budget.
            last_action: what is repeated of the agent's.
        """
        self.frames = [self._frame(snapshot, previous, rounds, last_action), *self.frames[: self._history - 1]]

    def observation(self) -> FloatArray:
        """What the agent is given, (len(names),) float32, inside `space`; a copy."""
        return np.concatenate(self.frames)

    def _frame(self, snapshot: Snapshot, previous: Snapshot, rounds: int, last_action: FloatArray) -> FloatArray:
        entries = list(ENTRIES.values())
        values = np.nan_to_num(np.array(_values(snapshot, previous, rounds)), posinf=1.0, neginf=-1.0)
        values = values.clip([entry.low for entry in entries], [entry.high for entry in entries])
        if self._scaled:
            means, deviations = ([getattr(entry, name) for entry in entries] for name in ("mean", "deviation"))
            values = ((values - means) / deviations).clip(-CLIP, CLIP)
        return np.concatenate([values, last_action]).astype(np.float32)


def _values(snapshot: Snapshot, previous: Snapshot, rounds: int) -> list[float]:
    """The entries of `ENTRIES`; what a diverged student leaves may not be finite."""
    report, probe = snapshot.report, snapshot.probe
    # A step may be of several rounds, and the constants that scale the trends are of one.
    lasted = max(report.round - previous.report.round, 1)
    return [
        report.round / rounds,
        report.buffer_fill,
        report.class_imbalance,
        *report.difficulty_quantiles,
        *map(squash, report.discrepancy_quantiles),
        report.buffer_agreement,
        report.mean_age / rounds,
        report.effective_sample_size,
        report.candidate_confidence,
        squash(report.candidate_discrepancy),
        report.candidate_agreement,
        squash(probe.discrepancy),
        probe.agreement,
        (report.candidate_agreement - previous.report.candidate_agreement) / lasted,
        (squash(probe.discrepancy) - squash(previous.probe.discrepancy)) / lasted,
        (probe.agreement - previous.probe.agreement) / lasted,
    ]
