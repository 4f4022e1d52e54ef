"""CamVid and NYU Depth v2: tasks of dense prediction. Teachers and data are the user's.

NYUv2 with DeepLabv3 is the paper's second benchmark (13 classes, 128 pixels, mean and deviation of ½). Its loss weights
and budget are not known to us: the weights are those of Fast, as on CIFAR, and a run synthesises 16,000 images, as the
paper's does. CamVid, and the small networks for it, are ours, for a CPU.
"""

from __future__ import annotations

from dataclasses import replace

from ssdkd_env.distillation.problem import Budget
from ssdkd_env.distillation.student import StudentSettings
from ssdkd_env.tasks.data.camvid import CAMVID_CLASSES
from ssdkd_env.tasks.data.nyuv2_classes import NYUV2_CLASSES
from ssdkd_env.tasks.probe_settings import ProbeSettings
from ssdkd_env.tasks.task import TaskSpec

CAMVID = TaskSpec(
    name="camvid",
    image_shape=(3, 120, 160),
    num_classes=len(CAMVID_CLASSES),
    classes=CAMVID_CLASSES,
    dense=True,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    padding=8,
    flip=True,
    teacher_arch="deeplab_small32",
    teacher_options={"output_stride": 4},
    student_arch="deeplab_small12",
    generator_arch="dcgan_small",
    latent_dim=128,
    budget=Budget(
        rounds=50,
        warmup_rounds=16,
        candidates=16,
        inversion_steps=5,
        student_steps=40,
        batch_size=8,
        buffer_capacity=256,
    ),
    budgets={
        # Seconds: to see that everything runs.
        "tiny": {
            "rounds": 2,
            "warmup_rounds": 1,
            "candidates": 4,
            "inversion_steps": 2,
            "student_steps": 2,
            "batch_size": 2,
            "buffer_capacity": 8,
        },
    },
    student=StudentSettings(lr=0.05, momentum=0.9, weight_decay=5e-4, temperature=2.0),
    probe=ProbeSettings(batches=12, kept=2, batch_size=8, steps=10),
    dataset="camvid",
    training_set_size=367,
)

NYUV2 = replace(
    CAMVID,
    name="nyuv2",
    image_shape=(3, 128, 128),
    num_classes=len(NYUV2_CLASSES),
    classes=NYUV2_CLASSES,
    teacher_arch="deeplabv3_resnet50",
    teacher_options={},
    student_arch="deeplabv3_mobilenet_v2",
    generator_arch="dcgan",
    latent_dim=256,
    budget=Budget(
        rounds=230,
        warmup_rounds=20,
        candidates=64,
        inversion_steps=5,
        student_steps=100,
        batch_size=64,
        buffer_capacity=1600,
    ),
    student=StudentSettings(lr=0.1, momentum=0.9, weight_decay=1e-4, temperature=2.0),
    probe=ProbeSettings(),
    dataset="nyuv2",
    training_set_size=795,
)
