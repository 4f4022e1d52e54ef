"""What a per-sample policy may know of an image, and the scorers that turn it into log P. Ours, not the paper's.

A scorer treats every image alike (it is permutation-equivariant), and but for `ClassBinScorer` none depends on the
number of images or classes, so that one learnt on a small task runs unchanged on a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssdkd_env.distillation import priority
from ssdkd_env.distillation.buffer import Entries

#: Columns of `SampleFeatures.matrix`.
FEATURES = (
    "log_priority",
    "log_diversity",
    "log_difficulty",
    "discrepancy_rank",
    "difficulty_rank",
    "rarity_rank",
    "age_rank",
)


@dataclass(frozen=True, eq=False)
class SampleFeatures:
    """The images that compete in a round, residents first, then candidates.

    Attributes:
        matrix: (N, len(FEATURES)) float32, finite. The first three are the logarithms in the paper's form of P; ranks
            among the N images run from −1 (lowest) to 1 (highest), and equal values have equal ranks.
        class_share: (N, classes) float32, the teacher's classes.
    """

    matrix: Tensor
    class_share: Tensor

    def __len__(self) -> int:
        return len(self.matrix)

    def column(self, name: str) -> Tensor:
        """One of `FEATURES`, (N,)."""
        return self.matrix[:, FEATURES.index(name)]


#: Gives log P, unnormalised, (N,) float.
Scorer = Callable[[SampleFeatures], Tensor]


def sample_features(competing: Sequence[Entries], buffer_share: Tensor) -> SampleFeatures:
    """The features of images.

    Args:
        competing: residents, then candidates.
        buffer_share: (classes,) mean class share of the buffer.
    """
    epsilon = priority.PRIORITY_EPSILON

    def all_of(name: str) -> Tensor:
        return torch.cat([getattr(entries, name) for entries in competing])

    share, discrepancy = all_of("class_share"), all_of("discrepancy")
    delta = priority.priority(all_of("importance_weight"), discrepancy)
    diversity = priority.diversity(share, buffer_share)
    difficulty = priority.difficulty(all_of("confidence"), gamma=1.0)
    columns = [
        (delta.abs() + epsilon).log(),
        (diversity + epsilon).log(),
        (difficulty + epsilon).log(),
        ranks(discrepancy),
        ranks(difficulty),
        ranks(diversity.round(decimals=5)),  # equal classes are equal, however a sum over their shares was rounded
        ranks(-all_of("born")),
    ]
    # A diverged student makes NaN; it must not spread to what is left of the run.
    return SampleFeatures(torch.stack(columns, dim=1).nan_to_num(0.0), share)


def ranks(values: Tensor) -> Tensor:
    """Ranks of (N,) values from −1 (lowest) to 1 (highest), (N,) float32; equal values share a mean rank.

    NaN counts as highest: in the search for a place it would displace the others.
    """
    if len(values) == 1:
        return torch.zeros(1, device=values.device)
    values = values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    ordered = values.sort().values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above - 1).float() / (len(values) - 1) - 1.0


@dataclass(frozen=True, eq=False)
class BinScorer:
    """log P = a·log(|δ|+ε) + the logit of the image's bin.

    Args:
        exponent: a, of the priority δ.
        logits: (rarity bins, difficulty bins) float: rows from frequent to rare classes, columns from easy to hard for
            the teacher. Each direction is cut at equal steps of the rank.
    """

    exponent: float
    logits: Tensor

    def __call__(self, features: SampleFeatures) -> Tensor:
        """Log P of each image, (N,)."""
        rows = cut(features.column("rarity_rank"), self.logits.shape[0])
        columns = cut(features.column("difficulty_rank"), self.logits.shape[1])
        return self.exponent * features.column("log_priority") + self.logits.to(rows.device)[rows, columns]


@dataclass(frozen=True, eq=False)
class ClassBinScorer:
    """log P = a·log(|δ|+ε) + the logit of the image's class and difficulty bin.

    Args:
        exponent: a, of the priority δ.
        logits: (classes, difficulty bins) float. An image of several classes (dense prediction) takes their mean.
    """

    exponent: float
    logits: Tensor

    def __call__(self, features: SampleFeatures) -> Tensor:
        """Log P of each image, (N,)."""
        columns = cut(features.column("difficulty_rank"), self.logits.shape[1])
        by_bin = features.class_share @ self.logits.to(features.class_share)
        return self.exponent * features.column("log_priority") + by_bin.gather(1, columns[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class NeuralScorer:
    """log P = linear · features + Σ_h output_h · tanh(hidden_h · features + bias_h), the same for every image.

    Args:
        linear: (features,) float. (1, 0, …) alone is the paper's sampler.
        hidden: (units, features) float.
        bias: (units,) float.
        output: (units,) float.
    """

    linear: Tensor
    hidden: Tensor
    bias: Tensor
    output: Tensor

    def __call__(self, features: SampleFeatures) -> Tensor:
        """Log P of each image, (N,)."""
        matrix = features.matrix
        units = (matrix @ self.hidden.to(matrix).T + self.bias.to(matrix)).tanh()
        return matrix @ self.linear.to(matrix) + units @ self.output.to(matrix)


def cut(rank: Tensor, bins: int) -> Tensor:
    """Bin of each rank in [−1, 1], (N,) int64 from 0 to bins − 1."""
    return ((rank + 1.0) / 2.0 * bins).long().clamp(0, bins - 1)
