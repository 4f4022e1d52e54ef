"""Shifts and flips against a plain loop."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssdkd_env.distillation.augmentation import Normalize, random_crop_flip, to_uint8
from tests.distillation.reference import close


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loop(images: Tensor, padding: int, flip: bool, random: torch.Generator) -> Tensor:
    """The same draws, one pixel at a time: crop the zero-padded image at the offset, then mirror it."""
    count, channels, height, width = images.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=random).squeeze(2).tolist()
    mirrored = (torch.rand(count, 1, generator=random) < 0.5).flatten().tolist() if flip else [False] * count
    result = torch.zeros_like(images)
    for i in range(count):
        for y in range(height):
            for x in range(width):
                column = width - 1 - x if mirrored[i] else x
                from_y, from_x = y + top[i] - padding, column + left[i] - padding
                if 0 <= from_y < height and 0 <= from_x < width:
                    for c in range(channels):
                        result[i, c, y, x] = images[i, c, from_y, from_x]
    return result


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([torch.uint8, torch.float32]),
    st.integers(0, 2**31),
)
def test_crop_and_flip_equal_a_plain_loop(
    shape: tuple[int, int, int, int], padding: int, flip: bool, dtype: torch.dtype, seed: int
) -> None:
    images = torch.randint(1, 256, shape, generator=generator(seed)).to(dtype)
    augmented = random_crop_flip(images, padding, flip, generator(seed))
    assert augmented.dtype == dtype
    assert torch.equal(augmented, by_loop(images, padding, flip, generator(seed)))


@pytest.mark.parametrize("flip", [True, False])
def test_several_generators_augment_a_part_each(flip: bool) -> None:
    """As many equal parts of the images, each as if it were alone; and every generator goes on from there."""
    images = torch.rand(6, 2, 4, 5, generator=generator(0))
    together, alone = ([generator(seed) for seed in (1, 2, 3)] for _ in range(2))
    for _ in range(2):
        augmented = random_crop_flip(images, 2, flip, *together)
        assert torch.equal(
            augmented, torch.cat([by_loop(p, 2, flip, r) for p, r in zip(images.chunk(3), alone, strict=True)])
        )


def test_without_padding_and_flip_nothing_changes_and_nothing_is_drawn() -> None:
    images, random = torch.rand(2, 1, 4, 4), generator(0)
    assert torch.equal(random_crop_flip(images, 0, False, random), images)
    assert torch.equal(random.get_state(), generator(0).get_state())


def test_every_image_is_shifted_and_flipped_on_its_own() -> None:
    picture = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    augmented = random_crop_flip(picture.expand(400, -1, -1, -1), 1, True, generator(1))
    versions = Counter(tuple(image) for image in augmented.flatten(1).tolist())
    assert len(versions) == 3 * 3 * 2
    assert min(versions.values()) > 400 / 18 / 3


def test_augmentation_is_differentiated_right() -> None:
    images = torch.rand(3, 2, 4, 5, dtype=torch.float64, generator=generator(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: random_crop_flip(x, 2, True, generator(3)), images)


def test_gradients_go_back_to_the_pixels_that_were_kept() -> None:
    images = torch.rand(5, 1, 4, 4, generator=generator(4)).requires_grad_()
    torch.autograd.backward(random_crop_flip(images, 1, True, generator(5)).sum())
    ids = torch.arange(1.0, 81.0).view(5, 1, 4, 4)
    kept = torch.isin(ids, by_loop(ids, 1, True, generator(5)))
    assert images.grad is not None
    assert torch.equal(images.grad, kept.float())


def test_normalize_standardises_each_channel() -> None:
    images = torch.rand(2, 3, 2, 2, generator=generator(6))
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    normalize = Normalize(mean, std, torch.device("cpu"))
    shape = (1, 3, 1, 1)
    array = images.double().numpy()
    expected = (array - torch.tensor(mean).double().view(shape).numpy()) / torch.tensor(std).double().view(
        shape
    ).numpy()
    close(normalize(images), expected, rtol=1e-4)


def test_normalize_reads_uint8_as_shares_of_255() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    normalized = Normalize((0.2,), (0.5,), torch.device("cpu"))(images)
    assert normalized.dtype == torch.float32
    close(normalized.flatten(), [-0.4, 0.0, 1.6])


@pytest.mark.parametrize(
    ("value", "stored"), [(0.0, 0), (1.0, 255), (0.5 / 255, 0), (0.6 / 255, 1), (0.499, 127), (-0.1, 0), (1.2, 255)]
)
def test_to_uint8_rounds_to_the_nearest_level(value: float, stored: int) -> None:
    assert to_uint8(torch.tensor([value])).tolist() == [stored]


def test_every_stored_level_survives_reading_and_storing() -> None:
    levels = torch.arange(256).to(torch.uint8).view(-1, 1, 1, 1)
    read = Normalize((0.0,), (1.0,), torch.device("cpu"))(levels)
    assert torch.equal(to_uint8(read), levels)
