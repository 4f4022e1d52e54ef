"""The JSON card beside a teacher's weights: which network they are of, and what their input was normalised with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import read_json
from ssdkd_env.tasks.task import TaskSpec


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
    if not path.is_file():
        return spec
    card = read_json(path)
    if not isinstance(card, dict):
        raise InvalidInputError(f"{path} is no teacher's card; remove it, or train the teacher again")
    for name, expected in (("num_classes", spec.num_classes), ("image_shape", list(spec.image_shape))):
        if card.get(name, expected) != expected:
            raise InvalidInputError(
                f"teacher={teacher!r} was trained with {name} {card[name]}, task {spec.name!r} has {expected}; "
                "choose the task of its data, or another teacher"
            )
    changes: dict[str, Any] = {}
    if not own_arch and isinstance(card.get("arch"), str):
        changes |= {"teacher_arch": card["arch"], "teacher_options": dict(card.get("options", {}))}
    for name in ("mean", "std"):
        values = card.get("normalization", {}).get(name)
        if values is not None:
            changes[name] = _channels(path, name, values, spec)
    return replace(spec, **changes)


def _channels(path: Path, name: str, values: Any, spec: TaskSpec) -> tuple[float, ...]:
    """A mean or standard deviation of each channel."""
    numbers = isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)
    if not numbers or len(values) != spec.image_shape[0]:
        raise InvalidInputError(
            f"{path}: normalization {name!r} is {values!r}, expected {spec.image_shape[0]} numbers, one a channel"
        )
    return tuple(float(value) for value in values)
