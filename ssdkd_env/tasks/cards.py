"""The JSON card beside a teacher's weights: which network they are of, and what their input was normalised with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.registry import NETWORKS, build_network
from ssdkd_env.reading import MOST_NUMBER, Count, Text, check_bounds, conform, read_json
from ssdkd_env.settings import is_finite_number
from ssdkd_env.tasks.task import TaskSpec, classifier_options

#: Bytes of a network for a byte of its weights file, at most.
_MOST_TIMES = 20


class Card(TypedDict, total=False):
    """What a card says that is used."""

    num_classes: Count
    image_shape: list[Count]
    arch: Text
    options: dict[str, Any]
    normalization: dict[str, Any]


def with_card(spec: TaskSpec, teacher: str, own_arch: bool) -> TaskSpec:
    """The spec with what the card beside a weights file says; unchanged without a card.

    Args:
        spec: the task.
        teacher: the weights file; its card has the same name with `.json`.
        own_arch: the user names the network: the card's is not used.

    Raises:
        InvalidInputError: when the card cannot be read, or is of a teacher for other images or classes.
    """
    path = Path(teacher).with_suffix(".json")
    if not path.exists():
        return spec
    card: Any = read_json(path)
    conform(card, Card, f"{path} is no teacher's card", "remove it, or train the teacher again")
    for name, expected in (("num_classes", spec.num_classes), ("image_shape", list(spec.image_shape))):
        if card.get(name, expected) != expected:
            raise InvalidInputError(
                f"teacher={teacher!r} was trained with {name} {card[name]}, task {spec.name!r} has {expected}; "
                "choose the task of its data, or another teacher"
            )
    options, normalization = card.get("options", {}), card.get("normalization", {})
    changes: dict[str, Any] = {}
    if not own_arch and "arch" in card:
        if card["arch"] not in NETWORKS:  # never an import path: a card may come from someone else
            raise InvalidInputError(
                f"{path} names the network {card['arch']!r}, which is none of this package; give teacher_arch="
            )
        check_bounds(options, path, MOST_NUMBER)
        _check_size(path, card["arch"], options, Path(teacher), spec)
        changes |= {"teacher_arch": card["arch"], "teacher_options": options}
    for name in ("mean", "std"):
        if name in normalization:
            changes[name] = _channels(path, name, normalization[name], spec)
    return replace(spec, **changes)


def _check_size(path: Path, arch: str, options: dict[str, Any], weights: Path, spec: TaskSpec) -> None:
    """Refuse a network of ours that has many times the numbers of the weights beside it, before it takes memory.

    Raises:
        InvalidInputError: when it does, or the network refuses its options.
    """
    if not NETWORKS.is_ours(arch) or not weights.is_file():
        return
    with torch.device("meta"):
        network = build_network("teacher_arch", arch, {**classifier_options(spec), **options}, seed=0)
    needed, found = sum(part.nbytes for part in network.state_dict().values()), weights.stat().st_size
    if needed > _MOST_TIMES * found:  # compressed and half-precision weights have fewer bytes, never so few
        raise InvalidInputError(
            f"{path} describes a network of {needed:,} bytes, and {weights} has {found:,}; they do not belong together"
        )


def _channels(path: Path, name: str, values: Any, spec: TaskSpec) -> tuple[float, ...]:
    """A mean or standard deviation of each channel."""
    numbers = isinstance(values, list) and all(map(is_finite_number, values))
    if not numbers or len(values) != spec.image_shape[0] or (name == "std" and min(values) <= 0):
        expected = f"{spec.image_shape[0]} finite numbers{' above 0' if name == 'std' else ''}, one a channel"
        raise InvalidInputError(f"{path}: normalization {name!r} is {values!r}, expected {expected}")
    return tuple(float(value) for value in values)
