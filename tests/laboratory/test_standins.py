"""What stands in for torchvision, against independent calculations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from laboratory.standins import (
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    ToTensor,
    torchvision_modules,
)
from PIL import Image


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (6, 8, 3), dtype=np.uint8)  # no black, which is the margin's


def test_random_crop_takes_every_place_of_the_padded_image_equally_often(pixels: np.ndarray) -> None:
    torch.manual_seed(0)
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)))
    places = {padded[y : y + 5, x : x + 5].tobytes(): (y, x) for y in range(6) for x in range(8)}
    crop, image = RandomCrop(5, padding=2), Image.fromarray(pixels)
    drawn = [places[np.asarray(crop(image)).tobytes()] for _ in range(4800)]
    counts = np.array([drawn.count(place) for place in places.values()])
    assert len(places) == 48
    assert ((counts - 100) ** 2 / 100).sum() < 80  # χ² with 47 degrees of freedom: 1 in 500


def test_random_crop_of_the_whole_image_is_the_image(pixels: np.ndarray) -> None:
    square = pixels[:, :6]
    np.testing.assert_array_equal(np.asarray(RandomCrop(6)(Image.fromarray(square))), square)


def test_random_flip_mirrors_half_of_the_images(pixels: np.ndarray) -> None:
    torch.manual_seed(0)
    flip, image = RandomHorizontalFlip(), Image.fromarray(pixels)
    results = [np.asarray(flip(image)) for _ in range(400)]
    mirrored = [bool((result == pixels[:, ::-1]).all()) for result in results]
    assert all(m or bool((result == pixels).all()) for m, result in zip(mirrored, results, strict=True))
    assert 160 < sum(mirrored) < 240
    np.testing.assert_array_equal(np.asarray(RandomHorizontalFlip(1.0)(image)), pixels[:, ::-1])


def test_tensor_and_normalisation(pixels: np.ndarray) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    tensor = ToTensor()(Image.fromarray(pixels))
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    expected = pixels.astype(np.float64).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6)
    normalised = Compose([ToTensor(), Normalize(mean, std)])(Image.fromarray(pixels))
    shape = (3, 1, 1)
    np.testing.assert_allclose(
        normalised.numpy(), (expected - np.reshape(mean, shape)) / np.reshape(std, shape), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6, err_msg="the input was changed")


def test_modules_hold_each_other_as_in_torchvision() -> None:
    modules = torchvision_modules()
    assert set(modules) == {f"torchvision{part}" for part in ("", ".transforms", ".datasets", ".models")}
    assert modules["torchvision"].transforms is modules["torchvision.transforms"]
    assert modules["torchvision.transforms"].Compose is Compose
    assert all(module.__spec__ is not None for module in modules.values())  # importlib.util.find_spec wants one
