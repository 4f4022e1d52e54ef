"""Images out of a teacher, in a file for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import SyntheticImages
from ssdkd_env.tasks.synthetic_images import label_dtype, save_images

CARD = {"task": "mine", "num_classes": 3, "normalization": {"mean": [0.5, 0.25], "std": [0.5, 2.0]}}


def tensors(dense: bool = False) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 2, 4, 6), generator=random, dtype=torch.uint8)
    logits = torch.randn(5, 3, *((4, 6) if dense else ()), generator=random)
    return {"images": images, "rounds": torch.arange(-1, 4), "logits": logits, "labels": logits.argmax(dim=1)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_images(tmp_path / "images.safetensors", **tensors(), card=CARD)
    return tmp_path / "images.safetensors"


def test_entries_are_normalised_images_labels_and_logits(file: Path) -> None:
    expected, data = tensors(), SyntheticImages(file)
    assert len(data) == 5 and data.card == CARD and (data.mean, data.std) == ((0.5, 0.25), (0.5, 2.0))
    image, label, logits = data[3]
    by_hand = expected["images"][3] / 255 - torch.tensor([0.5, 0.25])[:, None, None]
    by_hand /= torch.tensor([0.5, 2.0])[:, None, None]
    torch.testing.assert_close(image, by_hand)
    assert image.dtype == torch.float32 and label.dtype == torch.int64
    assert label == expected["labels"][3]
    torch.testing.assert_close(logits, expected["logits"][3], rtol=0, atol=0)
    assert torch.equal(data.images, expected["images"]) and data.rounds.tolist() == [-1, 0, 1, 2, 3]


def test_batches_come_out_of_a_data_loader(file: Path) -> None:
    images, labels, logits = next(iter(DataLoader(SyntheticImages(file), batch_size=4)))
    assert (images.shape, labels.shape, logits.shape) == ((4, 2, 4, 6), (4,), (4, 3))


def test_augmentation_comes_before_normalisation(file: Path) -> None:
    mirrored = SyntheticImages(file, transform=lambda image: image.flip(-1))
    torch.testing.assert_close(mirrored[0][0], SyntheticImages(file)[0][0].flip(-1))


@pytest.mark.parametrize("dtype", [torch.float16, None])
def test_dense_answers_are_maps_and_logits_may_be_left_out(dtype: torch.dtype | None, tmp_path: Path) -> None:
    given = tensors(dense=True)
    logits = given.pop("logits")
    save_images(tmp_path / "i.safetensors", **given, logits=None if dtype is None else logits.to(dtype), card=CARD)
    data = SyntheticImages(tmp_path / "i.safetensors")
    assert data[0][1].shape == (4, 6) and data.labels.dtype == torch.uint8
    assert len(data[0]) == (2 if dtype is None else 3)
    if dtype is not None:
        assert data.logits is not None and data.logits.dtype == dtype and data[0][2].dtype == torch.float32
        torch.testing.assert_close(data[0][2], logits[0], rtol=1e-3, atol=1e-3)


def test_any_tool_reads_the_file(file: Path) -> None:
    """Without a line of this project."""
    read = load_file(file)
    assert {name: (tuple(t.shape), t.dtype) for name, t in read.items()} == {
        "images": ((5, 2, 4, 6), torch.uint8),
        "labels": ((5,), torch.uint8),
        "rounds": ((5,), torch.int32),
        "logits": ((5, 3), torch.float32),
    }


def test_labels_of_many_classes_fit() -> None:
    assert (label_dtype(256), label_dtype(257)) == (torch.uint8, torch.int32)


def written(path: Path, card: Any, **changes: torch.Tensor | None) -> Path:
    """A sound file but for this."""
    sound: dict[str, Any] = tensors() | {"labels": tensors()["labels"].to(torch.uint8), "rounds": torch.zeros(5).int()}
    content = {name: value for name, value in (sound | changes).items() if value is not None}
    save_file(content, path, {"card": card if isinstance(card, str) else json.dumps(card)})
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": None}, "has no labels"),
        ({"images": torch.zeros(5, 2, 4, 6)}, "images are torch.float32"),
        ({"images": torch.zeros(5, 4, 6, dtype=torch.uint8)}, r"images are \(5, 4, 6\), expected \(N, C, H, W\)"),
        ({"labels": torch.zeros(4, dtype=torch.uint8)}, r"labels are \(4,\), expected \(5,\)"),
        ({"labels": torch.full((5,), 3, dtype=torch.uint8)}, "labels are no numbers of 3 classes"),
        ({"labels": torch.full((5,), -1).int()}, "labels are no numbers of 3 classes"),
        ({"logits": torch.zeros(5, 4)}, r"logits are \(5, 4\), expected \(5, 3\)"),
        ({"logits": torch.full((5, 3), torch.nan)}, "logits are not all finite"),
        ({"rounds": torch.zeros(5)}, "rounds are torch.float32"),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "i.safetensors", CARD, **changes)
    with pytest.raises(InvalidInputError, match=f"i.safetensors.*{said}.*give a file that ssdkd distill --keep-images"):
        SyntheticImages(path)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({}, "it lacks"),
        ("{", "card is not valid JSON"),
        ([], "expected"),
        (CARD | {"num_classes": 0}, "num_classes"),
        (CARD | {"normalization": {"mean": [0.5], "std": [1.0]}}, "mean=.*expected 2 finite numbers"),
        (CARD | {"normalization": {"mean": [0.5, 0.5], "std": [0.0, 1.0]}}, "std=.*above 0"),
        (CARD | {"more": "x" * 20_000}, "more in it than any setting has"),
    ],
)
def test_card_that_does_not_fit_is_refused(card: Any, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "i.safetensors", card)
    with pytest.raises(InvalidInputError, match=f"i.safetensors.*{said}"):
        SyntheticImages(path)


def test_what_is_no_such_file_is_refused(file: Path, tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:-20])
    (tmp_path / "text.safetensors").write_text("images")
    for name in ("none", "half", "text", "weights"):
        with pytest.raises(InvalidInputError, match=f"{name}.safetensors"):
            SyntheticImages(tmp_path / f"{name}.safetensors")
    with pytest.raises(InvalidInputError, match="a folder"):
        SyntheticImages(tmp_path)
