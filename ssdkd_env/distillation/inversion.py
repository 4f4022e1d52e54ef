"""One inversion engine: a generator turns the teacher's knowledge into images."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ssdkd_env.distillation.augmentation import Normalize, random_crop_flip
from ssdkd_env.distillation.losses import (
    BatchNormStatistics,
    adversarial_loss,
    one_hot_loss,
    squared_norm,
    total_variation,
)
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.optimizers import load_optimizer_state
from ssdkd_env.distillation.priority import class_share, confidence, modulation

#: Adam's moments in all generative methods of the field.
ADAM_BETAS = (0.5, 0.999)


class Inversion:
    """Synthesises batches of images with the meta-generator of Fast (Fang et al. 2022) and SSD-KD's losses.

    ``L_inv(x) = λ_bn·L_BN(x) + φ(x)·λ_oh·L_OH(x) + λ_adv·L_adv(x)``  (SSD-KD, reconstructed)

    A batch costs `steps` Adam steps on a clone of the generator together with the batch's latent vectors; the
    gradients of these steps, summed, then move the generator itself (first-order MAML, Adam with `steps` times
    the inner learning rate). The images are those of the clone after its last step.

    Args:
        method: loss weights and learning rates.
        teacher: frozen, in evaluation mode. Without BatchNorm layers a warning is given and the image priors
            (total variation, squared norm) take the place of the statistics loss.
        generator: maps (N, latent_dim) to (N, C, H, W) in [0, 1].
        num_classes: number of classes.
        latent_dim: length of a latent vector.
        batch_size: images a call.
        steps: inner steps a call.
        normalize: from image range to network input.
        padding, flip: augmentation.
        random: this engine's own source of randomness, on the generator's device.
    """

    def __init__(
        self,
        method: Method,
        teacher: nn.Module,
        generator: nn.Module,
        num_classes: int,
        latent_dim: int,
        batch_size: int,
        steps: int,
        normalize: Normalize,
        padding: int,
        flip: bool,
        random: torch.Generator,
    ) -> None:
        self.method = method
        self.teacher = teacher
        self.generator = generator.train()
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.steps = steps
        self._normalize = normalize
        self._padding, self._flip = padding, flip
        self._random = random
        self._statistics = BatchNormStatistics(teacher, method.statistics_momentum)
        if not self._statistics.layers:
            warnings.warn(
                "The teacher has no BatchNorm layer with running statistics, so inversion falls back to the image "
                "priors (total variation, squared norm) instead of L_BN; expect a weaker student.",
                stacklevel=2,
            )
        self._clone = copy.deepcopy(self.generator)
        names = [name for name, parameter in self.generator.named_parameters() if parameter.requires_grad]
        self._parameters: list[Tensor] = [self.generator.get_parameter(name) for name in names]
        self._clone_parameters: list[Tensor] = [self._clone.get_parameter(name) for name in names]
        for parameter in self._parameters:
            parameter.requires_grad_(False)  # only the clone is differentiated
        self._meta_optimizer = torch.optim.Adam(
            self._parameters, lr=method.generator_lr * steps, betas=ADAM_BETAS, fused=True
        )

    def synthesize(self, student: nn.Module | None, buffer_share: Tensor) -> tuple[Tensor, Tensor]:
        """Synthesise one batch.

        Args:
            student: adversary of the generator, in evaluation mode; None while the buffer is first filled.
            buffer_share: (classes,) class shares of the buffer, for φ.

        Returns:
            Images (batch_size, C, H, W) float in [0, 1], and the last step's losses (bn, one_hot, adversarial),
            a (3,) tensor.
        """
        latents = torch.randn(
            self.batch_size, self.latent_dim, device=buffer_share.device, generator=self._random
        ).requires_grad_()
        targets = self._draw_targets(buffer_share.device)
        with torch.no_grad():
            torch._foreach_copy_(self._clone_parameters, self._parameters)
        optimizer = torch.optim.Adam(
            [
                {"params": self._clone_parameters, "lr": self.method.generator_lr},
                {"params": [latents], "lr": self.method.latent_lr},
            ],
            betas=ADAM_BETAS,
            fused=True,
        )
        meta_gradients = [torch.zeros_like(p) for p in self._parameters]
        for _ in range(self.steps):
            loss, parts = self._loss(self._clone(latents), targets, student, buffer_share)
            optimizer.zero_grad(set_to_none=True)
            # Named inputs: nothing is computed for, or left on, the parameters of teacher and student.
            loss.backward(inputs=[*self._clone_parameters, latents])
            optimizer.step()
            for total, parameter in zip(meta_gradients, self._clone_parameters, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad
        for parameter, gradient in zip(self._parameters, meta_gradients, strict=True):
            parameter.grad = gradient
        self._meta_optimizer.step()
        self._statistics.end_round()
        with torch.no_grad():
            images: Tensor = self._clone(latents)
        return images, parts

    def _loss(
        self, images: Tensor, targets: Tensor, student: nn.Module | None, buffer_share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_inv of a batch, a scalar, and its unweighted parts (bn or prior, one_hot, adversarial), (3,) detached."""
        method = self.method
        inputs = self._normalize(random_crop_flip(images, self._padding, self._flip, self._random))
        with self._statistics.capture():
            teacher_logits = self.teacher(inputs)
        if self._statistics.layers:
            prior = self._statistics.loss()
            loss = method.bn_weight * prior
        else:
            prior = method.tv_weight * total_variation(images).mean() + method.l2_weight * squared_norm(images).mean()
            loss = prior
        if teacher_logits.dim() == 4:  # dense prediction has no drawn target: sharpen what the teacher sees
            targets = teacher_logits.argmax(dim=1)
        one_hot = one_hot_loss(teacher_logits, targets)
        if method.modulated:
            with torch.no_grad():
                phi = modulation(class_share(teacher_logits), buffer_share, confidence(teacher_logits), method.gamma)
            loss = loss + method.one_hot_weight * (phi * one_hot).mean()
        else:
            loss = loss + method.one_hot_weight * one_hot.mean()
        adversarial = torch.zeros_like(loss)
        if student is not None and method.adversarial_weight:
            adversarial = adversarial_loss(teacher_logits, student(inputs), method.masked).mean()
            loss = loss + method.adversarial_weight * adversarial
        return loss, torch.stack([prior, one_hot.mean(), adversarial]).detach()

    def _draw_targets(self, device: torch.device) -> Tensor:
        """(batch_size,) int64: every class equally often up to one, in an order of chance."""
        permutation = torch.randperm(self.batch_size, device=device, generator=self._random)
        offset = torch.randint(self.num_classes, (1,), device=device, generator=self._random)
        return (permutation + offset) % self.num_classes

    def state_dict(self) -> dict[str, Any]:
        """Generator, its optimiser and the blended statistics. The randomness belongs to the caller."""
        return {
            "generator": self.generator.state_dict(),
            # Its parameters are overwritten in every call; its buffers (spectral norm's vectors) go on.
            "clone_buffers": dict(self._clone.named_buffers()),
            "optimizer": self._meta_optimizer.state_dict(),
            "statistics": self._statistics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.generator.load_state_dict(state["generator"])
        for name, buffer in self._clone.named_buffers():
            buffer.copy_(state["clone_buffers"][name])
        load_optimizer_state(self._meta_optimizer, state["optimizer"])
        self._statistics.load_state_dict(state["statistics"])
