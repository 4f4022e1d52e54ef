"""What samplers did in the course of an episode, read from result lines in the units of the sampling plan.

Time is counted in rounds; where agents divide the work, of which unlike rounds take unlike shares, it is the share that
is spent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ssdkd_agents.analysis.results import Result, instance_of, is_paper, rows_of
from ssdkd_agents.environments import make_env
from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.actions import ACTION_SCHEMES, ActionScheme
from ssdkd_env.envs.exponent_actions import RangedScheme
from ssdkd_env.envs.work_actions import WORK_RANGES
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.instances import differing

Values = NDArray[np.float64]
#: What time is counted in.
ROUND, SPENT = "round", "share of the work"
#: Shares of the work at which an episode is looked at.
SHARES: Values = np.linspace(0.0, 0.98, 50)


@dataclass(frozen=True)
class Range:
    """Of a part of the action: lowest and highest value that it can say, and the paper's."""

    low: float
    high: float
    paper: float


@dataclass(frozen=True)
class NumberTrace:
    """What a row of samplers did with an action of numbers.

    Attributes:
        values: part → (episodes, times) float64 in the plan's units; NaN after an episode's end.
        ranges: part → its range, as a mean over episodes.
        note: what the numbers leave out, such as first in, first out.
        times: (times,) float64: rounds from 1, or shares of the work from 0.
        axis: which of the two.
    """

    values: Mapping[str, Values]
    ranges: Mapping[str, Range]
    note: str
    times: Values
    axis: str = ROUND


@dataclass(frozen=True)
class ChoiceTrace:
    """What a row of samplers did with a discrete action.

    Attributes:
        shares: choice → (rounds,) share of the episodes that make it; choices that are never made are left out.
        names: all choices.
        note: as in `NumberTrace`.
    """

    shares: Mapping[str, Values]
    names: tuple[str, ...]
    note: str


Trace = NumberTrace | ChoiceTrace


def read_traces(results: Sequence[Result], samplers: Sequence[str], by: str | None = None) -> dict[str, Trace]:
    """What the rows of results did. The paper's sampler is in the ranges; it is a row only where it is the only one.

    Args:
        results: lines of `ssdkd evaluate` or `ssdkd benchmark`.
        samplers: rows to read, by label, group or sampler; none reads all.
        by: what instances differ in, such as `"buffer_scale"`: a row for each of its values in place of one.

    Raises:
        InvalidInputError: when there is no such row, a line is not of the environment that it names, or its instances
            do not differ in `by`.
    """
    rows = rows_of(results)
    unknown = [name for name in samplers if name not in rows]
    if unknown:
        raise InvalidInputError(f"samplers={unknown[0]!r} is not in the results; choose from: {', '.join(rows)}")
    chosen = {name: rows[name] for name in samplers or rows}
    others = {name: lines for name, lines in chosen.items() if not is_paper(lines[0])}
    read = others or chosen
    if by is not None:
        read = {name: part for row, lines in read.items() for name, part in _split(row, lines, by)}
    return {name: _trace(name, lines) for name, lines in read.items()}


def _split(row: str, lines: Sequence[Result], by: str) -> list[tuple[str, list[Result]]]:
    """Lines of a row by what instances differ in, in the order of its values, with a name for each."""
    parts: dict[Any, list[Result]] = {}
    for line in lines:
        members = _env_of(line).instances.members
        if by not in (names := differing(members)):
            raise InvalidInputError(
                f"by={by!r}: the instances of {row!r} do not differ in it; "
                + (f"choose among: {', '.join(names)}" if names else "give results of --env.instances")
            )
        parts.setdefault(members[_number_of(line)].settings.get(by), []).append(line)
    ordered = sorted(parts, key=lambda value: (value is not None, value))
    return [(f"{row}, {by} {_in_words(by, value)}", parts[value]) for value in ordered]


def _in_words(by: str, value: Any) -> str:
    if value is None:
        return "of the task"
    return Path(value).stem if by == "teacher" else str(value)


