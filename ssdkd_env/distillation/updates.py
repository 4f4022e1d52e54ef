"""One step of the student: written plainly, and with less overhead for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.execution import Forward
from ssdkd_env.distillation.losses import distillation_loss
from ssdkd_env.distillation.restoring import load_optimizer_state, restored
from ssdkd_env.networks.channels_last import keep_gradient_channels_last


class StudentUpdate(Protocol):
    """Moves the student one minibatch down the gradient of the weighted distillation loss.

    Attributes:
        lr: learning rate of the next steps.
        forward: the student as it is called.
    """

    lr: float
    forward: Forward

    def __call__(self, inputs: Tensor, teacher_logits: Tensor, weights: Tensor) -> Tensor:
        """One step.

        Args:
            inputs: (B, C, H, W) float, what the networks see.
            teacher_logits: (B, classes) or (B, classes, H, W).
            weights: (B,) float.

        Returns:
            The student's logits before the step, without gradient.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        ...


class PlainUpdate:
    """The reference: the loss by autograd, and PyTorch's SGD.

    Args:
        student: network to train.
        momentum, weight_decay: of SGD.
        temperature, distance: of the distillation loss.
    """

    def __init__(
        self, student: nn.Module, momentum: float, weight_decay: float, temperature: float, distance: str
    ) -> None:
        self.lr = 0.0
        self.forward: Forward = student
        self._temperature, self._distance = temperature, distance
        self._optimizer = torch.optim.SGD(
            student.parameters(), lr=0.0, momentum=momentum, weight_decay=weight_decay, fused=True
        )

    def __call__(self, inputs: Tensor, teacher_logits: Tensor, weights: Tensor) -> Tensor:
        """One step; see `StudentUpdate`."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr
        self._optimizer.zero_grad(set_to_none=True)
        with ranges.part("student"):
            logits: Tensor = self.forward(inputs)
        with ranges.part("loss"):
            losses = distillation_loss(teacher_logits, logits, self._temperature, self._distance)
            loss = (weights * losses).mean()
        with ranges.part("backward"):
            loss.backward()
        with ranges.part("optimiser"):
            self._optimizer.step()
        return logits.detach()

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's own."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        load_optimizer_state(self._optimizer, state)


class FastUpdate:
    """The same step with the loss's gradient in closed form and SGD over all parameters at once.

    On small images autograd's nodes for the loss and the optimiser's bookkeeping are a good part of a step.

    Args:
        student: network to train, or a group of them.
        momentum, weight_decay: of SGD.
        temperature, distance: of the distillation loss.
        students: how many the group has; each is moved down the gradient of its own minibatch's mean loss.
        forward: the student as it is called; itself where None.
    """

    def __init__(
        self,
        student: nn.Module,
        momentum: float,
        weight_decay: float,
        temperature: float,
        distance: str,
        students: int = 1,
        forward: Forward | None = None,
    ) -> None:
        self.lr: float = 0.0
        self.forward: Forward = student if forward is None else forward
        self._students = students
        self._momentum_factor, self._weight_decay = momentum, weight_decay
        self._temperature, self._distance = temperature, distance
        self._parameters: list[Tensor] = [p for p in student.parameters() if p.requires_grad]
        self._momenta: list[Tensor | None] = [None] * len(self._parameters)
        self._rates: list[Tensor] | None = None

    def __call__(self, inputs: Tensor, teacher_logits: Tensor, weights: Tensor) -> Tensor:
        """One step; see `StudentUpdate`. A group's inputs are (students · B, …), its logits likewise."""
        with ranges.part("student"):
            logits = keep_gradient_channels_last(self.forward(inputs))
        with torch.no_grad(), ranges.part("loss"):
            # A mean over one student's minibatch, not over all of them.
            weights = weights * self._students
            gradient = loss_gradient(teacher_logits, logits, weights, self._temperature, self._distance)
        for parameter in self._parameters:
            parameter.grad = None
        with ranges.part("backward"):
            logits.backward(gradient)
        self._descend()
        return logits.detach()

    @ranges.part("optimiser")
    @torch.no_grad()
    def _descend(self) -> None:
        """SGD as PyTorch defines it: g + λp, v ← μv + g (v ← g at first), p ← p − lr·v."""
        moving = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        parameters = [self._parameters[i] for i in moving]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self._weight_decay:
            torch._foreach_add_(gradients, parameters, alpha=self._weight_decay)
        if self._momentum_factor:
            for i, gradient in zip(moving, gradients, strict=True):
                if self._momenta[i] is None:
                    self._momenta[i] = torch.zeros_like(gradient)
            momenta = [momentum for i in moving if (momentum := self._momenta[i]) is not None]
            torch._foreach_mul_(momenta, self._momentum_factor)
            torch._foreach_add_(momenta, gradients)
            gradients = momenta
        if self._rates is None:
            torch._foreach_add_(parameters, gradients, alpha=-self.lr)
        else:
            torch._foreach_addcmul_(parameters, gradients, [self._rates[i] for i in moving], value=-1.0)

    @ranges.part("grouping")
    def join(self, members: Sequence[FastUpdate]) -> None:
        """Take over the momenta and learning rates of a group's members."""
        momenta = zip(*(member._momenta for member in members), strict=True)
        pairs = list(zip(self._parameters, momenta, strict=True))
        self._momenta = [_joined(parameter, parts) for parameter, parts in pairs]
        rates = {member.lr for member in members}
        self.lr, self._rates = members[0].lr, None
        if len(rates) > 1:
            own = torch.tensor([member.lr for member in members], dtype=torch.float64)
            self._rates = [_spread(own, parameter) for parameter in self._parameters]

    @ranges.part("grouping")
    def part(self, members: Sequence[FastUpdate]) -> None:
        """Give the momenta back to a group's members."""
        for index, momentum in enumerate(self._momenta):
            if momentum is not None:
                for member, share in zip(members, momentum.chunk(len(members)), strict=True):
                    member._momenta[index] = share.clone(memory_format=torch.preserve_format)

    def state_dict(self) -> dict[str, Any]:
        """The momenta, in the order of the parameters."""
        return {"momenta": list(self._momenta)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._momenta = [
            None if momentum is None else restored(parameter, momentum, "a momentum")
            for parameter, momentum in zip(self._parameters, state["momenta"], strict=True)
        ]


def _joined(parameter: Tensor, momenta: Sequence[Tensor | None]) -> Tensor | None:
    """The members' momenta in one tensor of the group parameter's layout; a member without one has had no step."""
    if all(momentum is None for momentum in momenta):
        return None
    joined = torch.zeros_like(parameter)
    for share, momentum in zip(joined.chunk(len(momenta)), momenta, strict=True):
        if momentum is not None:
            share.copy_(momentum)
    return joined


def _spread(rates: Tensor, parameter: Tensor) -> Tensor:
    """One learning rate a member → one an entry of the group's parameter, in its layout."""
    each = rates.repeat_interleave(len(parameter) // len(rates)).view(-1, *[1] * (parameter.dim() - 1))
    return torch.empty_like(parameter).copy_(each.expand_as(parameter))


def loss_gradient(
    teacher_logits: Tensor, student_logits: Tensor, weights: Tensor, temperature: float, distance: str
) -> Tensor:
    """Gradient of mean(w · distillation_loss) with respect to the student's logits, in closed form.

    For KL: T · w/(B·P) · (softmax(f_S/T) − softmax(f_T/T)) with P predictions an image; for L1:
    w/(B·P·C) · sign(f_S − f_T).
    """
    predictions = student_logits.numel() // student_logits.shape[1]
    shape = (-1, *[1] * (student_logits.dim() - 1))
    if distance == "l1":
        scale = weights.view(shape) / (predictions * student_logits.shape[1])
        return scale * (student_logits - teacher_logits).sign()
    scale = weights.view(shape) * (temperature / predictions)
    return scale * ((student_logits / temperature).softmax(dim=1) - (teacher_logits / temperature).softmax(dim=1))
