"""What inversion minimises: the weighted sum of a method's losses."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.augmentation import Normalize, random_crop_flip
from ssdkd_env.distillation.batch_norm import BatchNormStatistics
from ssdkd_env.distillation.contrastive import ContrastiveLoss
from ssdkd_env.distillation.emphasis import Emphasis
from ssdkd_env.distillation.execution import EAGER, Execution, Forward
from ssdkd_env.distillation.losses import (
    activation_loss,
    adversarial_loss,
    class_balance,
    one_hot_loss,
    squared_norm,
    total_variation,
)
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.priority import class_share, confidence, modulation, target_probability
from ssdkd_env.networks.channels_last import keep_gradient_channels_last
from ssdkd_env.networks.head import last_layer


class Objective:
    """The inversion loss of a batch.

    ``L_inv(x) = λ_bn·L_BN(x) + φ(x)·λ_oh·L_OH(x) + λ_adv·L_adv(x)``  (SSD-KD, reconstructed),

    and for other methods the class balance, the size of the activations, the contrastive loss and the image priors,
    each with its weight. What has weight 0 is not computed, but for the one-hot loss, which is always reported.

    Args:
        method: the weights.
        teacher: frozen, in evaluation mode. Without BatchNorm layers a method that matches their statistics gives a
            warning and takes the image priors (total variation, squared norm) in their place.
        normalize: from image range to network input.
        padding, flip: augmentation.
        random: source of randomness, on the images' device; one for each run, where several are served at once.
        execution: how the teacher is called.
    """

    def __init__(
        self,
        method: Method,
        teacher: nn.Module,
        normalize: Normalize,
        padding: int,
        flip: bool,
        *random: torch.Generator,
        execution: Execution = EAGER,
    ) -> None:
        self.method = method
        self.teacher = execution.of(teacher, hooked=True)
        self.runs = len(random)
        self._normalize = normalize
        self._padding, self._flip = (padding, flip) if method.augment else (0, False)
        self._random = random
        self.statistics = BatchNormStatistics(
            teacher, method.statistics_momentum, instances=method.contrastive_weight > 0, runs=self.runs
        )
        self._matches = method.bn_weight > 0 and bool(self.statistics.layers)
        if method.bn_weight > 0 and not self._matches:
            warnings.warn(
                "The teacher has no BatchNorm layer with running statistics, so inversion falls back to the image "
                "priors (total variation, squared norm) instead of L_BN; expect a weaker student.",
                stacklevel=3,
            )
        compares = method.contrastive_weight > 0 and bool(self.statistics.layers)
        if method.contrastive_weight > 0 and not compares:
            warnings.warn(
                "The contrastive loss compares inputs of BatchNorm layers; the teacher has none, so it is left out.",
                stacklevel=3,
            )
        self._priors = method.image_priors or (
            (method.bn_weight > 0 and not self._matches) or (method.contrastive_weight > 0 and not compares)
        )
        head = last_layer(teacher) if method.activation_weight else None
        self._head = head and head[1]
        self._contrastive: ContrastiveLoss | None = None
        if compares:
            features = sum(layer.num_features for layer in self.statistics.layers)
            self._contrastive = ContrastiveLoss(features, random[0], random[0].device)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained along with the images: the contrastive head, if there is one."""
        return [] if self._contrastive is None else list(self._contrastive.parameters())

    @ranges.part("loss")
    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        student: Forward | None,
        buffer_share: Tensor,
        emphases: Sequence[Emphasis] = (),
    ) -> tuple[Tensor, Tensor]:
        """L_inv of a batch, or of one batch for each run, one after the other in the first dimension.

        Args:
            images: (runs · N, C, H, W) float in [0, 1].
            targets: (runs · N,) int64, the classes drawn for them.
            student: adversary, in evaluation mode; None switches the adversarial loss off.
            buffer_share: (runs, classes) class shares of the buffers, for φ.
            emphases: of each run; none is the method's own.

        Returns:
            The losses, (runs,), and their unweighted parts (bn or priors, one_hot, adversarial), (runs, 3) detached.
        """
        method = self.method
        emphases = emphases or [Emphasis.of(method)] * self.runs
        inputs = self._normalize(random_crop_flip(images, self._padding, self._flip, *self._random))
        captures = self._matches or self._contrastive is not None
        with self.statistics.capture(captures), _captured_input(self._head) as features, ranges.part("teacher"):
            logits = keep_gradient_channels_last(self.teacher(inputs))
        if not method.drawn_targets or logits.dim() == 4:
            targets = logits.argmax(dim=1)  # dense prediction has no drawn target: sharpen what the teacher sees
        zero = torch.zeros(self.runs, device=images.device)
        prior = self.statistics.loss() if self._matches else zero
        loss = method.bn_weight * prior
        if self._priors:
            smoothness, size = self._means(total_variation(images)), self._means(squared_norm(images))
            priors = method.tv_weight * smoothness + method.l2_weight * size
            loss = loss + priors
            prior = prior if self._matches else priors
        one_hot = one_hot_loss(logits, targets)
        if method.one_hot_weight:
            modulated = self._modulation(logits, targets, buffer_share, emphases) * one_hot
            loss = loss + method.one_hot_weight * self._means(modulated)
        adversarial = zero
        if student is not None and method.adversarial_weight:
            with ranges.part("student"):
                student_logits = keep_gradient_channels_last(student(inputs))
            losses = adversarial_loss(logits, student_logits, method.masked, method.adversarial_distance)
            adversarial = self._means(losses)
            loss = loss + method.adversarial_weight * self._adversarial_scale(emphases) * adversarial
        if method.balance_weight:
            balances = [class_balance(part) for part in logits.chunk(self.runs)]
            loss = loss + method.balance_weight * torch.stack(balances)
        if method.activation_weight:
            activations = [activation_loss(part) for part in (features[0] if features else logits).chunk(self.runs)]
            loss = loss + method.activation_weight * torch.stack(activations)
        if self._contrastive is not None:
            loss = loss + method.contrastive_weight * self._contrastive_loss(images)
        return loss, torch.stack([prior, self._means(one_hot), adversarial], dim=1).detach()

    def _means(self, values: Tensor) -> Tensor:
        """Mean of each run's images, (runs · N,) → (runs,)."""
        return values.view(self.runs, -1).mean(dim=1)

    def _modulation(
        self, logits: Tensor, targets: Tensor, buffer_share: Tensor, emphases: Sequence[Emphasis]
    ) -> Tensor | float:
        """φ(x) of the runs' terms, (runs · N,), without gradient; 1 without any."""
        if not any(each.diversity_exponent or each.difficulty_exponent for each in emphases):
            return 1.0
        with torch.no_grad():
            p_teacher = target_probability(logits, targets) if self.method.focal else confidence(logits)
            shares, certainties = class_share(logits).chunk(self.runs), p_teacher.chunk(self.runs)
            return torch.cat(
                [
                    modulation(own, share, certain, each.diversity_exponent, each.difficulty_exponent)
                    for own, share, certain, each in zip(shares, buffer_share, certainties, emphases, strict=True)
                ]
            )

    def _adversarial_scale(self, emphases: Sequence[Emphasis]) -> Tensor | float:
        """Of each run, (runs,); a number where they agree, so that no graph of the GPU waits for a copy."""
        scales = [emphasis.adversarial_scale for emphasis in emphases]
        return scales[0] if len(set(scales)) == 1 else torch.tensor(scales, device=self._random[0].device)

    def _contrastive_loss(self, images: Tensor) -> Tensor:
        """Compare the view that has just passed the teacher with the images as they are."""
        assert self._contrastive is not None
        first = self.statistics.instance_features()
        with self.statistics.capture(), ranges.part("teacher"):
            self.teacher(self._normalize(images))
        self._features = self.statistics.instance_features()
        return self._contrastive(first, self._features)  # type: ignore[no-any-return]

    def end_batch(self) -> None:
        """Remember what the finished batch leaves to the next: blended statistics, the contrastive bank."""
        if self._matches:
            self.statistics.end_round()
        if self._contrastive is not None:
            self._contrastive.remember(self._features)

    @staticmethod
    def joined(members: Sequence[Objective]) -> Objective:
        """One objective for the batches of several runs at once, without contrastive loss."""
        joined = copy.copy(members[0])
        joined.runs = len(members)
        joined._random = tuple(chain.from_iterable(member._random for member in members))
        joined.statistics = joined.statistics.joined([member.statistics for member in members])
        return joined

    def part(self, members: Mapping[int, Objective]) -> None:
        """Give members, by their number among those that were joined, what `end_batch` remembered for them."""
        self.statistics.part({index: member.statistics for index, member in members.items()})

    def state_dict(self) -> dict[str, Any]:
        """Blended statistics, contrastive head and bank. The randomness belongs to the caller."""
        contrastive = {} if self._contrastive is None else dict(self._contrastive.state_dict())
        return {"statistics": self.statistics.state_dict(), "contrastive": contrastive}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.statistics.load_state_dict(state["statistics"])
        if self._contrastive is not None:
            self._contrastive.load_state(state["contrastive"])


@contextmanager
def _captured_input(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """A list that holds the layer's last input after a forward pass inside this block."""
    captured: list[Tensor] = []
    if layer is None:
        yield captured
        return
    handle = layer.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    try:
        yield captured
    finally:
        handle.remove()
