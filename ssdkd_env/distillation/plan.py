"""The engine's only door for decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.settings import is_finite_number, is_whole, plain

if TYPE_CHECKING:
    from ssdkd_env.distillation.scoring import Scorer

#: Who enters the buffer, and in whose place.
REPLACEMENTS = {
    "priority": "residents and candidates compete under P (Gumbel top-k)",
    "oldest": "candidates enter, at most the replaced share, and the oldest residents leave (first in, first out)",
    "random": "as many as would be replaced under P, but both who enters and who leaves is a matter of chance",
}


@dataclass(frozen=True, slots=True, eq=False)
class SamplingPlan:
    """How one round samples: which images are asked for, which stay in the buffer and which the student studies.

    ``P(x) ∝ (|δ(x)| + ε)^discrepancy_exponent · diversity(x)^diversity_exponent · difficulty(x)^difficulty_exponent``

    The form is ours. The defaults are the paper's sampler, reconstructed: P ∝ |δ| + ε, and every candidate
    competes for a place. Its β is not known to us; 0.4 is Schaul et al.'s. Uniform sampling has all exponents 0.

    Args:
        discrepancy_exponent: exponent of the priority δ.
        diversity_exponent: exponent of φ's diversity term (rarity of the image's class in the buffer).
        difficulty_exponent: exponent of φ's difficulty term (the teacher's lack of confidence).
        importance_exponent: β of the importance weights, in [0, 1]; 0 switches them off.
        replaced_share: ρ, the largest share of the buffer that may be replaced this round, in [0, 1].
        logits: (buffer size + candidates,) float, one log-weight per image, residents first. Replaces the
            exponents when given: this is how per-sample policies enter that know the images.
        scorer: gives log P of buffer and candidates from their features; replaces the exponents when given. It sees
            the candidates of this very round, which do not exist yet when the plan is made.
        phi_diversity_exponent: of φ's diversity term in inversion, ≥ 0; None is the method's own.
        phi_difficulty_exponent: of φ's difficulty term (γ), ≥ 0; None is the method's own.
        adversarial_scale: factor of the method's adversarial weight, ≥ 0.
        replacement: who enters the buffer, a key of `REPLACEMENTS`, for methods with a partial update.
        inversion_steps: of a batch of candidates this round, ≥ 1; None is the method's own.
        student_steps: student minibatches of this round, ≥ 1; None is the budget's.
        reweighted: the student's draws are uniform, and the loss of x has the weight N·P(x)·w(x) instead of w(x). Its
            expected gradient is that of draws from P (Schaul et al. 2016, sec. 3.4): the baseline of the draws.

    Raises:
        InvalidInputError: when a number is none, is not finite or leaves its range, or both logits and a scorer are
            given.
    """

    discrepancy_exponent: float = 1.0
    diversity_exponent: float = 0.0
    difficulty_exponent: float = 0.0
    importance_exponent: float = 0.4
    replaced_share: float = 1.0
    logits: Tensor | None = None
    scorer: Scorer | None = None
    phi_diversity_exponent: float | None = None
    phi_difficulty_exponent: float | None = None
    adversarial_scale: float = 1.0
    replacement: str = "priority"
    reweighted: bool = False
    inversion_steps: int | None = None
    student_steps: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name not in ("logits", "scorer"):
                object.__setattr__(self, each.name, _plain(getattr(self, each.name)))
        for name in ("discrepancy_exponent", "diversity_exponent", "difficulty_exponent"):
            self._check(name, "a finite number", is_finite_number)
        for name in ("importance_exponent", "replaced_share"):
            self._check(name, "a number in [0, 1]", lambda value: is_finite_number(value) and 0 <= value <= 1)
        self._check("adversarial_scale", "a finite number ≥ 0", _is_not_negative)
        for name in ("phi_diversity_exponent", "phi_difficulty_exponent"):
            self._check(name, "a finite number ≥ 0", lambda value: value is None or _is_not_negative(value))
        for name in ("inversion_steps", "student_steps"):
            self._check(
                name,
                "a whole number of at least 1",
                lambda value: value is None or (is_whole(value) and value >= 1),
            )
        self._check("reweighted", "True or False", lambda value: isinstance(value, bool))
        check_choice("SamplingPlan.replacement", self.replacement, REPLACEMENTS)
        if self.logits is not None and self.scorer is not None:
            raise InvalidInputError("SamplingPlan: logits and scorer exclude each other; give one of them")

    def _check(self, name: str, expected: str, fits: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if not fits(value):
            raise InvalidInputError(f"SamplingPlan.{name}={value!r}: expected {expected}")


def _plain(value: Any) -> Any:
    """Numbers as Python's: agents have them from NumPy and PyTorch."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else plain(value)


def _is_not_negative(value: Any) -> bool:
    return is_finite_number(value) and value >= 0
