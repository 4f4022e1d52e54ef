"""A Ray cluster of several nodes on this machine, of which workers and nodes can be killed."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

#: What the title of a worker's process begins with while it answers or waits.
TITLE = "ray::_Answering"


class LocalCluster:
    """A context manager.

    Args:
        nodes: how many, of one core each, beside the head, which has none and is never killed.

    Attributes:
        address: of the head.
    """

    def __init__(self, nodes: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._count, self._random = nodes, random.Random(0)
        self._nodes: list[Any] = []
        self.refill()
        self.address: str = self._cluster.address

    def __enter__(self) -> LocalCluster:
        ray.init(address=self.address, logging_level=logging.WARNING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()
        self._cluster.shutdown()  # type: ignore[no-untyped-call]

    def refill(self) -> None:
        """Add nodes until there are as many as at the beginning."""
        while len(self._nodes) < self._count:
            self._nodes.append(self._cluster.add_node(num_cpus=1))
        self._cluster.wait_for_nodes()

    def workers(self) -> list[psutil.Process]:
        """Workers that have begun, on this cluster and no other."""
        return [each for each in psutil.Process().children(recursive=True) if _title(each).startswith(TITLE)]

    def kill_worker(self) -> bool:
        """Kill one with SIGKILL; false where there is none."""
        found = self.workers()
        try:
            if found:
                self._random.choice(found).kill()
        except psutil.NoSuchProcess:  # it has ended meanwhile
            return False
        return bool(found)

    def kill_node(self) -> bool:
        """Kill one and add another, once there is a worker anywhere; false where there is none."""
        if not self.workers():
            return False
        doomed = self._nodes.pop(self._random.randrange(len(self._nodes)))
        self._cluster.remove_node(doomed, allow_graceful=False)
        self.refill()
        return True


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def answered(job: dict[str, Any], stop: Callable[[], bool]) -> dict[str, Any]:
    """Work that takes no time: a job's result is the job."""
    return job
