"""Action schemes whose plan scores images one by one; see `distillation.scoring`. Ours, not the paper's."""

from __future__ import annotations

from typing import Any

import torch

from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.scoring import FEATURES, BinScorer, ClassBinScorer, NeuralScorer
from ssdkd_env.envs.exponent_actions import FloatArray, RangedScheme, Ranges, sampling_ranges
from ssdkd_env.tasks import Budget

RARITY_BINS = 3
DIFFICULTY_BINS = 4
#: Units of the hidden layer of scheme `samples`.
HIDDEN_UNITS = 3
#: Largest logit of a bin: e⁴ is 55 times as often as the lowest.
LARGEST_LOGIT = 2.0


class _Bins(RangedScheme):
    """β, ρ and the exponent of δ, and a logit in [−2, 2] for each cell of a table.

    Args:
        budget: sets the range of ρ.
        scorer: what reads the table.
        row: what a row of the table is called.
        rows: how many there are.
    """

    def __init__(self, budget: Budget, scorer: type[BinScorer | ClassBinScorer], row: str, rows: int) -> None:
        self._scorer, self._shape = scorer, (rows, DIFFICULTY_BINS)
        self._cells = [f"{row}_{i}_difficulty_{j}" for i in range(rows) for j in range(DIFFICULTY_BINS)]
        logits = dict.fromkeys(self._cells, (-LARGEST_LOGIT, LARGEST_LOGIT))
        super().__init__({**sampling_ranges(budget), **logits})

    def to_plan(self, action: Any) -> SamplingPlan:
        """The plan that an action means; parts outside [−1, 1] are clipped.

        Raises:
            InvalidInputError: when the action has another shape or is not finite.
        """
        values = self.values(action)
        table = torch.tensor([values[cell] for cell in self._cells]).view(self._shape)
        return SamplingPlan(
            importance_exponent=values["importance_exponent"],
            replaced_share=values["replaced_share"],
            scorer=self._scorer(values["discrepancy_exponent"], table),
        )

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that means `plan`; exponents of diversity and difficulty are left out, for which bins stand."""
        known = {name: getattr(plan, name) for name in ("importance_exponent", "replaced_share")}
        scorer = plan.scorer
        if isinstance(scorer, self._scorer) and tuple(scorer.logits.shape) == self._shape:
            logits = dict(zip(self._cells, scorer.logits.flatten().tolist(), strict=True))
            return self.action({**known, "discrepancy_exponent": scorer.exponent, **logits})
        return self.action({**known, "discrepancy_exponent": plan.discrepancy_exponent})


class Bins(_Bins):
    """A logit for each of 3 bins of class rarity × 4 of difficulty, on top of the priority δ.

    The bins are cut at equal steps of the rank among buffer and candidates, so that the scheme does not depend on the
    number of classes. Row 0 is the most frequent classes, column 0 where the teacher is surest.

    | Num  | Part                                   | −1 | +1                           |
    |------|----------------------------------------|----|------------------------------|
    | 0    | discrepancy_exponent                   | −2 | 2                            |
    | 1    | importance_exponent, β                 | 0  | 1                            |
    | 2    | replaced_share, ρ                      | 0  | candidates / buffer_capacity |
    | 3–14 | rarity_i_difficulty_j: logit of a bin  | −2 | 2                            |

    Args:
        budget: sets the range of ρ.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, BinScorer, "rarity", RARITY_BINS)


class ClassBins(_Bins):
    """A logit for each class and each of 4 bins of difficulty, on top of the priority δ; else as `Bins`.

    It depends on the number of classes, so that an agent trained with it stays with tasks of as many. The observation
    repeats the first three parts alone.

    Args:
        budget: sets the range of ρ.
        classes: of the task.
    """

    def __init__(self, budget: Budget, classes: int) -> None:
        super().__init__(budget, ClassBinScorer, "class", classes)
        self.observed_names = self.names[:3]


class Samples(RangedScheme):
    """The weights of a small network that scores every image by its `FEATURES`, the same for all of them.

    | Num   | Part                                                     | −1 | +1                           |
    |-------|----------------------------------------------------------|----|------------------------------|
    | 0     | importance_exponent, β                                   | 0  | 1                            |
    | 1     | replaced_share, ρ                                        | 0  | candidates / buffer_capacity |
    | 2–8   | linear_<feature>: weight in the sum                      | −2 | 2                            |
    | 9–35  | hidden_h_<feature>, hidden_h_bias, hidden_h_output       | −2 | 2                            |

    The observation repeats the first nine parts alone.

    Args:
        budget: sets the range of ρ.
    """

    def __init__(self, budget: Budget) -> None:
        shared = sampling_ranges(budget)
        del shared["discrepancy_exponent"]
        linear = [f"linear_{name}" for name in FEATURES]
        units = [f"hidden_{unit}_{name}" for unit in range(HIDDEN_UNITS) for name in (*FEATURES, "bias", "output")]
        weights: Ranges = dict.fromkeys([*linear, *units], (-2.0, 2.0))
        super().__init__({**shared, **weights})
        self.observed_names = self.names[: len(shared) + len(linear)]

    def to_plan(self, action: Any) -> SamplingPlan:
        """The plan that an action means; parts outside [−1, 1] are clipped."""
        values = self.values(action)
        weights = torch.tensor(list(values.values()))[2:]
        units = weights[len(FEATURES) :].view(HIDDEN_UNITS, len(FEATURES) + 2)
        scorer = NeuralScorer(weights[: len(FEATURES)], units[:, :-2], units[:, -2], units[:, -1])
        return SamplingPlan(
            importance_exponent=values["importance_exponent"], replaced_share=values["replaced_share"], scorer=scorer
        )

    def from_plan(self, plan: SamplingPlan) -> FloatArray:
        """The action that means `plan`; a network of another size is left out."""
        known = {name: getattr(plan, name) for name in ("importance_exponent", "replaced_share")}
        scorer = plan.scorer
        if isinstance(scorer, NeuralScorer) and tuple(scorer.hidden.shape) == (HIDDEN_UNITS, len(FEATURES)):
            units = torch.cat([scorer.hidden, scorer.bias[:, None], scorer.output[:, None]], dim=1)
            weights = torch.cat([scorer.linear, units.flatten()]).tolist()
        else:
            weights = [plan.discrepancy_exponent, plan.diversity_exponent, plan.difficulty_exponent]
            weights += [0.0] * (len(self.names) - 2 - len(weights))
        return self.action({**known, **dict(zip(self.names[2:], weights, strict=True))})
