"""Files that a user might hand over by mistake, or be handed by an enemy."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import build_teacher

SHIPPED_TEACHER = Path(DIGITS.teacher_weights)


class Evil:
    """Unpickling this makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def marker(folder: Path) -> Path:
    """What exists once a malicious file was executed."""
    return folder / "executed"


def missing(folder: Path) -> Path:
    return folder / "missing.safetensors"


def truncated(folder: Path) -> Path:
    path = folder / "truncated.safetensors"
    path.write_bytes(SHIPPED_TEACHER.read_bytes()[:5000])
    return path


def wrong_architecture(folder: Path) -> Path:
    save_weights(folder / "linear.safetensors", torch.nn.Linear(3, 4))
    return folder / "linear.safetensors"


def wrong_shape(folder: Path) -> Path:
    from dataclasses import replace

    narrow = replace(DIGITS, teacher_options={"channels": (4, 4, 4)})
    save_weights(folder / "narrow.safetensors", build_teacher(narrow, seed=0))
    return folder / "narrow.safetensors"


def not_finite(folder: Path) -> Path:
    network = build_teacher(DIGITS, seed=0)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = torch.nan
    save_weights(folder / "nan.safetensors", network)
    return folder / "nan.safetensors"


def malicious_pickle(folder: Path) -> Path:
    (folder / "evil.pt").write_bytes(pickle.dumps(Evil(marker(folder))))
    return folder / "evil.pt"


def malicious_torch_file(folder: Path) -> Path:
    torch.save({"state_dict": Evil(marker(folder))}, folder / "evil.pth")
    return folder / "evil.pth"


def malicious_safetensors(folder: Path) -> Path:
    (folder / "evil.safetensors").write_bytes(pickle.dumps(Evil(marker(folder))))
    return folder / "evil.safetensors"


def whole_module(folder: Path) -> Path:
    torch.save(torch.nn.Linear(1, 1), folder / "module.pt")
    return folder / "module.pt"


def text(folder: Path) -> Path:
    (folder / "teacher.pt").write_text("my teacher")
    return folder / "teacher.pt"


def a_folder(folder: Path) -> Path:
    (folder / "folder.safetensors").mkdir()
    return folder / "folder.safetensors"


#: Makers of a weights file that no teacher can be loaded from.
BAD_TEACHERS: tuple[Callable[[Path], Path], ...] = (
    missing,
    truncated,
    wrong_architecture,
    wrong_shape,
    not_finite,
    malicious_pickle,
    malicious_torch_file,
    malicious_safetensors,
    whole_module,
    text,
    a_folder,
)


def real_images(path: Path, count: int = 40, shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> Path:
    """Random images with labels, as .npz."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % classes)
    return path


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def pickled_array(path: Path) -> Path:
    objects = np.empty(1, dtype=object)
    objects[0] = Evil(marker(path.parent))
    np.savez(path, images=objects, labels=np.zeros(1, dtype=np.int64))
    return path


def not_an_archive(path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04 not really")
    return path


IMAGES = np.zeros((4, 1, 8, 8), dtype=np.uint8)
LABELS = np.zeros(4, dtype=np.int64)
#: What is wrong → maker of such a data file.
BAD_DATA: dict[str, Callable[[Path], Path]] = {
    "missing": lambda path: path,
    "not an archive": not_an_archive,
    "no labels": lambda path: _npz(path, images=IMAGES),
    "empty": lambda path: real_images(path, count=0),
    "one image without a batch": lambda path: _npz(path, images=IMAGES[0, 0], labels=LABELS),
    "wrong size": lambda path: real_images(path, shape=(1, 9, 9)),
    "wrong channels": lambda path: real_images(path, shape=(2, 8, 8)),
    "a class too many": lambda path: real_images(path, classes=11),
    "a negative class": lambda path: _npz(path, images=IMAGES, labels=LABELS - 1),
    "too few labels": lambda path: _npz(path, images=IMAGES, labels=LABELS[:3]),
    "one-hot labels": lambda path: _npz(path, images=IMAGES, labels=np.zeros((4, 10), dtype=np.int64)),
    "labels with a fraction": lambda path: _npz(path, images=IMAGES, labels=LABELS + 0.5),
    "images out of range": lambda path: _npz(path, images=IMAGES - 2.0, labels=LABELS),
    "NaN": lambda path: _npz(path, images=IMAGES * np.nan, labels=LABELS),
    "pickled": pickled_array,
}
