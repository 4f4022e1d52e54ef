"""Does a device compute what the CPU computes? The parts of a round beside each other, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from laboratory.common import float64
from ssdkd_env.distillation import make_method, priority
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.buffer import Entries, ReplayBuffer
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.distillation.problem import Budget
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.networks.head import with_exact_head
from ssdkd_env.tasks.cifar import CIFAR10
from ssdkd_env.tasks.task import Task, build_teacher

#: Largest difference, relative to the largest number, that is still another order of the same sums.
ALLOWED = 1e-8
SPEC = replace(
    CIFAR10,
    teacher_arch="resnet8",
    student_arch="resnet8",
    generator_arch="generator_small",
    budget=Budget(**CIFAR10.budgets["tiny"]),
)


class Row(NamedTuple):
    """A part of a round: the largest difference of its numbers, relative to the largest number."""

    what: str
    difference: float

    @property
    def right(self) -> bool:
        """Whether that is rounding."""
        return self.difference <= ALLOWED  # NaN is not

    def cells(self) -> list[str]:
        """Of a table."""
        return [self.what, f"{self.difference:.1e}", f"{ALLOWED:.0e}"]


def compare_devices(device: torch.device) -> list[Row]:
    """Every part of a round on a device beside the CPU."""
    with float64():
        here, there = numbers_of(torch.device("cpu")), numbers_of(device)
    differences = {
        what: (there[what].cpu() - numbers).abs().max() / numbers.abs().max() for what, numbers in here.items()
    }
    return [Row(what, float(difference)) for what, difference in differences.items()]


def numbers_of(device: torch.device) -> dict[str, Tensor]:
    """The same work on any device: what all random numbers depend on is drawn on the CPU."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random).to(device)

    task = Task(SPEC, build_teacher(SPEC, 0).double())
    normalize = Normalize(SPEC.mean, SPEC.std, device)
    images, targets = draw(16, *SPEC.image_shape), torch.arange(16, device=device) % SPEC.num_classes
    inputs, teacher = normalize(images), task.teacher_on(device)
    found = {"teacher": teacher(inputs), "teacher, folded": task.teacher_on(device, folded=True)(inputs)}

    student = with_exact_head(task.build_student(0).double().to(device)).train()
    update = FastUpdate(student, 0.9, 1e-4, SPEC.student.temperature, "kl")
    update.lr = 0.1
    for _ in range(3):
        update(inputs, found["teacher"], 2 * draw(16))
    found["student after three steps"] = torch.cat([parameter.detach().flatten() for parameter in student.parameters()])
    found["student's answers"] = student.eval()(inputs).detach()

    seen = images.clone().requires_grad_()
    method = make_method("ssdkd", {"augment": False})
    objective = Objective(method, teacher, normalize, 0, False, torch.Generator(device))
    losses, parts = objective(seen, targets, student, draw(1, SPEC.num_classes))
    found["inversion's losses"] = parts
    found["inversion's gradient"] = torch.autograd.grad(losses.sum(), seen)[0]

    generator = task.build_generator(0).double().to(device)
    made = generator(draw(16, SPEC.latent_dim) - 0.5)
    found["generator's images"] = made.detach()
    gradients = torch.autograd.grad((made * images).sum(), list(generator.parameters()))
    found["generator's gradients"] = torch.cat([gradient.flatten() for gradient in gradients])

    return found | _memory(device, found["teacher"].detach(), draw(16), draw(24))


def _memory(device: torch.device, logits: Tensor, weights: Tensor, keys: Tensor) -> dict[str, Tensor]:
    """Who is in a buffer after an update, and with which probability and weight."""
    entries = Entries(
        images=torch.arange(16, dtype=torch.uint8, device=device).view(-1, 1, 1, 1).expand(-1, *SPEC.image_shape),
        teacher_logits=logits,
        class_share=priority.class_share(logits),
        confidence=priority.confidence(logits),
        discrepancy=weights,
        importance_weight=weights,
        born=torch.arange(16, device=device),
    )
    buffer = ReplayBuffer(8, SPEC.image_shape, SPEC.num_classes, device)
    buffer.update(entries.rows(slice(0, 8)), keys[:8], most_replaced=8)
    buffer.update(entries, keys, most_replaced=8)
    residents = buffer.residents
    probabilities = priority.sampling_probabilities(residents.discrepancy.log())
    return {
        "residents": residents.born.double(),
        "probabilities": probabilities,
        "importance weights": priority.importance_weights(probabilities, 0.4).double(),
    }
