"""Options of commands whose work may be done on a cluster, and how much of it side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from ssdkd_env.cluster import Needs, RayCluster
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.executors import Executor
from ssdkd_env.processes import Processes

#: Episodes side by side on one machine.
DEFAULT_PROCESSES = 2


@dataclass(kw_only=True)
class Where:
    """Where work is done; it changes no number but by rounding. A job is an episode, or a worker's environments."""

    executor: str = "local"
    """local (this machine) or ray (a Ray cluster; pip install 'ssdkd-env[cluster]')."""
    address: str = "auto"
    """Of the Ray cluster: auto (this machine is part of it), local (one that begins here and now), or HOST:PORT."""
    cpus_per_job: float = 1.0
    """Cores that a job reserves on the Ray cluster: an episode, or the environments of a worker."""
    gpus_per_job: float = 0.0
    """GPUs, or a share of one such as 0.25, that a job reserves on the Ray cluster."""
    memory_per_job: float | None = None
    """Main memory that a job reserves on the Ray cluster, in GiB; none where none is given."""


@dataclass(kw_only=True)
class SideBySide(Where):
    """The same for episodes that know nothing of each other."""

    processes: int | None = None
    """Episodes side by side, one torch thread each: 2 where none is given; on a cluster as many as have room."""


#: Names of these options, which a run takes when it is continued, too.
WHERE = tuple(option.name for option in fields(Where))
SIDE_BY_SIDE = tuple(option.name for option in fields(SideBySide))


@contextmanager
def cluster_of(options: Where, count: int | None = None) -> Iterator[RayCluster | None]:
    """The cluster that a command line asks for, until the end of the context; None for this machine.

    Args:
        options: of the command.
        count: workers side by side; as many as the cluster has room for where None.

    Raises:
        InvalidInputError: when an option does not fit, Ray is missing, or there is no such cluster.
    """
    check_choice("--executor", options.executor, ("local", "ray"))
    if options.executor == "ray":
        needs = Needs(options.cpus_per_job, options.gpus_per_job, options.memory_per_job)
        with RayCluster(options.address, count, needs) as cluster:
            yield cluster
        return
    for option in fields(Where):
        if option.name != "executor" and getattr(options, option.name) != option.default:
            name = option.name.replace("_", "-")
            raise InvalidInputError(f"--{name} is of a Ray cluster; give --executor ray, too, or leave it out")
    yield None


@contextmanager
def executor_of(options: SideBySide) -> Iterator[Executor]:
    """The executor that a command line asks for, until the end of the context.

    Raises:
        InvalidInputError: as `cluster_of`, and when there are to be no processes.
    """
    if options.processes is not None and options.processes < 1:
        raise InvalidInputError(f"--processes {options.processes}: expected at least 1")
    with cluster_of(options, options.processes) as cluster:
        yield cluster or Processes(options.processes or DEFAULT_PROCESSES)
