"""What weights and archives of a stranger may hold, and cards of teachers."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from laboratory.specimens import (
    DEEP,
    ESCAPES,
    HUGE,
    SAFETENSORS,
    STRANGER,
    Hostile,
    Make,
    Specimen,
    holding,
    out,
    pipe,
    zipped,
)
from ssdkd_env.tasks.digits import DIGITS

#: How old files of PyTorch begin.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


def of_arrays() -> Iterator[Specimen]:
    """All of them."""
    for table in (_archives, _cards, _weights):
        yield from table()


def _archives() -> Iterator[Specimen]:
    """Archives of Stable-Baselines3."""

    def export(path: Path) -> list[str]:
        return ["export", "--sampler", str(path), "--algo", "ppo", *out(path.parent)]

    entries = {
        "a call in policy.pth": {"policy.pth": pickle.dumps(Hostile())},
        "zeros, 800 MB of them": {"policy.pth": bytes(800_000_000)},
        "no policy": {"data": b"{}"},
    }
    for holds, content in entries.items():

        def make(runs: Mapping[str, Path], folder: Path, content: Mapping[str, bytes] = content) -> list[str]:
            (folder / "a.zip").write_bytes(zipped(content))
            return export(folder / "a.zip")

        yield Specimen("archive", holds, make)


def _teacher(path: Path) -> list[str]:
    return ["distill", "--teacher", str(path), "--budget.rounds", "1", *out(path.parent)]


def _cards() -> Iterator[Specimen]:
    """Cards beside a teacher's weights."""
    sound = {"arch": DIGITS.teacher_arch, "options": dict(DIGITS.teacher_options)}
    for holds, card in {
        "nesting without end": None,
        "a list": [1],
        "an import path as network": sound | {"arch": STRANGER},
        "an object as network": sound | {"arch": {"a": 1}},
        "escapes as network": sound | {"arch": ESCAPES},
        "a network of a billion channels": sound | {"options": {"channels": [HUGE, HUGE, HUGE]}},
        "an unknown option": sound | {"options": {"stranger": 1}},
        "text as an option": sound | {"options": {"channels": "many"}},
        "text as options": sound | {"options": "many"},
        "no number as mean": sound | {"normalization": {"mean": [math.nan], "std": [1.0]}},
        "text as classes": sound | {"num_classes": "ten"},
    }.items():
        content = (DEEP if card is None else json.dumps(card)).encode()
        yield Specimen("teacher's card", holds, holding("t.json", content, _beside_weights))
    yield Specimen("teacher's card", "a named pipe", pipe("t.json", _beside_weights))


def _beside_weights(card: Path) -> list[str]:
    shutil.copy(DIGITS.teacher_weights, card.with_suffix(".safetensors"))
    return _teacher(card.with_suffix(".safetensors"))


def _weights() -> Iterator[Specimen]:
    """A teacher's weights."""
    for holds, content in list(SAFETENSORS.items())[:2]:
        yield Specimen("weights", holds, holding("t.safetensors", content, _teacher))
    yield Specimen("weights", "a named pipe", pipe("t.safetensors", _teacher))
    yield Specimen("weights", "a named pipe, of PyTorch's", pipe("t.pth", _teacher))
    yield Specimen("weights", "a call", holding("t.pth", pickle.dumps({"state_dict": Hostile()}), _teacher))
    yield Specimen("weights", "a call, in an old file", holding("t.pth", _LEGACY + pickle.dumps(Hostile()), _teacher))
    yield Specimen("weights", "800 MB of zeros, compressed", _torch_file(torch.zeros(200_000_000), compressed=True))
    yield Specimen("weights", "one number seen as 10^12", _torch_file(torch.zeros(1).expand(10**6, 10**6)))
    yield Specimen(
        "weights",
        "a sparse tensor of 10^12",
        _torch_file(torch.zeros(1, 1).to_sparse().sparse_resize_((10**6, 10**6), 2, 0)),
    )
    yield Specimen("weights", "escapes as a name", _torch_file(torch.zeros(1), name=ESCAPES))


def _torch_file(tensor: torch.Tensor, compressed: bool = False, name: str = "conv1.weight") -> Make:
    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        torch.save({name: tensor}, folder / "plain.pth")
        if compressed:
            with zipfile.ZipFile(folder / "plain.pth") as plain:
                (folder / "t.pth").write_bytes(zipped({entry: plain.read(entry) for entry in plain.namelist()}))
            (folder / "plain.pth").unlink()
        else:
            (folder / "plain.pth").rename(folder / "t.pth")
        return _teacher(folder / "t.pth")

    return make
