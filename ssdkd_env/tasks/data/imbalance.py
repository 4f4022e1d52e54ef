"""Training data of unequal classes, cut out of balanced data: their teacher knows some classes better than others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.settings import check_seed
from ssdkd_env.tasks.task import LabelledImages

PROFILES = ("none", "long_tailed", "step")


@dataclass(frozen=True)
class ImbalanceSettings:
    """How many images of each class a teacher is trained on.

    With ρ = `ratio` between the largest and the smallest of C classes, and r = 0 … C − 1 the rank of a class, these
    shares of its images are kept:

    - `long_tailed`: ρ^(−r / (C − 1)) (Cui et al. 2019, section 5.1, whose imbalance factor is ρ);
    - `step`: all of the first ⌈`majority` · C⌉ classes, 1 / ρ of the others (Buda et al. 2018, section 3.1).

    Attributes:
        profile: none, long_tailed or step.
        ratio: ρ, at least 1.
        majority: share of the classes that `step` leaves whole, in (0, 1).
        seed: of the classes' ranks, and of the images that are kept.

    Raises:
        InvalidInputError: when a setting does not fit.
    """

    profile: str = "none"
    ratio: float = 20.0
    majority: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("imbalance.profile", self.profile, PROFILES)
        if not 1 <= self.ratio < math.inf:
            raise InvalidInputError(f"imbalance.ratio={self.ratio}: expected a number of at least 1, such as 20")
        if not 0 < self.majority < 1:
            raise InvalidInputError(f"imbalance.majority={self.majority}: expected a share of the classes in (0, 1)")
        check_seed("imbalance.seed", self.seed)

    def shares(self, num_classes: int) -> Tensor:
        """Share of the images that each class keeps, (num_classes,) float64, by its rank."""
        ranks = torch.arange(num_classes, dtype=torch.float64)
        if self.profile == "long_tailed":
            return self.ratio ** (-ranks / max(num_classes - 1, 1))
        majority = num_classes if self.profile == "none" else math.ceil(self.majority * num_classes)
        return torch.where(ranks < majority, 1.0, 1.0 / self.ratio)


def with_imbalance(
    data: LabelledImages, settings: ImbalanceSettings, num_classes: int, argument: str = "imbalance.profile"
) -> LabelledImages:
    """The part of the data that `settings` keep, in the order of the data; at least one image of a class that has any.

    Args:
        data: images (N, C, H, W) and labels (N,) int64.
        settings: what is kept.
        num_classes: of the task.
        argument: name of the user's argument, for the error message.

    Raises:
        InvalidInputError: when the labels are of pixels.
    """
    images, labels = data
    if settings.profile == "none":
        return data
    if labels.dim() != 1:
        raise InvalidInputError(f"{argument}={settings.profile!r}: labels are of pixels, not of images; leave it out")
    random = torch.Generator().manual_seed(settings.seed)
    classes = torch.randperm(num_classes, generator=random).tolist()
    kept = []
    for share, number in zip(settings.shares(num_classes).tolist(), classes, strict=True):
        own = (labels == number).nonzero().flatten()
        count = min(max(round(share * len(own)), 1), len(own))
        kept.append(own[torch.randperm(len(own), generator=random)[:count]])
    index = torch.cat(kept).sort().values
    return images[index], labels[index]
