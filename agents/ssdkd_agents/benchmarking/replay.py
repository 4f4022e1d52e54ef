"""Replaying result lines: the same actions, or the same baseline, must give the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssdkd_agents.analysis.results import Result
from ssdkd_agents.benchmarking.experiments import CURVE_SECONDS, EpisodeConfig, ResumableEpisode
from ssdkd_agents.machine import machine
from ssdkd_agents.runs import versions
from ssdkd_agents.samplers import SAMPLERS, FloatArray, State, family_of, read_decision
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.distillation import Action
from ssdkd_env.errors import InvalidInputError

#: What of a line is compared, in this order: the curve first, because it tells in which step two episodes part.
COMPARED = (
    "curve",
    "actions",
    "return",
    "final",
    "held_out_accuracy",
    "distributions",
    "buffer_images",
)
#: Without any of these equal, floating-point sums may come in another order.
MACHINE_KEYS = ("cpu", "device", "torch_threads")


@dataclass(frozen=True)
class Replayed:
    """How a line compares with its replay.

    Attributes:
        source: `"trace"` or `"sampler"`: where the actions came from.
        value: the replay's return.
        difference: the first number that differs, in words; empty where none does.
        exact: whether bit-identical numbers were asked for.
        reasons: what is other here than where the line was made; numbers are bit-identical only without any.
    """

    source: str
    value: float
    difference: str
    exact: bool
    reasons: tuple[str, ...]


class TraceSampler:
    """Gives the actions of a trace, one a step.

    Args:
        actions: as in a result line; see `samplers.write_decision`.
    """

    def __init__(self, actions: list[Any]) -> None:
        self._left = list(actions)

    def predict(
        self,
        observation: FloatArray,
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, State]:
        """The next action, whatever is observed."""
        written = self._left[0]
        return np.array(written["action"] if isinstance(written, dict) else written), state

    def plan_for(self, env: SSDKDEnv, action: Any) -> Action:
        """What was decided in this step."""
        return read_decision(env, self._left.pop(0))


def is_baseline(line: Result) -> bool:
    """Whether the sampler needs no file, so that it can be asked again by its name."""
    name = str(line["sampler"])
    if "sampler_digest" in line:
        return line["sampler_digest"] is None and "/" not in name  # not a baseline that is made of a trained sampler
    return name in SAMPLERS or family_of(name) is not None


def replay(line: Result, source: str, tolerance: float) -> Replayed:
    """Play a line's episode again, with as many torch threads as it had, and compare.

    Args:
        line: a result line.
        source: `"trace"` takes the actions from the line, `"sampler"` from the baseline by its name.
        tolerance: |a − b| ≤ tolerance · max(1, |a|, |b|) counts as equal where bit-identity is not promised: where
            machine, PyTorch or way of stepping are not those of the line.

    Raises:
        InvalidInputError: when the episode cannot be played here.
    """
    # What was chosen there, whatever this machine would choose; lines that do not say are older than the choice.
    chosen = {"precision": line["precision"]["name"]} if "precision" in line else {}
    kwargs = {"precision": "float32"} | line["env_kwargs"] | chosen
    config = EpisodeConfig(line["env_id"], line["sampler"], line["seed"], kwargs, line.get("instance"))
    threads = torch.get_num_threads()
    torch.set_num_threads(line.get("machine", {}).get("torch_threads", threads))
    try:
        episode = ResumableEpisode(config, TraceSampler(line["actions"]) if source == "trace" else None)
        reasons = other_conditions(line, machine(episode.device))
        episode.start()
        while not episode.finished and len(episode.trace.actions) < len(line["actions"]):
            episode.advance()
        if not episode.finished:
            ends = f"the episode goes on after the {len(line['actions'])} steps of the line"
            return Replayed(source, sum(episode.trace.rewards), ends, not reasons, reasons)
        result = episode.result()
    finally:
        torch.set_num_threads(threads)
    difference = first_difference(line, result, tolerance if reasons else 0.0)
    return Replayed(source, result["return"], difference, not reasons, reasons)


def other_conditions(line: Result, here: Mapping[str, Any]) -> tuple[str, ...]:
    """Why numbers need not be bit-identical: what of machine, PyTorch and stepping is not as it was."""
    there, torch_there = line.get("machine", {}), line.get("versions", {}).get("torch")
    reasons = [f"{key} {there.get(key)!r}, here {here[key]!r}" for key in MACHINE_KEYS if there.get(key) != here[key]]
    if torch_there != versions()["torch"]:
        reasons.append(f"torch {torch_there}, here {versions()['torch']}")
    if line.get("vectorization", "loop") not in ("loop", "process"):
        reasons.append(f"stepped {line['vectorization']}, which rounds otherwise than an episode alone")
    return tuple(reasons)


def other_versions(line: Result) -> str:
    """What else is of another version than here, in words; it must not change numbers, but may."""
    there = line.get("versions", {})
    changed = {name: now for name, now in versions().items() if there.get(name, now) != now}
    return ", ".join(f"{name} {there[name]}, here {now}" for name, now in changed.items())


def first_difference(line: Result, again: Result, tolerance: float) -> str:
    """The first number of the line that the replay has not, in words; empty where there is none."""
    for name in COMPARED:
        if name in line:
            found = _difference(name, line[name], again.get(name), tolerance)
            if found:
                return found
    return ""


def _difference(name: str, there: Any, here: Any, tolerance: float) -> str:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        parts = [(f"{name}.{key}", there[key], here.get(key)) for key in there if key not in CURVE_SECONDS]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        parts = [(f"{name}[{index}]", a, b) for index, (a, b) in enumerate(zip(there, here, strict=True))]
    else:
        return "" if _equal(there, here, tolerance) else _said(name, there, here)
    return next(filter(None, (_difference(*part, tolerance) for part in parts)), "")


def _equal(there: Any, here: Any, tolerance: float) -> bool:
    if not (_is_number(there) and _is_number(here)):
        return bool(there == here)
    if there == here or (math.isnan(there) and math.isnan(here)):
        return True
    return bool(abs(there - here) <= tolerance * max(1.0, abs(there), abs(here)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(name: str, there: Any, here: Any) -> str:
    sizes = [f"a list of {len(value)}" if isinstance(value, list) else repr(value) for value in (there, here)]
    return f"{name}: {sizes[0]} in the line, {sizes[1]} here"


def check_replayable(line: Result, where: str, tolerance: float) -> None:
    """Refuse a line whose replay can only be compared within a tolerance when none is given.

    Raises:
        InvalidInputError: for an episode that was stepped in a group.
    """
    if line.get("vectorization", "loop") == "grouped" and tolerance == 0:
        raise InvalidInputError(
            f"{where} was stepped in a group, whose sums are rounded otherwise than those of an episode alone, so that "
            "bit-identity cannot be checked; give --tolerance, such as 0.05"
        )