def _trace(row: str, lines: Sequence[Result]) -> Trace:
    if not all(line["actions"] for line in lines):
        raise InvalidInputError(f"{row}: an episode has no actions; give results of ssdkd evaluate or ssdkd benchmark")
    schemes = [_scheme_of(line) for line in lines]
    if len({(type(scheme), scheme.names) for scheme in schemes}) > 1:
        raise InvalidInputError(f"{row}: its episodes have different action schemes; evaluate them with one of them")
    try:
        said = [_say_by_round(scheme, line) for scheme, line in zip(schemes, lines, strict=True)]
    except (InvalidInputError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InvalidInputError(
            f"{row}: an action is none of the environment that its line names ({error}); give results of this version"
        ) from error
    note = _note([written for line in lines for written in line["actions"]])
    names = schemes[0].names
    if WORK_RANGES.keys() <= set(names) and all("progress" in line.get("curve", {}) for line in lines):
        times, axis = SHARES, SPENT
        padded = np.stack([_at_shares(row, line, episode) for line, episode in zip(lines, said, strict=True)])
    else:
        times, axis = np.arange(1.0, 1 + max(len(episode) for episode in said)), ROUND
        padded = np.full((len(said), len(times), len(names)), np.nan)
        for index, episode in enumerate(said):
            padded[index, : len(episode)] = episode
    if isinstance(schemes[0].space, spaces.Discrete):
        shares = np.nanmean(padded, axis=0).T
        return ChoiceTrace({name: share for name, share in zip(names, shares, strict=True) if share.any()}, names, note)
    limits = np.mean([_limits(scheme) for scheme in schemes], axis=0)
    ranges = {name: Range(*limit) for name, limit in zip(names, limits.T.tolist(), strict=True)}
    return NumberTrace({name: padded[:, :, part] for part, name in enumerate(names)}, ranges, note, times, axis)


def _at_shares(row: str, line: Result, said: list[list[float]]) -> Values:
    """(times, parts): what is done in the round that each share of the work falls into."""
    begun = line["curve"]["progress"][:-1]  # the rest is the end
    held = int(line["env_kwargs"].get("rounds_per_step", 1))
    if len(begun) * held < len(said):
        raise InvalidInputError(f"{row}: a curve is shorter than its episode; give results of ssdkd evaluate")
    under_way = np.maximum(np.searchsorted(begun, SHARES, side="right") - 1, 0)
    looked_at: Values = np.array(said)[np.minimum(under_way * held, len(said) - 1)]
    if line["final"].get("diverged"):
        looked_at[line["curve"]["progress"][-1] <= SHARES] = np.nan
    return looked_at


def _say_by_round(scheme: ActionScheme, line: Result) -> list[list[float]]:
    """What an episode did in each of its rounds, of which several may follow one action."""
    held = int(line["env_kwargs"].get("rounds_per_step", 1))
    said = [_say(scheme, written) for written in line["actions"]]
    return said if held == 1 else [said[index // held] for index in range(line["final"]["round"])]


def _say(scheme: ActionScheme, written: Any) -> list[float]:
    """A written decision in the plan's units, part by part; one-hot of a choice. See `samplers.write_decision`."""
    action = written["action"] if isinstance(written, dict) else written
    if not isinstance(scheme, RangedScheme):
        return [float(value) for value in scheme.observed(np.int64(action))]
    values = scheme.values(action)
    if isinstance(written, dict) and not written["scored"]:  # a scorer's numbers are the action's
        top = scheme.values(np.ones(len(scheme.names)))
        said = [name for name in scheme.names if name not in WORK_RANGES]  # of steps the action says the factor
        plan = {name: written[name] for name in said if written.get(name) is not None}
        # A plan may allow more than all the candidates; they are the most that is ever replaced.
        values |= plan | {name: min(plan[name], top[name]) for name in plan if name == "replaced_share"}
    return list(values.values())


def _limits(scheme: ActionScheme) -> Values:
    """(3, parts): lowest, highest and the paper's values."""
    assert isinstance(scheme, RangedScheme)
    ends = np.ones(len(scheme.names))
    said = [scheme.values(action) for action in (-ends, ends, scheme.from_plan(SamplingPlan()))]
    return np.array([list(values.values()) for values in said])


def _note(written: Sequence[Any]) -> str:
    """What all the plans say that is no number."""
    plans = [decision for decision in written if isinstance(decision, dict)]
    if not plans or len(plans) < len(written):
        return ""
    replacements = {plan.get("replacement", "priority") for plan in plans} - {"priority"}
    notes = [f"replaces {'/'.join(sorted(replacements))}"] if replacements else []
    return ", ".join(notes + ["reweighted"] * all(plan.get("reweighted", False) for plan in plans))


def _scheme_of(line: Result) -> ActionScheme:
    """The action scheme of an episode; the instance that was drawn sets the range of ρ."""
    return _make_scheme(_env_of(line), _number_of(line))


def _number_of(line: Result) -> int:
    """Of the instance that was drawn.

    Raises:
        InvalidInputError: when the set has fewer.
    """
    number, known = instance_of(line) or 0, len(_env_of(line).instances)
    if number >= known:
        raise InvalidInputError(f"instance={number} is none of the {known} that the line's set has")
    return number


@lru_cache(maxsize=64)
def _make_scheme(env: SSDKDEnv, instance: int) -> ActionScheme:
    spec = env.instances.tasks[instance].spec
    return ACTION_SCHEMES.find(env.face["action"])(spec.budget, env.method, spec.num_classes)


def _env_of(line: Result) -> SSDKDEnv:
    return _make_env(line["env_id"], json.dumps(line["env_kwargs"]))


@lru_cache(maxsize=8)
def _make_env(env_id: str, env_kwargs: str) -> SSDKDEnv:
    return make_env(env_id, json.loads(env_kwargs))
