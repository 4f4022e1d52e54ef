"""CIFAR-10 and CIFAR-100 with the standard protocol of the field. Teachers and data are the user's."""

from __future__ import annotations

from dataclasses import replace

from ssdkd_env.distillation.problem import Budget
from ssdkd_env.distillation.student import StudentSettings
from ssdkd_env.tasks.task import TaskSpec

#: The paper's protocol: 20 epochs fill the buffer, then 200 of 400 minibatches; the buffer holds 10 % of 50,000 images.
#: The inner steps are Fast-5's: the paper's number is not known to us.
PAPER_BUDGET = Budget(
    rounds=200,
    warmup_rounds=20,
    candidates=256,
    inversion_steps=5,
    student_steps=400,
    batch_size=256,
    buffer_capacity=5000,
)

CIFAR10 = TaskSpec(
    name="cifar10",
    image_shape=(3, 32, 32),
    num_classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    padding=4,
    flip=True,
    teacher_arch="resnet34",
    student_arch="resnet18",
    latent_dim=256,
    budget=PAPER_BUDGET,
    budgets={
        # For small networks, such as ResNet-20 → ResNet-8 with the small generator.
        "cpu": {
            "rounds": 36,
            "warmup_rounds": 30,
            "candidates": 128,
            "inversion_steps": 5,
            "student_steps": 25,
            "batch_size": 128,
        },
        # Four times as long.
        "cpu-long": {
            "rounds": 144,
            "warmup_rounds": 30,
            "candidates": 128,
            "inversion_steps": 5,
            "student_steps": 25,
            "batch_size": 128,
        },
        # Seconds: to see that everything runs.
        "tiny": {
            "rounds": 2,
            "warmup_rounds": 2,
            "candidates": 16,
            "inversion_steps": 2,
            "student_steps": 2,
            "batch_size": 16,
            "buffer_capacity": 32,
        },
    },
    student=StudentSettings(lr=0.2, momentum=0.9, weight_decay=1e-4, temperature=20.0),
    methods={"nayer": {"steps": 30}},  # its authors'
    dataset="cifar10",
    training_set_size=50_000,
)

CIFAR100 = replace(
    CIFAR10,
    name="cifar100",
    num_classes=100,
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
    methods={},
    dataset="cifar100",
)
