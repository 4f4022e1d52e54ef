"""Rewards: the gain of a score, so that the return telescopes to score(end) − score(start). Ours, not the paper's.

Relative ones begin at 0: their return is how far the student ends above what the method's own plan reaches on the same
task, so that returns of unlike instances can be compared. What is taken off depends on the task and on the progress
alone, and at the end on the task alone, also where a student diverges before its time: it is a potential, which leaves
the best policy as it is (Ng et al. 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ssdkd_env.envs.snapshot import Snapshot
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.registry import Registry
from ssdkd_env.tasks import Task

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


#: Deviations below this count as it.
SMALLEST_DEVIATION = 1e-3
RELATIVE, STANDARDIZED = "relative", "standardized"


@dataclass(frozen=True)
class Reference:
    """What the method's own plan reaches on a task, over seeds.

    Attributes:
        progress: (points,) from 0 to 1, ascending.
        scores: (points,) mean score there.
        deviation: standard deviation of the last score over the seeds.
    """

    progress: tuple[float, ...]
    scores: tuple[float, ...]
    deviation: float

    def at(self, progress: float) -> float:
        """Mean score at a progress, linear between the points."""
        return float(np.interp(progress, self.progress, self.scores))


@dataclass(frozen=True)
class Reward:
    """When a score's gain is paid.

    Attributes:
        score: of the student.
        terminal: the whole gain since the start is paid in the last step, and 0 before.
        oracle: it needs real evaluation data.
        against: `"relative"` takes off what the method's own plan reaches at the same progress, `"standardized"` also
            counts in its deviations over seeds; empty compares with nothing.
    """

    score: Score
    terminal: bool = False
    oracle: bool = False
    against: str = ""

    def __post_init__(self) -> None:
        check_choice("Reward(against=)", self.against, ("", RELATIVE, STANDARDIZED))
        if self.against and "<" in getattr(self.score, "__qualname__", "<"):
            raise InvalidInputError(
                f"Reward(score={self.score!r}): references are kept by the name of the score, and this one has none of "
                "its own; give a function of a module"
            )

    def compared(self, score: float, progress: float, reference: Reference | None) -> float:
        """The score, against the reference where the reward has one."""
        if reference is None:
            return score
        difference = score - reference.at(progress)
        return difference / max(reference.deviation, SMALLEST_DEVIATION) if self.against == STANDARDIZED else difference


_SCORES = {
    "probe_agreement": Reward(probe_agreement),
    "probe_discrepancy": Reward(probe_discrepancy),
    "candidate_agreement": Reward(candidate_agreement),
    "oracle_accuracy": Reward(oracle_accuracy, oracle=True),
}

_AGAINST = {
    f"{against}_{name}": replace(reward, against=against)
    for against in (RELATIVE, STANDARDIZED)
    for name, reward in _SCORES.items()
}
_GAINS = _SCORES | _AGAINST
_TERMINAL = {f"terminal_{name}": replace(reward, terminal=True) for name, reward in _GAINS.items()}
REWARDS: Registry[Reward] = Registry("reward", Reward, _GAINS | _TERMINAL)


def find_reward(name: str, task: Task) -> Reward:
    """The reward with a name, for a task.

    Raises:
        InvalidInputError: when there is none, or it needs real data that the task does not have.
    """
    reward = REWARDS.find(name)
    if reward.oracle and task.spec.evaluation is None:
        raise InvalidInputError(
            f"reward={name!r} needs real evaluation data, task {task.spec.name!r} has none; choose a data-free reward "
            "such as 'probe_agreement'"
        )
    return reward
