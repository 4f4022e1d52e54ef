"""The JSON card beside weights: which network they are of, and what their input was normalised with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.registry import NETWORKS, build_network
from ssdkd_env.reading import MOST_NUMBER, Count, Text, check_bounds, conform, read_json
from ssdkd_env.tasks.normalization import check_normalization
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


def with_card(spec: TaskSpec, teacher: str, teacher_arch: str | None) -> TaskSpec:
    """The spec with the network that the user names, and what the card beside a weights file says, if there is one.

    Args:
        spec: the task.
        teacher: the weights file; its card has the same name with `.json`.
        teacher_arch: the user's network; the card's options are used where it is the card's.

    Raises:
        InvalidInputError: when the card cannot be read, or is of a teacher for other images or classes.
    """
    path = Path(teacher).with_suffix(".json")
    changes: dict[str, Any] = {}
    if teacher_arch is not None:
        changes |= {"teacher_arch": teacher_arch, "teacher_options": {}}
    if not path.exists():
        return replace(spec, **changes)
    card: Any = read_json(path)
    conform(card, Card, f"{path} is no teacher's card", "remove it, or train the teacher again")
    for name, expected in (("num_classes", spec.num_classes), ("image_shape", list(spec.image_shape))):
        if card.get(name, expected) != expected:
            raise InvalidInputError(
                f"teacher={teacher!r} was trained with {name} {card[name]}, task {spec.name!r} has {expected}; "
                "choose the task of its data, or another teacher"
            )
    options, normalization = card.get("options", {}), card.get("normalization", {})
    arch = card.get("arch")
    if arch is not None and (teacher_arch is None or (teacher_arch == arch and arch in NETWORKS)):
        if arch not in NETWORKS:  # never an import path: a card may come from someone else
            raise InvalidInputError(
                f"{path} names the network {arch!r}, which is none of this package; give teacher_arch="
            )
        check_bounds(options, path, MOST_NUMBER)
        _check_size(path, arch, options, Path(teacher), spec)
        changes |= {"teacher_arch": arch, "teacher_options": options}
    for name in ("mean", "std"):
        if name in normalization:
            changes[name] = _of_card(path, name, normalization[name], spec)
    return replace(spec, **changes)


def describe(weights: str, network: nn.Module, arch: str, options: Mapping[str, Any], spec: TaskSpec) -> dict[str, Any]:
    """What every card says, as JSON values: enough to read the weights back as a teacher.

    Args:
        weights: name of the file beside the card.
        network: that the weights are of.
        arch: its name, or import path.
        options: its keyword arguments.
        spec: of its task.
    """
    return {
        "weights": weights,
        "task": spec.name,
        "arch": arch,
        "options": dict(options),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "num_classes": spec.num_classes,
        "image_shape": spec.image_shape,
        "normalization": {"mean": spec.mean, "std": spec.std},
    }


def _check_size(path: Path, arch: str, options: dict[str, Any], weights: Path, spec: TaskSpec) -> None:
    """Refuse a network of ours that has many times the numbers of the weights beside it, before it takes memory.

    Raises:
        InvalidInputError: when it does, or the network refuses its options.
    """
    if not NETWORKS.is_ours(arch) or not weights.is_file():
        return
    network = build_network("teacher_arch", arch, {**classifier_options(spec), **options}, seed=0, device="meta")
    needed, found = sum(part.nbytes for part in network.state_dict().values()), weights.stat().st_size
    if needed > _MOST_TIMES * found:  # compressed and half-precision weights have fewer bytes, never so few
        raise InvalidInputError(
            f"{path} describes a network of {needed:,} bytes, and {weights} has {found:,}; they do not belong together"
        )


def _of_card(path: Path, name: str, values: Any, spec: TaskSpec) -> tuple[float, ...]:
    try:
        return check_normalization(name, values, spec.image_shape[0])
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: normalization {error}; train the teacher again, or mend its card") from error
