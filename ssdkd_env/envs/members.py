"""Environments of equal arguments in one process, and the workers that have such elsewhere."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, TypeAlias

from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs.beginnings import Beginnings
from ssdkd_env.envs.distillation import ResetResult, SSDKDEnv, StepResult
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.executors import Executor, Worker, WorkerDied

#: What to do when a process of environments has died.
REMEDY = (
    "Was there enough memory? Go on from what was saved (commands: --resume), or use fewer environments or "
    "vectorization='loop'"
)
#: A method of `LocalMembers`, and its arguments by member.
Question: TypeAlias = tuple[str, dict[int, Any]]
#: Questions after which environments are not what they were.
CHANGING = ("reset", "reset_alike", "step", "call", "assign")
#: Seconds between two copies of environments that are to last: what is computed again, at most, when a worker dies.
COPY_EVERY = 120.0


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
        self._beginnings = Beginnings()
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

    def reset_alike(self, arguments: Mapping[int, Mapping[str, Any]]) -> dict[int, ResetResult]:
        """The same where many begin with one seed and instance, now or soon: the warm-up is then done once.

        It is done alone, so that its numbers do not depend on which others happen to begin at the same time.
        """
        return {index: self._reset_alike(self.envs[index], given) for index, given in arguments.items()}

    def _reset_alike(self, env: SSDKDEnv, given: Mapping[str, Any]) -> ResetResult:
        own, env.beginnings = env.beginnings, self._beginnings
        try:
            return env.reset(**given)
        finally:
            env.beginnings = own  # a copy of the environment is to take none of the others' with it

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

    def copied(self, _: Mapping[int, Any]) -> dict[int, bytes]:
        """A copy of all members, episodes included, as number 0."""
        return {0: pickle.dumps(self.envs)}

    def take_over(self, copies: Mapping[int, bytes]) -> dict[int, Any]:
        """Become what such a copy holds."""
        self.envs = pickle.loads(copies[0])
        return {}

    def leave(self) -> None:
        """Nothing: no process has to end."""

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()


class RemoteMembers:
    """Environments of a worker, in a process of their own or on a cluster, with one torch thread.

    Args:
        kwargs, count, grouped: see `LocalMembers`.
        executor: that starts the worker.
    """

    def __init__(self, kwargs: Mapping[str, Any], count: int, grouped: bool, executor: Executor) -> None:
        self._answers = _Answers(dict(kwargs), count, grouped)
        self._purpose = "of one environment" if count == 1 else f"of {count} environments"
        self._executor = executor
        self._question: Question = ("", {})
        self._worker = self._start()

    def _start(self) -> Worker:
        return self._executor.start(self._answers, self._purpose, REMEDY)

    def begin(self, method: str, arguments: Mapping[int, Any]) -> None:
        """Send the question."""
        self._question = method, dict(arguments)
        self._worker.ask(self._question)

    def end(self) -> dict[int, Any]:
        """Wait for the answer.

        Raises:
            WorkerDied: when the worker has died.
            Exception: whatever the environment raised.
        """
        answers: dict[int, Any] = self._worker.take()
        return answers

    def leave(self) -> None:
        """Let the worker end."""
        self._worker.leave()

    def close(self) -> None:
        """Wait for that."""
        self._worker.close()


class LastingMembers(RemoteMembers):
    """The same, outliving their workers: a new one takes the environments over from the last copy of them.

    What was asked since that copy is asked again, so that on a CPU episodes go on with the same bits as if nothing had
    happened. A copy holds all that the environments hold, and lies in the memory of this process.
    """

    def __init__(self, kwargs: Mapping[str, Any], count: int, grouped: bool, executor: Executor) -> None:
        super().__init__(kwargs, count, grouped, executor)
        self._copy: bytes | None = None
        self._since: list[Question] = []
        self._copied = time.monotonic()

    def end(self) -> dict[int, Any]:
        """Wait for the answer, from another worker where one has died.

        Raises:
            WorkerDied: when as many have died of the question as `Executor.tries`.
            Exception: whatever the environment raised.
        """
        answers = self._lasting(self._question, is_asked=True)
        method, _ = self._question
        if method in CHANGING:
            self._since.append(self._question)
        # Beside what was taken out of a file, which may be gone when it is asked for again.
        if method == "call" or time.monotonic() - self._copied > COPY_EVERY:
            self._copy = self._lasting(("copied", {}))[0]
            self._since, self._copied = [], time.monotonic()
        return answers

    def _lasting(self, question: Question, is_asked: bool = False) -> dict[int, Any]:
        """The answer to a question, of the worker, which may have been asked already, or of one in its place."""
        deaths = 0
        while True:
            try:
                if deaths:
                    self._replace()
                if deaths or not is_asked:
                    self._worker.ask(question)
                answers: dict[int, Any] = self._worker.take()
                return answers
            except WorkerDied as death:
                deaths += 1
                if deaths == self._executor.tries:
                    raise
                print(f"its environments are taken over by another: {death}", file=sys.stderr)

    def _replace(self) -> None:
        """Bring a new worker to where the dead one was before the question."""
        self._worker.close()
        self._worker = self._start()
        if self._copy is not None:
            self._worker.ask(("take_over", {0: self._copy}))
            self._worker.take()
        for question in self._since:
            self._worker.ask(question)
            self._worker.take()


@dataclass
class _Answers:
    """What is asked of environments, which the first question makes: their process can report what is wrong then."""

    kwargs: dict[str, Any]
    count: int
    grouped: bool

    @cached_property
    def _members(self) -> LocalMembers:
        return LocalMembers(self.kwargs, self.count, self.grouped)

    def __call__(self, question: Question, stop: Callable[[], bool]) -> dict[int, Any]:
        method, arguments = question
        answers: dict[int, Any] = getattr(self._members, method)(arguments)
        return answers
