"""What a round of a run reports, and how it is gathered on the device."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssdkd_env import ranges
from ssdkd_env.distillation import priority
from ssdkd_env.distillation.allowance import Allowance, Amounts
from ssdkd_env.distillation.buffer import Entries, ReplayBuffer

#: Quantiles that a report gives of difficulty and discrepancy in the buffer.
QUANTILES = (0.1, 0.5, 0.9)
#: Bins of the difficulty histogram over [0, 1].
DIFFICULTY_BINS = 10


@dataclass(frozen=True)
class RoundReport:
    """What happened in a round, in plain Python numbers.

    Attributes:
        round: rounds done, 0 after the warm-up.
        diverged: the student gave a value that is not finite; every other number may then be NaN.
        student_loss: mean weighted distillation loss of the round's minibatches, in nats · T²; 0 after the warm-up.
        learning_rate: the student's in this round; 0 after the warm-up.
        bn_loss, one_hot_loss, adversarial_loss: unweighted parts of the inversion's last step.
        candidate_discrepancy: mean KL(f_T ‖ f_S) of the round's fresh images (of its last batch, where there are
            several) before the student saw any, in nats.
        candidate_agreement: share of them on which the arg-maxes of teacher and student agree.
        candidate_confidence: the teacher's mean confidence on them.
        buffer_fill: share of the capacity in use.
        buffer_agreement: share of the buffer on which the arg-maxes agree, after the round.
        class_counts: images of each class in the buffer (fractions of images for dense prediction).
        class_imbalance: 1 − entropy of `class_counts` over its maximum; 0 is balanced, 1 a single class.
        difficulty_quantiles: `QUANTILES` of 1 − p_T in the buffer.
        difficulty_histogram: images in each of `DIFFICULTY_BINS` equal bins of 1 − p_T.
        discrepancy_quantiles: `QUANTILES` of KL(f_T ‖ f_S) in the buffer after the round, in nats.
        mean_age: mean age of the residents, in rounds.
        effective_sample_size: Kish's, of the round's P over the buffer, as a share of its size; 1 is uniform.
        replaced: residents replaced this round.
        synthesized: images synthesised since the start, warm-up included.
        progress: share of the budget's rounds, or of its work after the warm-up, that is spent.
        work: multiply-adds since the start, warm-up included; 0 where the budget counts rounds.
        inversion_steps, student_steps: of this round; 0 after the warm-up.
        seconds_synthesis, seconds_distillation: wall time of this round's two parts, in seconds.
    """

    round: int
    diverged: bool
    student_loss: float
    learning_rate: float
    bn_loss: float
    one_hot_loss: float
    adversarial_loss: float
    candidate_discrepancy: float
    candidate_agreement: float
    candidate_confidence: float
    buffer_fill: float
    buffer_agreement: float
    class_counts: tuple[float, ...]
    class_imbalance: float
    difficulty_quantiles: tuple[float, ...]
    difficulty_histogram: tuple[float, ...]
    discrepancy_quantiles: tuple[float, ...]
    mean_age: float
    effective_sample_size: float
    replaced: int
    synthesized: int
    progress: float
    work: int
    inversion_steps: int
    student_steps: int
    seconds_synthesis: float
    seconds_distillation: float


@dataclass(frozen=True)
class Synthesis:
    """What one batch of synthesis was like: scalars on the device, and its losses.

    Attributes:
        losses: (3,) unweighted parts of the inversion's last step: bn, one_hot, adversarial.
        discrepancy, agreement, confidence: means over the fresh images.
        class_counts: (classes,) images of each class.
        difficulty_histogram: (DIFFICULTY_BINS,) images in each bin of 1 − p_T.
    """

    losses: Tensor
    discrepancy: Tensor
    agreement: Tensor
    confidence: Tensor
    class_counts: Tensor
    difficulty_histogram: Tensor

    @classmethod
    def of(cls, candidates: Entries, agreement: Tensor, losses: Tensor) -> Synthesis:
        """Describe fresh images on which teacher and student agree with this mean."""
        return cls(
            losses=losses,
            discrepancy=candidates.discrepancy.mean(),
            agreement=agreement,
            confidence=candidates.confidence.mean(),
            class_counts=candidates.class_share.sum(dim=0).double(),
            difficulty_histogram=difficulty_histogram(candidates.confidence).double(),
        )

    @classmethod
    def none(cls, num_classes: int, device: torch.device) -> Synthesis:
        """No image was synthesised: zeros."""
        zero = torch.zeros((), device=device)
        return cls(
            losses=torch.zeros(3, device=device),
            discrepancy=zero,
            agreement=zero,
            confidence=zero,
            class_counts=torch.zeros(num_classes, dtype=torch.float64, device=device),
            difficulty_histogram=torch.zeros(DIFFICULTY_BINS, dtype=torch.float64, device=device),
        )


@dataclass(frozen=True)
class Distillation:
    """What the student's minibatches of a round were like: scalars on the device.

    Attributes:
        loss: mean weighted loss.
        buffer_agreement: share of the refreshed residents on which the arg-maxes agree, after the minibatches.
        replaced: residents replaced.
        probabilities: (N,) float64, the round's last P over the buffer.
    """

    loss: Tensor
    buffer_agreement: Tensor
    replaced: Tensor
    probabilities: Tensor


class RoundClock:
    """Wall time of the parts of a round, without waiting for the device in between.

    On CUDA the device itself notes when it gets to the end of a part; the notes are read after the round's one
    synchronisation.

    Args:
        device: that does the work.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = [("", self._now())]

    def _now(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, part: str) -> None:
        """End a part of the round."""
        self._marks.append((part, self._now()))

    def seconds(self, part: str) -> float:
        """Seconds of all laps of a part. On CUDA the device must have finished them."""
        laps = zip(self._marks[:-1], self._marks[1:], strict=True)
        return float(sum(self._between(start, end) for (_, start), (name, end) in laps if name == part))

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) / 1000.0 if self._on_cuda else end - start  # type: ignore[no-any-return]


