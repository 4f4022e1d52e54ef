"""What the environment knows after a round, and its numbers for `info`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from ssdkd_env.distillation.report import RoundReport
from ssdkd_env.reading import fitted
from ssdkd_env.tasks.probe import ProbeScore


@dataclass(frozen=True)
class Snapshot:
    """What is known after a round.

    Attributes:
        report: the engine's.
        probe: the student's score on the probe set.
        accuracy: the student's on real evaluation data, to be reported (of the pixels, for dense prediction); None
            without such data. Never observed.
        mean_iou: likewise, for dense prediction; see `SegmentationScores`.
        class_iou: of each class; empty but for dense prediction, NaN where a class occurs nowhere.
    """

    report: RoundReport
    probe: ProbeScore
    accuracy: float | None
    mean_iou: float | None = None
    class_iou: tuple[float, ...] = ()

    @property
    def on_real_data(self) -> dict[str, Any]:
        """What is known of the student on real evaluation data, by the names of the attributes."""
        return {name: getattr(self, name) for name in ("accuracy", "mean_iou", "class_iou")}

    def numbers(self) -> dict[str, Any]:
        """The round's numbers (see `RoundReport`), flat; 0 in place of what a diverged student made NaN."""
        report, probe = self.report, self.probe
        numbers: dict[str, Any] = {
            "round": report.round,
            "diverged": report.diverged,
            "probe_agreement": probe.agreement,
            "probe_discrepancy": probe.discrepancy,
            "student_loss": report.student_loss,
            "learning_rate": report.learning_rate,
            "bn_loss": report.bn_loss,
            "one_hot_loss": report.one_hot_loss,
            "adversarial_loss": report.adversarial_loss,
            "candidate_agreement": report.candidate_agreement,
            "candidate_confidence": report.candidate_confidence,
            "candidate_discrepancy": report.candidate_discrepancy,
            "buffer_agreement": report.buffer_agreement,
            "buffer_class_imbalance": report.class_imbalance,
            "buffer_difficulty": report.difficulty_quantiles[1],
            "buffer_discrepancy": report.discrepancy_quantiles[1],
            "buffer_mean_age": report.mean_age,
            "effective_sample_size": report.effective_sample_size,
            "progress": report.progress,
            "work": report.work,
            "inversion_steps": report.inversion_steps,
            "student_steps": report.student_steps,
            "replaced": report.replaced,
            "synthesized": report.synthesized,
        }
        if self.accuracy is not None:
            numbers["accuracy"] = self.accuracy
        if self.mean_iou is not None:
            numbers["mean_iou"] = self.mean_iou
        return {name: value if math.isfinite(value) else 0.0 for name, value in numbers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {"report": asdict(self.report), "probe": asdict(self.probe), "real": self.on_real_data}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Snapshot:
        """The snapshot that `state_dict()` describes.

        Raises:
            ValueError: when something in it is of another kind.
        """
        real = fitted(state["real"], _OnRealData)
        return cls(fitted(state["report"], RoundReport), fitted(state["probe"], ProbeScore), **real)


class _OnRealData(TypedDict):
    accuracy: float | None
    mean_iou: float | None
    class_iou: tuple[float, ...]
