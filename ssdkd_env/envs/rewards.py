"""Rewards: the gain of a score, so that the return telescopes to score(end) − score(start). Ours, not the paper's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ssdkd_env.envs.snapshot import Snapshot
from ssdkd_env.registry import Registry

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


def candidate_agreement(snapshot: Snapshot) -> float:
    """Share of the round's fresh images on which the arg-maxes agreed before the student saw any. Data-free.

    They come from an adversary that looks for what the student does not know, so that the score is a lower one, is
    noisier than a probe set's, and is the student's of one round ago.
    """
    return snapshot.report.candidate_agreement


def oracle_accuracy(snapshot: Snapshot) -> float:
    """Accuracy on the real evaluation data. An oracle, for research only: it uses the data that are said to be gone."""
    assert snapshot.accuracy is not None  # refused at construction
    return snapshot.accuracy


@dataclass(frozen=True)
class Reward:
    """When a score's gain is paid.

    Attributes:
        score: of the student.
        terminal: the whole gain since the start is paid in the last step, and 0 before.
        oracle: it needs real evaluation data.
    """

    score: Score
    terminal: bool = False
    oracle: bool = False


_SCORES = {
    "probe_agreement": Reward(probe_agreement),
    "probe_discrepancy": Reward(probe_discrepancy),
    "candidate_agreement": Reward(candidate_agreement),
    "oracle_accuracy": Reward(oracle_accuracy, oracle=True),
}

_TERMINAL = {f"terminal_{name}": replace(reward, terminal=True) for name, reward in _SCORES.items()}
REWARDS: Registry[Reward] = Registry("reward", Reward, _SCORES | _TERMINAL)