def difficulty_histogram(confidence: Tensor) -> Tensor:
    """Images in each of `DIFFICULTY_BINS` equal bins of 1 − p_T, (DIFFICULTY_BINS,) int64."""
    bins = ((1.0 - confidence) * DIFFICULTY_BINS).long().clamp(0, DIFFICULTY_BINS - 1)
    # bincount would wait for the device
    return torch.zeros(DIFFICULTY_BINS, dtype=torch.int64, device=bins.device).index_add_(
        0, bins, torch.ones_like(bins)
    )


def quantiles(values: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Quantiles of (N,) values with linear interpolation, (levels,). Unlike `torch.quantile` for any N."""
    ordered = values.sort().values
    ranks = torch.tensor(levels, device=values.device, dtype=torch.float64) * (len(values) - 1)
    below = ranks.long()
    above = (below + 1).clamp_max(len(values) - 1)
    return ordered[below].lerp(ordered[above], (ranks - below).to(values.dtype))


@ranges.phase("observation")
def make_report(
    round_index: int,
    buffer: ReplayBuffer,
    synthesis: Synthesis,
    distillation: Distillation,
    synthesized: int,
    allowance: Allowance,
    clock: RoundClock,
    learning_rate: float,
    amounts: Amounts,
) -> RoundReport:
    """Gather every statistic on the device and bring them over in one copy.

    Args:
        round_index: rounds done.
        buffer: after the round.
        synthesis: the round's last batch.
        distillation: the round's minibatches.
        synthesized: images since the start.
        allowance: what is spent of it, with the round.
        clock: of the round's two parts.
        learning_rate: the student's.
        amounts: what the round spent.
    """
    residents = buffer.residents
    counts = residents.class_share.sum(dim=0)
    share = counts / counts.sum()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    groups: dict[str, Tensor] = {
        "losses": synthesis.losses,
        "student_loss": distillation.loss,
        "candidate_discrepancy": synthesis.discrepancy,
        "candidate_agreement": synthesis.agreement,
        "candidate_confidence": synthesis.confidence,
        "buffer_agreement": distillation.buffer_agreement,
        "class_counts": counts,
        "class_imbalance": 1.0 - entropy / math.log(max(len(counts), 2)),
        "difficulty_quantiles": quantiles(1.0 - residents.confidence, QUANTILES),
        "difficulty_histogram": difficulty_histogram(residents.confidence),
        "discrepancy_quantiles": quantiles(residents.discrepancy, QUANTILES),
        "mean_age": (round_index - residents.born).double().mean(),
        "effective_sample_size": priority.effective_sample_size(distillation.probabilities),
        "replaced": distillation.replaced,
    }
    flat = torch.cat([value.double().flatten() for value in groups.values()]).tolist()
    values: dict[str, Any] = {}
    for name, value in groups.items():
        taken, flat = flat[: value.numel()], flat[value.numel() :]
        values[name] = tuple(taken) if value.dim() else taken[0]
    bn_loss, one_hot_loss, adversarial_loss = values.pop("losses")
    finite = all(math.isfinite(values[name]) for name in ("student_loss", "candidate_discrepancy"))
    return RoundReport(
        round=round_index,
        diverged=not (finite and all(map(math.isfinite, values["discrepancy_quantiles"]))),
        learning_rate=learning_rate,
        bn_loss=bn_loss,
        one_hot_loss=one_hot_loss,
        adversarial_loss=adversarial_loss,
        buffer_fill=len(buffer) / buffer.capacity,
        replaced=int(values.pop("replaced")),
        synthesized=synthesized,
        progress=allowance.progress,
        work=allowance.work,
        inversion_steps=amounts.inversion_steps,
        student_steps=amounts.student_steps,
        seconds_synthesis=clock.seconds("synthesis"),
        seconds_distillation=clock.seconds("distillation"),
        **values,
    )
