"""Workers on a Ray cluster: the executor where one machine is too small.

A worker is an actor, because an actor can be told to come to an early end and a task cannot. What goes to it and comes
back is pickled here: an array that Ray itself pickles lies in the memory of its object store, which all processes of a
node share, and an operation in place on it would change it for all of them.

Ray is an optional dependency (`pip install ssdkd-env[cluster]`), and is only imported when an executor is made.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.executors import PATIENCE, Answer, Reply, WorkerDied, respond
from ssdkd_env.extras import load_extra
from ssdkd_env.registry import trusted

GIB = 2**30
#: Where Ray says in an error why an actor is dead.
_REASON = re.compile(r"The actor is dead because (?P<reason>.*?\.)(?:\s|$)|(?P<exit>Worker exit type: \w+)", re.DOTALL)


@dataclass(frozen=True)
class Needs:
    """What a worker reserves on its node.

    Attributes:
        cpus_per_job: cores; Ray counts, and does not enforce, them.
        gpus_per_job: GPUs, or a share of one, above 0 and below 1; with 0 a worker sees none.
        memory_per_job: main memory, GiB; None reserves none.
    """

    cpus_per_job: float = 1.0
    gpus_per_job: float = 0.0
    memory_per_job: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.cpus_per_job <= 4096:
            raise InvalidInputError(f"cpus_per_job={self.cpus_per_job}: expected a number above 0, at most 4,096")
        gpus = self.gpus_per_job
        if not (0 <= gpus <= 1024 and (gpus <= 1 or gpus == int(gpus))):
            raise InvalidInputError(f"gpus_per_job={gpus}: expected a share of one from 0 to 1, or a whole number")
        if self.memory_per_job is not None and not 0 < self.memory_per_job <= 2**16:
            raise InvalidInputError(f"memory_per_job={self.memory_per_job}: expected a number above 0, or nothing")

    @property
    def resources(self) -> dict[str, float]:
        """By Ray's names; memory in bytes."""
        needed = {"CPU": self.cpus_per_job, "GPU": self.gpus_per_job, "memory": (self.memory_per_job or 0) * GIB}
        return {name: amount for name, amount in needed.items() if amount}

    def fit(self, node: dict[str, float]) -> int:
        """How many workers a node with these resources has room for."""
        return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in self.resources.items())


