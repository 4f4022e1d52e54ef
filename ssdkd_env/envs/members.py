"""Environments of equal arguments in one process, and such processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs.distillation import ResetResult, SSDKDEnv, StepResult
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.processes import ProcessWorker

#: What to do when a process of environments has died.
REMEDY = (
    "Was there enough memory? Go on from what was saved (commands: --resume), or use fewer environments or "
    "vectorization='loop'"
)


class Members(Protocol):
    """Some environments. What is begun and not ended before something else is begun is lost."""

    def begin(self, method: str, arguments: Mapping[int, Any]) -> None:
        """Ask for a method of some members, such as `"reset"` or `"step"`: see `LocalMembers`."""
        ...

    def end(self) -> dict[int, Any]:
        """What each of them gave."""
        ...

    def leave(self) -> None:
        """Say that nothing more will be asked."""
        ...

    def close(self) -> None:
        """Free what they hold, after `leave`."""
        ...


class LocalMembers:
    """Environments in this process.

    Args:
        kwargs: arguments of each environment.
        count: how many.
        grouped: whether equal work of theirs is done together.
    """

    def __init__(self, kwargs: Mapping[str, Any], count: int, grouped: bool) -> None:
        self.envs = [SSDKDEnv(**kwargs) for _ in range(count)]
        self._runs = GroupedRuns() if grouped else None
        self._asked: tuple[str, Mapping[int, Any]] = "", {}

    def begin(self, method: str, arguments: Mapping[int, Any]) -> None:
        """Remember what is asked for; the work is done in `end`, while others do theirs."""
        self._asked = method, arguments

    def end(self) -> dict[int, Any]:
        """Do what was asked for."""
        method, arguments = self._asked
        done: dict[int, Any] = getattr(self, method)(arguments)
        return done

    def reset(self, arguments: Mapping[int, Mapping[str, Any]]) -> dict[int, ResetResult]:
        """Reset some members with the arguments of `SSDKDEnv.reset`."""
        return self._together({index: partial(self.envs[index].reset, **given) for index, given in arguments.items()})

    def step(self, actions: Mapping[int, FloatArray]) -> dict[int, StepResult]:
        """Step some members."""
        return self._together({index: partial(self.envs[index].step, action) for index, action in actions.items()})

    def _together(self, calls: Mapping[int, Callable[[], Any]]) -> dict[int, Any]:
        if self._runs is None:
            return {index: call() for index, call in calls.items()}
        return dict(zip(calls, self._runs.play(list(calls.values())), strict=True))

    def call(self, calls: Mapping[int, tuple[str, Sequence[Any], Mapping[str, Any]]]) -> dict[int, Any]:
        """What methods of some members give: name, arguments, keyword arguments. An attribute gives itself."""
        found = {index: getattr(self.envs[index], name) for index, (name, _, _) in calls.items()}
        return {
            index: found[index](*args, **kwargs) if callable(found[index]) else found[index]
            for index, (_, args, kwargs) in calls.items()
        }

    def get(self, names: Mapping[int, str]) -> dict[int, Any]:
        """Attributes of some members."""
        return {index: getattr(self.envs[index], name) for index, name in names.items()}

    def has(self, names: Mapping[int, str]) -> dict[int, bool]:
        """Whether some members have an attribute."""
        return {index: hasattr(self.envs[index], name) for index, name in names.items()}

    def assign(self, values: Mapping[int, tuple[str, Any]]) -> dict[int, Any]:
        """Set an attribute of some members."""
        for index, (name, value) in values.items():
            setattr(self.envs[index], name, value)
        return {}

    def leave(self) -> None:
        """Nothing: no process has to end."""

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()


class RemoteMembers(ProcessWorker):
    """Environments in a process of their own, with one torch thread.

    Args:
        kwargs, count, grouped: see `LocalMembers`.
    """

    def __init__(self, kwargs: Mapping[str, Any], count: int, grouped: bool) -> None:
        purpose = "of one environment" if count == 1 else f"of {count} environments"
        super().__init__(_Answers(dict(kwargs), count, grouped), purpose, REMEDY)

    def begin(self, method: str, arguments: Mapping[int, Any]) -> None:
        """Send the question."""
        self.ask((method, dict(arguments)))

    def end(self) -> dict[int, Any]:
        """Wait for the answer.

        Raises:
            WorkerDied: when the process has died.
            Exception: whatever the environment raised.
        """
        answers: dict[int, Any] = self.take()
        return answers


@dataclass
class _Answers:
    """What is asked of environments, which the first question makes: their process can report what is wrong then."""

    kwargs: dict[str, Any]
    count: int
    grouped: bool

    @cached_property
    def _members(self) -> LocalMembers:
        return LocalMembers(self.kwargs, self.count, self.grouped)

    def __call__(self, question: tuple[str, dict[int, Any]], stop: Callable[[], bool]) -> dict[int, Any]:
        method, arguments = question
        answers: dict[int, Any] = getattr(self._members, method)(arguments)
        return answers
