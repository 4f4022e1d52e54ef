"""The engine's only door for decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ssdkd_env.errors import InvalidInputError


@dataclass(frozen=True, slots=True, eq=False)
class SamplingPlan:
    """How one round samples: which images stay in the buffer and which the student studies.

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
            exponents when given: this is how per-sample policies enter.

    Raises:
        InvalidInputError: when a number is not finite or leaves its range.
    """

    discrepancy_exponent: float = 1.0
    diversity_exponent: float = 0.0
    difficulty_exponent: float = 0.0
    importance_exponent: float = 0.4
    replaced_share: float = 1.0
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("discrepancy_exponent", "diversity_exponent", "difficulty_exponent"):
            if not math.isfinite(getattr(self, name)):
                raise InvalidInputError(f"SamplingPlan.{name}={getattr(self, name)}: expected a finite number")
        for name in ("importance_exponent", "replaced_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidInputError(f"SamplingPlan.{name}={getattr(self, name)}: expected a number in [0, 1]")
