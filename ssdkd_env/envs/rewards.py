"""Rewards: the gain of a score, so that the return telescopes to score(end) − score(start). Ours, not the paper's."""

from __future__ import annotations

from collections.abc import Callable

from ssdkd_env.envs.snapshot import Snapshot

#: A score of the student in [0, 1].
Score = Callable[[Snapshot], float]

#: Score of a student that has diverged: what it had learnt is lost again.
DIVERGED_SCORE = 0.0


def probe_agreement(snapshot: Snapshot) -> float:
    """Share of the probe set on which student and teacher agree. Data-free."""
    return snapshot.probe.agreement


def probe_discrepancy(snapshot: Snapshot) -> float:
    """1 / (1 + KL(f_T ‖ f_S)) on the probe set. Data-free; finer than agreement near the end."""
    return 1.0 / (1.0 + snapshot.probe.discrepancy)


def oracle_accuracy(snapshot: Snapshot) -> float:
    """Accuracy on the real evaluation data. An oracle, for research only: it uses the data that are said to be gone."""
    assert snapshot.accuracy is not None  # refused at construction
    return snapshot.accuracy


REWARDS: dict[str, Score] = {
    "probe_agreement": probe_agreement,
    "probe_discrepancy": probe_discrepancy,
    "oracle_accuracy": oracle_accuracy,
}
#: Rewards that need real evaluation data.
ORACLES = frozenset({"oracle_accuracy"})
