"""An episode: one run, what is measured of it after every step, and what of its score has been paid."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, TypedDict

import msgspec

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.distillation.report import RoundReport
from ssdkd_env.distillation.undo import undone_by_errors
from ssdkd_env.envs.judging import Judge
from ssdkd_env.envs.rewards import DIVERGED_SCORE, Reference, Reward
from ssdkd_env.envs.snapshot import Snapshot
from ssdkd_env.reading import Count, fitted
from ssdkd_env.tasks import Task

#: What the rendered learning curve shows of a step.
CURVE = ("round", "progress", "probe_agreement", "accuracy", "mean_iou")


class Episode:
    """One run from the filled buffer to the end of its budget.

    Args:
        run: a fresh one.
        task: which it plays.
        judge: of the student.
        reward: whose gain is paid.
        reference: with which the reward compares; None where it compares with nothing.

    Attributes:
        snapshot: what is known now.
        previous: what was known one step earlier.
        score: of the student now.
        curve: `CURVE` after the warm-up and after each step.
    """

    snapshot: Snapshot
    previous: Snapshot
    score: float
    curve: list[dict[str, float]]

    def __init__(
        self, run: DistillationRun, task: Task, judge: Judge, reward: Reward, reference: Reference | None = None
    ) -> None:
        self.run, self.task = run, task
        self._judge, self._reward, self._reference = judge, reward, reference

    def begin(self) -> None:
        """Fill the buffer."""
        report = self.run.warm_up()
        self.snapshot = self.previous = self._judge.look(self.run, self.task, report, None)
        self.score = self._score_now()
        # Against a reference a student is worth what it ends with, not what its initial weights happened to say.
        self._paid = self.score if self._reference is None else 0.0
        self.curve = [self._curve_point()]

    def play(self, plan: SamplingPlan, rounds: int) -> float:
        """Play a step of so many rounds, or of those that are left; returns its reward.

        Raises:
            Exception: whatever stops it in the middle; the episode is then as it was before.
        """
        with undone_by_errors(self.run):
            report = self._rounds(plan, rounds)
            snapshot = self._judge.look(self.run, self.task, report, self.snapshot)
        self.previous, self.snapshot = self.snapshot, snapshot
        self.score = self._score_now()
        self.curve.append(self._curve_point())
        if self._reward.terminal and not self.over:
            return 0.0
        gain, self._paid = self.score - self._paid, self.score
        return gain

    @property
    def over(self) -> bool:
        """Whether the budget is used up or the student has diverged."""
        return self.run.done or self.snapshot.report.diverged

    @property
    def ending(self) -> str:
        """Why it is over, in words."""
        what = "the budget is used up" if self.run.done else "the student has diverged"
        return f"{what} after {self.run.round} rounds"

    @property
    def numbers(self) -> dict[str, Any]:
        """Numbers of the last round, flat (see `Snapshot.numbers`), and the score."""
        return self.snapshot.numbers() | {"score": self.score}

    def _rounds(self, plan: SamplingPlan, rounds: int) -> RoundReport:
        """The last round's report, with the seconds of all."""
        report = self.run.step(plan)
        for _ in range(rounds - 1):
            if self.run.done or report.diverged:
                break
            earlier, report = report, self.run.step(plan)
            report = replace(
                report,
                seconds_synthesis=earlier.seconds_synthesis + report.seconds_synthesis,
                seconds_distillation=earlier.seconds_distillation + report.seconds_distillation,
            )
        return report

    def _score_now(self) -> float:
        report = self.snapshot.report
        if report.diverged:
            # Against what the reference ends with, wherever this one does: to end early must not cost less.
            return self._reward.compared(DIVERGED_SCORE, 1.0, self._reference)
        return self._reward.compared(self._reward.score(self.snapshot), report.progress, self._reference)

    def _curve_point(self) -> dict[str, float]:
        numbers = self.numbers
        return {key: numbers[key] for key in CURVE if key in numbers}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "seed": self.run.seed,
            "run": self.run.state_dict(),
            "snapshots": [self.previous.state_dict(), self.snapshot.state_dict()],
            "score": self.score,
            "paid": self._paid,
            "curve": list(self.curve),
            "reference": None if self._reference is None else asdict(self._reference),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, with a run of the same task, method and seed.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: when something in it is of another kind or size.
        """
        fitted(state, _EpisodeState)
        self.run.load_state_dict(state["run"])
        self.previous, self.snapshot = map(Snapshot.from_state, state["snapshots"])
        self.score, self._paid, self.curve = state["score"], state["paid"], list(state["curve"])
        reference = state["reference"]
        self._reference = None if reference is None else Reference(**reference)


#: Rounds, or multiply-adds: of a long run of large networks there are more than an integer of a float can count.
_Units = Annotated[int, msgspec.Meta(ge=0)]


class _Allowance(TypedDict):
    spent: _Units
    before: _Units


class _RunState(TypedDict):
    """Of what `DistillationRun.state_dict` gives the plain values; tensors are checked where they are put."""

    round: Count
    warm: bool
    synthesized: Count
    refreshed: Count
    allowance: _Allowance


class _EpisodeState(TypedDict):
    run: _RunState
    snapshots: tuple[Any, Any]
    score: float
    paid: float
    curve: list[dict[str, float]]
    reference: Reference | None