class RayCluster:
    """An `Executor` whose workers are actors of a Ray cluster; a context manager that leaves it, if it has entered it.

    Args:
        address: `"auto"` (the cluster that this machine belongs to), `"local"` (one that begins on this machine and
            ends with this process), or `HOST:PORT` of its head.
        count: workers side by side; as many as the cluster has room for where None.
        needs: of each worker.

    Attributes:
        count: workers side by side.
        tries: as many as Ray gives a task: machines of a cluster go more often than a process of one's own.

    Raises:
        InvalidInputError: when Ray is missing, or there is no such cluster.
    """

    tries = 4

    def __init__(self, address: str = "auto", count: int | None = None, needs: Needs | None = None) -> None:
        self._needs = needs or Needs()
        self._ray, self._is_ours = _connected(address)
        self.count = count or self._room()

    @property
    def is_here(self) -> bool:
        """Never: even one worker may be wanted for the cluster's device."""
        return False

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def start(self, answer: Answer, purpose: str, remedy: str) -> RayWorker:
        """Start an actor; see `Executor.start`. It waits for room on the cluster by itself."""
        needs = self._needs
        options: dict[str, Any] = {"num_cpus": needs.cpus_per_job, "num_gpus": needs.gpus_per_job}
        if needs.memory_per_job is not None:
            options["memory"] = int(needs.memory_per_job * GIB)
        # Two threads: one answers, the other hears that an early end is wanted.
        made = self._ray.remote(_Answering).options(max_concurrency=2, max_restarts=0, **options)
        return RayWorker(self._ray, made.remote(_dumps(answer), trusted()), purpose, remedy)

    def ready(self, workers: Collection[RayWorker], timeout: float) -> list[RayWorker]:
        """Those that have answered or died, as soon as there is one; none after `timeout` seconds."""
        asked = {worker.reply: worker for worker in workers}
        if not asked:
            return []
        first, rest = self._ray.wait(list(asked), num_returns=1, timeout=timeout)
        if first and rest:
            first += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [asked[reply] for reply in first]

    def _room(self) -> int:
        """Workers that the cluster has room for now."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(self._needs.fit(node) for node in nodes)
        if not room:
            most = {name: max(node.get(name, 0.0) for node in nodes) for name in self._needs.resources}
            print(
                f"no node of the cluster has room for one worker, which needs {self._needs.resources} (most: {most}); "
                "waiting for one that has, Ctrl-C ends this",
                file=sys.stderr,
            )
        return max(room, 1)


class RayWorker:
    """An actor: a `Worker`. Made by `RayCluster.start`.

    Attributes:
        reply: Ray's reference of the answer to the last question.
    """

    def __init__(self, ray: Any, actor: Any, purpose: str, remedy: str) -> None:
        self._ray, self._actor, self._purpose, self._remedy = ray, actor, purpose, remedy
        self.reply: Any = None
        self.is_alive = True

    def __reduce__(self) -> NoReturn:
        """What an actor holds has no copy.

        Raises:
            InvalidInputError: always.
        """
        raise InvalidInputError(f"a worker {self._purpose} on the cluster can be neither copied nor pickled")

    def ask(self, question: Any) -> None:
        """Send a question."""
        self.reply = self._actor.answer.remote(_dumps(question))

    def take(self) -> Any:
        """Wait for the answer to the last question.

        Raises:
            WorkerDied: when the actor, or its node, has died.
            Exception: whatever the answer raised.
        """
        try:
            sent = self._ray.get(self.reply)
        except self._ray.exceptions.RayTaskError:  # of what is around the answer: a fault of ours
            raise
        except self._ray.exceptions.RayError as error:  # the actor, its node, the memory of either
            self.is_alive = False
            raise WorkerDied(
                f"a worker {self._purpose} on the cluster has died ({_reason(error)}). {self._remedy}"
            ) from error
        reply: Reply = pickle.loads(sent)
        return reply.taken()

    def leave(self) -> None:
        """Tell it to come to an early end."""
        if self.is_alive:
            self._actor.leave.remote()

    def close(self, patience: float | None = None) -> None:
        """Wait for the answer in progress, and end the actor, which frees what it had reserved."""
        if self.is_alive and self.reply is not None:
            self._ray.wait([self.reply], timeout=PATIENCE if patience is None else patience)
        self.is_alive = False
        with suppress(self._ray.exceptions.RayError):  # it has ended by itself
            self._ray.kill(self._actor)


class _Answering:
    """What an actor does.

    Args:
        answer: of the worker, pickled.
        modules: see `executors.respond`.
    """

    def __init__(self, answer: bytes, modules: tuple[str, ...]) -> None:
        self._answer, self._modules = answer, modules
        self._made: Answer | None = None
        self._left = threading.Event()

    def answer(self, question: bytes) -> bytes:
        """The pickled `Reply` to a pickled question."""

        def unpickled(_: Any, stop: Any) -> Any:
            # Here, so that what cannot be unpickled on this node is an answer, too.
            self._made = self._made or pickle.loads(self._answer)
            return self._made(pickle.loads(question), stop)

        return respond(unpickled, None, self._left.is_set, self._modules, _dumps)

    def leave(self) -> None:
        """An early end is wanted."""
        self._left.set()


def _dumps(value: Any) -> bytes:
    """Pickle, functions of a script that was started by its name by their code, because no other process has it."""
    pickled: bytes = load_extra("ray.cloudpickle", "a cluster").dumps(value)
    return pickled


def _connected(address: str) -> tuple[Any, bool]:
    """The module `ray`, connected to a cluster, and whether it was not before.

    Raises:
        InvalidInputError: when Ray is missing, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else a cluster of ours would tell its makers
    ray = load_extra("ray", "a cluster")
    try:
        if is_ours := not ray.is_initialized():
            own = {"include_dashboard": False} if address == "local" else {}
            ray.init(address=address, logging_level="warning", **own)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise InvalidInputError(
            f"address={address!r}: no Ray cluster there ({one_line(error)[:200]}); begin one with 'ray start --head', "
            "or give 'local' for one on this machine. Where it asks for a token, set RAY_AUTH_MODE=token"
        ) from error
    return ray, is_ours


def _reason(error: Exception) -> str:
    """Why an actor is dead, in a few words."""
    found = _REASON.search(str(error))
    words = one_line(Exception((found["reason"] or found["exit"]) if found else str(error)))
    return words[:200].rstrip(".")
