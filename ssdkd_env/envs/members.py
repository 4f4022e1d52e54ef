"""Environments of equal arguments in one process, and such processes."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

import torch

from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs.distillation import ResetResult, SSDKDEnv, StepResult
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.registry import trust, trusted

#: Seconds that a worker process has to end by itself.
PATIENCE = 10.0


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
        with torch.enable_grad():  # whatever the agent is doing: ARS plays its episodes without gradients
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


class RemoteMembers:
    """Environments in a process of their own, with one torch thread.

    Args:
        kwargs, count, grouped: see `LocalMembers`.
    """

    def __init__(self, kwargs: Mapping[str, Any], count: int, grouped: bool) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit the threads of torch, and CUDA's state
        self._connection, theirs = context.Pipe()
        arguments = theirs, dict(kwargs), count, grouped, trusted()
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._question = 0

    def begin(self, method: str, arguments: Mapping[int, Any]) -> None:
        """Send the question."""
        self._question += 1
        with suppress(OSError):  # a process that has died is reported by `end`
            self._connection.send((self._question, method, dict(arguments)))

    def end(self) -> dict[int, Any]:
        """Wait for the answer.

        Raises:
            RuntimeError: when the process has died.
            Exception: whatever the environment raised.
        """
        number = None
        try:
            while number != self._question:  # Ctrl-C may have left the answer to an earlier one
                number, results, error, trace = self._connection.recv()
        except (EOFError, OSError) as gone:
            self._process.join(PATIENCE)
            raise RuntimeError(
                f"a process of the vector environment has died (exit code {self._process.exitcode}). Was there enough "
                'memory, and does the script make its environments under `if __name__ == "__main__":`? Else use fewer '
                "environments, or processes=1"
            ) from gone
        if error is not None:
            raise error from RuntimeError(f"in a process of the vector environment:\n{trace}")
        answers: dict[int, Any] = results
        return answers

    def leave(self) -> None:
        """Let the process end."""
        self._connection.close()

    def close(self) -> None:
        """Wait for the process to end."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(connection: Connection, kwargs: dict[str, Any], count: int, grouped: bool, modules: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its processes
    torch.set_num_threads(1)
    members: LocalMembers | None = None
    with suppress(EOFError, OSError):  # the other end is closed
        while True:
            number, method, arguments = connection.recv()
            try:
                trust(modules)  # which may register what the arguments name
                members = members or LocalMembers(kwargs, count, grouped)
                answer = ForkingPickler.dumps((number, getattr(members, method)(arguments), None, ""))
            except Exception as error:  # whatever it is, it is raised again where the user can see it
                answer = ForkingPickler.dumps((number, None, error, traceback.format_exc()))
            connection.send_bytes(answer)
