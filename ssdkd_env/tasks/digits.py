"""The embedded default: 8×8 digits, a small BatchNorm teacher, a smaller student.

`assets/digits.npz` holds the 1,797 images of 17 grey levels, and their labels, which are scikit-learn's: the test
part of *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning
Repository, CC BY 4.0).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ssdkd_env.distillation.problem import Budget
from ssdkd_env.distillation.student import StudentSettings
from ssdkd_env.tasks.probe_settings import ProbeSettings
from ssdkd_env.tasks.task import LabelledImages, TaskSpec

ASSETS = Path(__file__).parent / "assets"
#: Real images held out from the teacher's training (of 1,797), drawn with this seed.
TEACHER_TEST_IMAGES = 497
TEACHER_SPLIT_SEED = 0


@lru_cache(maxsize=1)
def load_digits_data() -> LabelledImages:
    """All 1,797 real digits: images (1797, 1, 8, 8) uint8 in [0, 255], labels (1797,) int64."""
    with np.load(ASSETS / "digits.npz") as digits:
        images, labels = (torch.from_numpy(digits[name]) for name in ("images", "labels"))
    return images.double().mul(255 / 16).round().to(torch.uint8).unsqueeze(1), labels.long()


def split_digits() -> tuple[LabelledImages, LabelledImages]:
    """Train and test part for the teacher. No student, generator or reward sees either."""
    images, labels = load_digits_data()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(TEACHER_SPLIT_SEED))
    train, test = order[TEACHER_TEST_IMAGES:], order[:TEACHER_TEST_IMAGES]
    return (images[train], labels[train]), (images[test], labels[test])


DIGITS = TaskSpec(
    name="digits",
    image_shape=(1, 8, 8),
    num_classes=10,
    mean=(0.305,),
    std=(0.376,),
    padding=1,
    flip=False,
    teacher_arch="convnet",
    teacher_options={"channels": (16, 32, 64)},
    teacher_weights=str(ASSETS / "digits_teacher.safetensors"),
    student_arch="convnet",
    student_options={"channels": (12, 24, 48)},
    generator_options={"channels": 32},
    latent_dim=64,
    budget=Budget(
        rounds=16,
        warmup_rounds=6,
        candidates=32,
        inversion_steps=10,
        student_steps=22,
        batch_size=64,
        buffer_capacity=180,
    ),
    student=StudentSettings(lr=0.2, weight_decay=1e-3, temperature=8.0),
    # Chosen by us on digits; the other methods have their authors' constants, for CIFAR.
    methods={
        "ssdkd": {
            "generator_lr": 4e-3,
            "latent_lr": 1e-2,
            "first_layer_reset": 0.0,
            "bn_weight": 1.0,
            "statistics_momentum": 0.0,
            "one_hot_weight": 1.0,
            "adversarial_weight": 1.0,
        }
    },
    probe=ProbeSettings(sources="meta_generator+noisy_labels+pixels", batches=48, kept=1),
    probe_sets=str(ASSETS),
    training_set_size=1797,
    evaluation=load_digits_data,
    teacher_data=split_digits,
)
