"""What a command says of a teacher before it begins: what it took from where, how good it is, what is odd about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssdkd_env.envs.settings import EnvSettings
from ssdkd_env.reading import printable, read_json
from ssdkd_env.tasks import Task
from ssdkd_env.tasks.fitness import oddities
from ssdkd_env.tasks.registry import TASKS
from ssdkd_env.tasks.scores import real_scores

#: A teacher whose score is so far below its card's is not what the card describes.
_FAR_BELOW = 0.05
#: What scores are called; see `tasks.scores.real_scores`.
_CALLED = {"top1": "accuracy", "mean_iou": "mean IoU"}


def introduce(task: Task, settings: EnvSettings, device: torch.device) -> list[str]:
    """Lines about the teacher; those that begin with `warning: ` need a look.

    Args:
        task: with its teacher.
        settings: by which it was loaded.
        device: to measure on.
    """
    spec = task.spec
    card = _card(settings.teacher)
    weights = Path(spec.teacher_weights).name if settings.teacher is None else settings.teacher
    numbers = ", ".join(f"{name} {' '.join(f'{value:g}' for value in getattr(spec, name))}" for name in ("mean", "std"))
    lines = [f"teacher: {weights} ({spec.teacher_arch}); inputs normalised with {numbers}, {_source(settings, card)}"]
    data = task.evaluation(device)
    if data is not None:
        score, value = next(iter(real_scores(task.teacher_on(device), data, spec).items()))
        lines.append(f"its {_CALLED[score]} on real images: {value:.4f}")
        claimed = _claimed(card, score)
        if claimed is not None and value < claimed - _FAR_BELOW:
            lines.append(
                f"warning: its card says {claimed:.4f}: is it the right file, is this its data, and were its inputs "
                "normalised so? --mean and --std say otherwise"
            )
    own = TASKS.find(settings.task)
    lines += [f"warning: {said}" for said in oddities(task.teacher_on(torch.device("cpu")), spec, own.std)]
    return [printable(line) for line in lines]


def _card(teacher: str | None) -> dict[str, Any]:
    path = None if teacher is None else Path(teacher).with_suffix(".json")
    return read_json(path) if path is not None and path.is_file() else {}  # an object, or the task was not loaded


def _source(settings: EnvSettings, card: dict[str, Any]) -> str:
    if settings.mean is not None or settings.std is not None:
        return "as given"
    if settings.teacher is None or "normalization" not in card:
        return "as the task has it" + (
            "" if settings.teacher is None else "; was it trained so? else give --mean and --std"
        )
    return "as its card says"


def _claimed(card: dict[str, Any], score: str) -> float | None:
    said = card.get(score)
    value = said.get("test", said.get("evaluation")) if isinstance(said, dict) else None
    return float(value) if isinstance(value, int | float) else None
