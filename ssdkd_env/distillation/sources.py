"""Where a batch's images come from, and what inversion moves to change them: a generator, latents or the pixels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.execution import EAGER, Execution
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.noisy_labels import NoisyLabels
from ssdkd_env.distillation.restoring import load_optimizer_state, restore

#: Adam's moments in all generative methods of the field.
ADAM_BETAS = (0.5, 0.999)
#: Adam's moments when the pixels are optimised (DeepInversion).
PIXEL_BETAS = (0.5, 0.9)


class BatchSource(Protocol):
    """A batch that has begun: its images are asked for and improved step by step."""

    def images(self) -> Tensor:
        """The batch as it is now, (N, C, H, W) float in [0, 1], differentiable."""
        ...

    def step(self, loss: Tensor) -> None:
        """One optimiser step down the gradient of a scalar loss of the last `images()`."""
        ...


class ImageSource(BatchSource, Protocol):
    """The source of a run: its batches are begun and finished, and it goes on from batch to batch."""

    def begin(self, targets: Tensor) -> None:
        """Start a batch of len(targets) images of these classes (N,) int64."""
        ...

    def finish(self, count: int) -> Tensor:
        """End the batch; its `count` images (count, C, H, W) in [0, 1], without gradient."""
        ...

    def reset_first_layer(self) -> None:
        """Initialise the generator's first layer anew; nothing where there is no generator."""
        ...

    def reset_generator(self) -> None:
        """Initialise the whole generator and its optimiser anew; nothing where there is none."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on. The randomness belongs to the caller."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        ...


class MetaGenerator:
    """The meta-generator of Fast (Fang et al. 2022): inner Adam steps on a clone, then a first-order MAML step.

    The gradients of the inner steps, summed, move the generator itself (Adam with the inner learning rate times the
    number of steps). The batch is the clone's after its last step.

    Args:
        generator: maps (N, latent_dim) to images (N, C, H, W) in [0, 1].
        latent_dim: length of a latent vector.
        method: learning rates.
        extra: parameters of the objective that are trained along.
        random: source of randomness, on the generator's device.
        execution: how the clone is called.
    """

    def __init__(
        self,
        generator: nn.Module,
        latent_dim: int,
        method: Method,
        extra: Sequence[nn.Parameter],
        random: torch.Generator,
        execution: Execution = EAGER,
    ) -> None:
        self.generator = generator.train()
        self._latent_dim, self._method, self._random, self._extra = latent_dim, method, random, list(extra)
        self._clone = copy.deepcopy(self.generator)
        self._forward = execution.of(self._clone)
        names = [name for name, parameter in self.generator.named_parameters() if parameter.requires_grad]
        self._parameters: list[Tensor] = [self.generator.get_parameter(name) for name in names]
        self._clone_parameters: list[Tensor] = [self._clone.get_parameter(name) for name in names]
        for parameter in self._parameters:
            parameter.requires_grad_(False)  # only the clone is differentiated
        self._meta_optimizer = self._make_meta_optimizer()

    def _make_meta_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(self._parameters, lr=self._method.generator_lr, betas=ADAM_BETAS, fused=True)

    def draw_latents(self, count: int) -> Tensor:
        """(count, latent_dim) float, standard normal."""
        return _draw(count, self._latent_dim, self._random)

    @torch.no_grad()
    def begin_generator(self) -> nn.Module:
        """The network that a batch's steps move: the clone, with the weights of the generator."""
        torch._foreach_copy_(self._clone_parameters, self._parameters)
        return self._clone

    def begin(self, targets: Tensor) -> None:
        """Draw latents and copy the generator into its clone."""
        self._latents = self.draw_latents(len(targets)).requires_grad_()
        self.begin_generator()
        self._optimizer = make_adam(self._method, [*self._clone_parameters, *self._extra], [self._latents])
        self._meta_gradients = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    @ranges.part("generator")
    def images(self) -> Tensor:
        """The clone's images."""
        return self._forward(self._latents)

    def step(self, loss: Tensor) -> None:
        """One inner step."""
        descend(self._optimizer, loss)
        add_gradients(self._meta_gradients, self._clone_parameters)
        self._steps += 1

    def finish(self, count: int) -> Tensor:
        """Move the generator; the images are the clone's."""
        self.end_generator(self._meta_gradients, self._steps)
        with torch.no_grad(), ranges.part("generator"):
            images: Tensor = self._clone(self._latents)
        return images

    def end_generator(self, gradients: Sequence[Tensor], steps: int) -> None:
        """The meta step: move the generator itself, down the summed gradients of so many inner steps."""
        for group in self._meta_optimizer.param_groups:
            group["lr"] = self._method.generator_lr * steps
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        with ranges.part("optimiser"):
            self._meta_optimizer.step()

    def reset_first_layer(self) -> None:
        """Initialise the generator's first layer anew; the clone follows with the next batch."""
        _reset_first_layer(self.generator)

    def reset_generator(self) -> None:
        """Initialise generator and optimiser anew; the clone follows with the next batch."""
        _reset(self.generator)
        self._meta_optimizer = self._make_meta_optimizer()

    def state_dict(self) -> dict[str, Any]:
        """Generator and its optimiser."""
        return {
            "generator": self.generator.state_dict(),
            # Its parameters are overwritten in every call; its buffers (spectral norm's vectors) go on.
            "clone_buffers": dict(self._clone.named_buffers()),
            "optimizer": self._meta_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.generator.load_state_dict(state["generator"])
        for name, buffer in self._clone.named_buffers():
            restore(buffer, state["clone_buffers"][name], name)
        load_optimizer_state(self._meta_optimizer, state["optimizer"])


class TrainedGenerator:
    """A generator that is itself trained.

    - variables `"generator_and_latents"`: it is kept from batch to batch, the latents belong to the batch (Fast
      without the meta step).
    - `"fresh_generator"`: it is initialised anew for each batch (CMI).
    - `"generator_and_noisy_labels"`: its input is a noisy layer on label embeddings (NAYER).
    - `"generator"`: the latents are drawn anew in each step, and its optimiser goes on (DAFL, ZSKT, DFAD, DFQ).

    Args:
        generator: maps (N, latent_dim) to images (N, C, H, W) in [0, 1].
        latent_dim: length of a latent vector.
        num_classes: number of classes.
        method: variables and learning rates.
        extra: parameters of the objective that are trained along.
        random: source of randomness, on the generator's device.
        execution: how the generator is called.
    """

    def __init__(
        self,
        generator: nn.Module,
        latent_dim: int,
        num_classes: int,
        method: Method,
        extra: Sequence[nn.Parameter],
        random: torch.Generator,
        execution: Execution = EAGER,
    ) -> None:
        self.generator = generator.train()
        self._forward = execution.of(self.generator)
        self._latent_dim, self._method, self._random = latent_dim, method, random
        self._trained = [p for p in self.generator.parameters() if p.requires_grad] + list(extra)
        self._redraws = method.variables == "generator"
        self._labels: NoisyLabels | None = None
        if method.variables == "generator_and_noisy_labels":
            self._labels = NoisyLabels(num_classes, latent_dim, random, method.noisy_layer_std)
            self._trained += [self._labels.embedding]
        self._optimizer = make_adam(method, self._trained, [])

    def begin(self, targets: Tensor) -> None:
        """Prepare what belongs to the batch alone, and an optimiser for it."""
        self._count = len(targets)
        if self._redraws:
            return
        if self._method.variables == "fresh_generator":
            _reset(self.generator)
        if self._labels is not None:
            own = self._labels.begin(targets)
        else:
            self._latents = self.draw_latents(self._count).requires_grad_()
            own = [self._latents]
        self._optimizer = make_adam(self._method, self._trained, own)

    def draw_latents(self, count: int) -> Tensor:
        """(count, latent_dim) float, standard normal."""
        return _draw(count, self._latent_dim, self._random)

    def begin_generator(self) -> nn.Module:
        """The network that a batch's steps move."""
        return self.generator

    def end_generator(self, gradients: Sequence[Tensor], steps: int) -> None:
        """Nothing is left to do after a batch's steps."""

    @ranges.part("generator")
    def images(self) -> Tensor:
        """The generator's images of the batch's latents, or of new ones."""
        return self._forward(self._inputs(self._count))

    def _inputs(self, count: int) -> Tensor:
        if self._redraws:
            return self.draw_latents(count)
        return self._latents if self._labels is None else self._labels()

    def step(self, loss: Tensor) -> None:
        """One step of the generator and of what belongs to the batch."""
        descend(self._optimizer, loss)

    def finish(self, count: int) -> Tensor:
        """The batch; `count` fresh images where the latents are drawn anew."""
        with torch.no_grad(), ranges.part("generator"):
            images: Tensor = self.generator(self._inputs(count))
        return images

    def reset_first_layer(self) -> None:
        """Initialise the generator's first layer anew."""
        _reset_first_layer(self.generator)

    def reset_generator(self) -> None:
        """Initialise generator and optimiser anew."""
        _reset(self.generator)
        self._optimizer = make_adam(self._method, self._trained, [])

    def state_dict(self) -> dict[str, Any]:
        """Generator, label embedding, and the optimiser where it goes on."""
        return {
            "generator": self.generator.state_dict(),
            "embedding": None if self._labels is None else self._labels.embedding.detach(),
            "optimizer": self._optimizer.state_dict() if self._redraws else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.generator.load_state_dict(state["generator"])
        if self._labels is not None:
            restore(self._labels.embedding, state["embedding"], "the label embedding")
        if self._redraws:
            load_optimizer_state(self._optimizer, state["optimizer"])


class Pixels:
    """The images themselves, optimised as network inputs (DeepInversion, Yin et al. 2020).

    Args:
        image_shape: (C, H, W).
        normalize: between image range and network input.
        method: learning rate.
        extra: parameters of the objective that are trained along.
        random: source of randomness.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        normalize: Normalize,
        method: Method,
        extra: Sequence[nn.Parameter],
        random: torch.Generator,
    ) -> None:
        self._image_shape, self._normalize = image_shape, normalize
        self._method, self._extra, self._random = method, list(extra), random

    def begin(self, targets: Tensor) -> None:
        """Start from standard normal network inputs, as far as images have such."""
        shape = (len(targets), *self._image_shape)
        start = torch.randn(shape, device=self._random.device, generator=self._random)
        self._inputs = self._normalize.clip(start).requires_grad_()
        self._optimizer = make_adam(self._method, self._extra, [self._inputs], PIXEL_BETAS)

    def images(self) -> Tensor:
        """The inputs in image range."""
        return self._normalize.invert(self._inputs)

    def step(self, loss: Tensor) -> None:
        """One step, then back into the range of images."""
        descend(self._optimizer, loss)
        with torch.no_grad():  # not in `images`: where that clips, the gradient would vanish for good
            self._inputs.copy_(self._normalize.clip(self._inputs))

    def finish(self, count: int) -> Tensor:
        """The batch."""
        return self._normalize.invert(self._inputs.detach()).clamp(0.0, 1.0)

    def reset_first_layer(self) -> None:
        """There is no generator."""

    def reset_generator(self) -> None:
        """There is no generator."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing is left from batch to batch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is left from batch to batch."""


def _draw(count: int, length: int, random: torch.Generator) -> Tensor:
    return torch.randn(count, length, device=random.device, generator=random)


@ranges.part("optimiser")
def make_adam(
    method: Method, trained: Sequence[Tensor], own: Sequence[Tensor], betas: tuple[float, float] = ADAM_BETAS
) -> torch.optim.Adam:
    """Adam over the lasting parameters and those of the batch, each with its learning rate."""
    groups = [
        {"params": list(parameters), "lr": lr}
        for parameters, lr in ((trained, method.generator_lr), (own, method.latent_lr))
        if parameters
    ]
    return torch.optim.Adam(groups, betas=betas, fused=True)


def add_gradients(totals: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Add to each total its parameter's gradient, where that has one."""
    moved = [(total, p.grad) for total, p in zip(totals, parameters, strict=True) if p.grad is not None]
    torch._foreach_add_([total for total, _ in moved], [gradient for _, gradient in moved])


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of an optimiser down the gradient of a scalar loss with respect to its parameters alone."""
    optimizer.zero_grad(set_to_none=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Named inputs: nothing is computed for, or left on, the parameters of teacher and student.
    with ranges.part("backward"):
        loss.backward(inputs=parameters)
    with ranges.part("optimiser"):
        optimizer.step()


def _reset(module: nn.Module) -> None:
    """Initialise every layer anew, from the global generator (a run lends its own to it).

    The network itself comes last: one that initialises its layers otherwise than PyTorch does has the last word.
    """
    for part in (*list(module.modules())[1:], module):
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()


def _reset_first_layer(generator: nn.Module) -> None:
    for part in generator.modules():
        if part is not generator and callable(reset := getattr(part, "reset_parameters", None)):
            reset()
            return
