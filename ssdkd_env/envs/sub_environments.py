"""Many environments of equal arguments, stepped one by one, in processes or grouped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym

from ssdkd_env.envs.distillation import ResetResult, SSDKDEnv, StepResult
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.envs.members import LastingMembers, LocalMembers, Members, RemoteMembers
from ssdkd_env.envs.tuning import Choice, choose, choose_by_size
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.executors import Executor
from ssdkd_env.processes import Processes
from ssdkd_env.settings import check_seed, is_whole, plain

#: How steps are done: one environment after the other, the same in several processes, or equal work together.
BACKENDS = ("loop", "process", "grouped")


class SubEnvironments:
    """`count` environments behind one interface, whatever does their work.

    Member i gives what it would give alone: bit-identically on the CPU with `"loop"`, with `"process"` what it would
    give alone with one torch thread, and with `"grouped"` but for rounding.

    When a process of theirs dies, whatever needs its members raises `WorkerDied`, one line with its exit code and the
    remedy, and `close` ends the others. When this process ends, however it does, so do they.

    Args:
        count: how many.
        kwargs: arguments of each `SSDKDEnv`.
        backend: `"loop"` (the reference), `"process"` (several processes of one torch thread), `"grouped"` (students
            and generators as one grouped network), `"by_size"` (grouped where images are small, else in processes: a
            fixed rule, see `tuning.choose_by_size`), or `"auto"`, which tries and takes the fastest.
        processes: among which the members are divided; None is one, and as many as there are cores with `"process"`.
        executor: whose workers have the members, such as a cluster; None has them in processes of this machine. A
            worker of an executor that dies is replaced, and its members go on (`members.LastingMembers`).

    Attributes:
        first: an environment of the same arguments, for spaces and names.
        choice: backend and processes, and why.

    Raises:
        InvalidInputError: when an argument does not fit.
    """

    def __init__(
        self,
        count: int,
        kwargs: Mapping[str, Any],
        backend: str,
        processes: int | None,
        executor: Executor | None = None,
    ) -> None:
        check_backend(backend)
        count, processes = plain(count), plain(processes)
        if not is_whole(count) or count < 1:
            raise InvalidInputError(f"num_envs={count!r}: expected a whole number of at least 1")
        if processes is not None and not (is_whole(processes) and 1 <= processes <= count):
            raise InvalidInputError(f"processes={processes!r}: expected a whole number from 1 to num_envs={count}")
        self.count = count
        self.first = SSDKDEnv(**kwargs)
        if executor is None:
            self.choice = _decide(self.first, count, backend, processes)
        else:
            self.choice = _decide_elsewhere(self.first, count, backend, processes or min(executor.count, count))
        grouped = self.choice.backend == "grouped"
        sizes = [len(range(part, count, self.choice.processes)) for part in range(self.choice.processes)]
        self._parts: list[Members]
        if executor is not None:
            self._parts = [LastingMembers(kwargs, size, grouped, executor) for size in sizes]
        elif self.choice.processes == 1:
            self._parts = [LocalMembers(kwargs, count, grouped)]
        else:
            self._parts = [RemoteMembers(kwargs, size, grouped, Processes(len(sizes))) for size in sizes]

    def reset(
        self, seeds: Mapping[int, int | None], options: Mapping[int, dict[str, Any]] | None = None, alike: bool = False
    ) -> dict[int, ResetResult]:
        """Reset some members, with seeds by number; None goes on with the member's own random stream.

        Args:
            seeds: of each member that is reset.
            options: of the members that are to be given some; see `SSDKDEnv.reset`.
            alike: many members begin with one seed and instance, now or soon: a process then does its warm-up once.

        Raises:
            InvalidInputError: when a seed is out of range, or there is no instance that the options ask for; no member
                has been reset then.
        """
        seeds = {index: None if seed is None else check_seed("seed", seed) for index, seed in seeds.items()}
        given = {index: (options or {}).get(index) for index in seeds}
        for each in given.values():
            self.first.instances.wanted(each)
        method = "reset_alike" if alike else "reset"
        return self._ask(method, {index: {"seed": seed, "options": given[index]} for index, seed in seeds.items()})

    def step(self, actions: Mapping[int, FloatArray]) -> dict[int, StepResult]:
        """Step some members, with actions by number.

        Raises:
            InvalidInputError: when an action is unusable.
        """
        for action in actions.values():
            self.first.plan_of(action)  # before any process has moved
        return self._ask("step", actions)

    def call(self, indices: Sequence[int], name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """What a method of some members gives; an attribute gives itself."""
        results = self._ask("call", dict.fromkeys(indices, (name, args, kwargs)))
        return [results[index] for index in indices]

    def call_each(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """What a method of some members gives, each with arguments of its own, by number."""
        return self._ask("call", {index: (name, args, {}) for index, args in arguments.items()})

    def get(self, indices: Sequence[int], name: str) -> list[Any]:
        """An attribute of some members; from another process it comes as a copy."""
        results = self._ask("get", dict.fromkeys(indices, name))
        return [results[index] for index in indices]

    def has(self, indices: Sequence[int], name: str) -> bool:
        """Whether some members all have an attribute."""
        return all(self._ask("has", dict.fromkeys(indices, name)).values())

    def assign(self, values: Mapping[int, Any], name: str) -> None:
        """Set an attribute of some members."""
        self._ask("assign", {index: (name, value) for index, value in values.items()})

    def close(self) -> None:
        """End all members."""
        for part in self._parts:
            part.leave()  # all of them first: a process takes a second to end
        for part in self._parts:
            part.close()
        self._parts = []

    def _ask(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """Ask each part for its members, all at the same time. Member i is number i // parts of part i % parts."""
        parts = len(self._parts)
        if not parts:
            raise gym.error.ClosedEnvironmentError("the environments have been closed; make them again")
        questions: list[dict[int, Any]] = [{} for _ in range(parts)]
        for index, argument in arguments.items():
            questions[index % parts][index // parts] = argument
        asked = [part for part in range(parts) if questions[part]]
        for part in asked:
            self._parts[part].begin(method, questions[part])
        results: dict[int, Any] = {}
        errors: list[Exception] = []
        for part in asked:  # every answer is taken, even after an error
            try:
                results |= {number * parts + part: result for number, result in self._parts[part].end().items()}
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results


def check_backend(backend: str) -> str:
    """Return the name of a way of stepping many environments.

    Raises:
        InvalidInputError: when it is unknown.
    """
    return check_choice("vectorization", backend, (*BACKENDS, "by_size", "auto"))


def one_each(argument: str, values: Any, count: int) -> list[Any]:
    """The items of `values`, which has one for each environment.

    Raises:
        InvalidInputError: when it has not.
    """
    try:
        items = list(values)
    except TypeError:
        items = []
    if len(items) != count:
        shown = " ".join(repr(values).split())[:100]
        raise InvalidInputError(f"{argument}={shown}: expected {count} values, one for each environment")
    return items


def _decide(env: SSDKDEnv, count: int, backend: str, processes: int | None) -> Choice:
    cores = usable_cores()
    if backend == "by_size":
        return choose_by_size(env, count, cores, processes)
    if backend == "auto":
        return choose(env, count, cores, processes)
    default = min(cores, count) if backend == "process" else 1
    return Choice(backend, processes or default, "as asked for")


def _decide_elsewhere(env: SSDKDEnv, count: int, backend: str, workers: int) -> Choice:
    """What an executor's workers do with their members.

    Raises:
        InvalidInputError: when it is to be tried out here.
    """
    if backend == "auto":
        raise InvalidInputError(
            "vectorization='auto' tries what is fastest on this machine, not on a cluster; choose by_size, process or "
            "grouped"
        )
    if backend == "by_size":
        choice = choose_by_size(env, count, workers, workers)
        return replace(choice, backend="grouped" if choice.backend == "grouped" else "process")
    return Choice("grouped" if backend == "grouped" else "process", workers, "as asked for")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
