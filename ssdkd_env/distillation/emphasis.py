"""What inversion asks for in one round: the strength of φ's terms and of the adversary. The paper holds them fixed."""

from __future__ import annotations

from dataclasses import dataclass

from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.plan import SamplingPlan


@dataclass(frozen=True)
class Emphasis:
    """Exponents of φ(x) = diversity(x)^a · (1 − p_T(x))^b, and a factor of λ_adv.

    The form with exponents is ours; a = 1, b = γ and factor 1 are SSD-KD's, reconstructed.

    Attributes:
        diversity_exponent: a ≥ 0; 0 switches the term off.
        difficulty_exponent: b ≥ 0; 0 switches the term off.
        adversarial_scale: factor of the method's adversarial weight, ≥ 0.
    """

    diversity_exponent: float
    difficulty_exponent: float
    adversarial_scale: float = 1.0

    @classmethod
    def of(cls, method: Method, plan: SamplingPlan | None = None) -> Emphasis:
        """The plan's, and the method's own where the plan says nothing."""
        diversity = 1.0 if method.modulate_diversity else 0.0
        difficulty = method.gamma if method.modulate_difficulty else 0.0
        if plan is None:
            return cls(diversity, difficulty)
        return cls(
            diversity if plan.phi_diversity_exponent is None else plan.phi_diversity_exponent,
            difficulty if plan.phi_difficulty_exponent is None else plan.phi_difficulty_exponent,
            plan.adversarial_scale,
        )
