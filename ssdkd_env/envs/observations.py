"""Run statistics → a named float32 vector with finite bounds. Ours, not the paper's.

No entry depends on the number of classes or of images, and none sees real data, so that an agent trained on one
task runs unchanged on another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ssdkd_env.envs.snapshot import Snapshot

#: Entry → (lowest, highest). KL divergences d appear as d / (1 + d), which keeps them in [0, 1).
STATISTICS: dict[str, tuple[float, float]] = {
    "progress": (0.0, 1.0),
    "buffer_fill": (0.0, 1.0),
    "buffer_class_imbalance": (0.0, 1.0),
    "buffer_difficulty_q10": (0.0, 1.0),
    "buffer_difficulty_q50": (0.0, 1.0),
    "buffer_difficulty_q90": (0.0, 1.0),
    "buffer_discrepancy_q10": (0.0, 1.0),
    "buffer_discrepancy_q50": (0.0, 1.0),
    "buffer_discrepancy_q90": (0.0, 1.0),
    "buffer_agreement": (0.0, 1.0),
    "buffer_mean_age": (0.0, 1.0),
    "effective_sample_size": (0.0, 1.0),
    "candidate_confidence": (0.0, 1.0),
    "candidate_discrepancy": (0.0, 1.0),
    "candidate_agreement": (0.0, 1.0),
    "probe_discrepancy": (0.0, 1.0),
    "probe_agreement": (0.0, 1.0),
    "candidate_agreement_trend": (-1.0, 1.0),
    "probe_discrepancy_trend": (-1.0, 1.0),
    "probe_agreement_trend": (-1.0, 1.0),
}


def squash(divergence: float) -> float:
    """Map a divergence in [0, ∞) to [0, 1)."""
    return 1.0 if divergence == math.inf else divergence / (1.0 + divergence)


def observation_names(action_names: Sequence[str]) -> tuple[str, ...]:
    """Name of each entry of the observation."""
    return (*STATISTICS, *(f"last_action_{name}" for name in action_names))


def observation_space(action_names: Sequence[str]) -> spaces.Space[NDArray[np.float32]]:
    """The Box that holds every observation."""
    bounds = [*STATISTICS.values(), *[(-1.0, 1.0)] * len(action_names)]
    low, high = np.array(bounds, dtype=np.float32).T
    return spaces.Box(low, high, dtype=np.float32)


def observe(
    snapshot: Snapshot, previous: Snapshot, rounds: int, last_action: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Build the observation.

    Args:
        snapshot: after the last round.
        previous: one round earlier (the same snapshot after a reset: all trends are 0).
        rounds: length of the budget.
        last_action: the agent's; zeros after a reset.

    Returns:
        (len(STATISTICS) + len(last_action),) float32, inside `observation_space`; what is not finite becomes 0.
    """
    report, probe = snapshot.report, snapshot.probe
    values = [
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
        report.candidate_agreement - previous.report.candidate_agreement,
        squash(probe.discrepancy) - squash(previous.probe.discrepancy),
        probe.agreement - previous.probe.agreement,
    ]
    bounds = np.array(list(STATISTICS.values()))
    clipped = np.clip(np.nan_to_num(np.array(values), posinf=1.0, neginf=-1.0), bounds[:, 0], bounds[:, 1])
    return np.concatenate([clipped, np.clip(last_action, -1.0, 1.0)]).astype(np.float32)
