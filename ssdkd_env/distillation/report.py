"""What a round of a run reports."""

from __future__ import annotations

from dataclasses import dataclass

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
        candidate_discrepancy: mean KL(f_T ‖ f_S) of the round's fresh images before the student saw any, in nats.
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
    seconds_synthesis: float
    seconds_distillation: float
