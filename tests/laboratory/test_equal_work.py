"""What a round is, counted, and our engine as one side."""

from __future__ import annotations

from collections import Counter

import torch
from laboratory.equal_work import EXTRA, OurSide, Round, WorkCounter, filler_images, unequal_work
from torch import nn

SMALL = Round(
    teacher_arch="resnet8",
    generator_channels=8,
    candidates=6,
    inversion_steps=3,
    student_steps=2,
    batch_size=4,
    measured=10,
)


def our_side(size: Round = SMALL, pool: int = 20) -> OurSide:
    return OurSide(size, size.task(), pool, torch.device("cpu"))


def test_our_round_does_the_work_that_both_must_do() -> None:
    side = our_side()
    counter = side.counter()
    with counter.counting():
        side.round()
    inversion, distillation = 3 * 6, 2 * 4
    assert counter.images == {
        "generator, inversion": inversion,
        "generator, inversion, backward": inversion,
        "generator, drawing": 6,
        "teacher, inversion": inversion,
        "teacher, inversion, backward": inversion,
        "teacher, answers": distillation + 6,
        "student, adversary": inversion,
        "student, adversary, backward": inversion,
        "student, distillation": distillation,
        "student, distillation, backward": distillation,
        "student, measuring": 6 + 10,
    }
    assert counter.dtypes == {"torch.float32"}
    assert unequal_work("ours", counter, SMALL.work(), EXTRA) == []
    side.round()
    assert counter.images["student, distillation"] == distillation, "nothing is counted outside"


def test_our_memory_keeps_its_size_and_takes_the_new_images() -> None:
    side = our_side(pool=20)
    assert side.memory == 20
    before = side.run.buffer.residents.images.clone()
    seconds = side.round()
    assert side.memory == 20
    changed = (side.run.buffer.residents.images != before).flatten(1).any(dim=1)
    assert int(changed.sum()) == 6
    assert not side.diverged
    assert seconds.synthesis > 0
    assert seconds.student > 0
    assert seconds.total == seconds.synthesis + seconds.student


def counted(images: dict[str, int], dtypes: tuple[str, ...] = ("torch.float32",)) -> WorkCounter:
    counter = WorkCounter([], [nn.Identity()], nn.Identity)
    counter.images, counter.dtypes = Counter(images), set(dtypes)
    return counter


def test_unequal_work_is_named() -> None:
    expected = {"teacher, inversion": 8, "teacher, answers": 4}
    assert unequal_work("theirs", counted(expected), expected) == []
    more = expected | {"teacher, answers": 5, "student, measuring": 2}
    assert unequal_work("ours", counted(more), expected, EXTRA) == []
    assert unequal_work("theirs", counted(more), expected) == [
        "theirs: 2 images at the place 'student, measuring', expected 0",
        "theirs: 5 images at the place 'teacher, answers', expected 4",
    ]
    (less,) = unequal_work("ours", counted(expected | {"teacher, answers": 3}), expected, EXTRA)
    assert "3 images at the place 'teacher, answers', expected 4" in less
    (steps,) = unequal_work("ours", counted(expected | {"teacher, inversion": 16}), expected, EXTRA)
    assert "16 images at the place 'teacher, inversion', expected 8" in steps
    (dtype,) = unequal_work("ours", counted(expected, ("torch.bfloat16",)), expected)
    assert "torch.bfloat16" in dtype


def test_fillers_are_smooth_images_that_a_seed_repeats() -> None:
    images = filler_images(1030)
    assert images.shape == (1030, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(images, filler_images(1030))
    steps = (images[..., 1:].int() - images[..., :-1].int()).abs().float().mean()
    assert 0 < steps < 32  # of uniform noise it is 85
    assert images.flatten(1).unique(dim=0).shape[0] == 1030
