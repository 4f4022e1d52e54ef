"""Options of commands that play episodes side by side: how many, and by whom."""

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
class SideBySide:
    """Who plays episodes side by side. What they give does not depend on it."""

    processes: int | None = None
    """Episodes side by side, one torch thread each: 2 where none is given; on a cluster as many as have room."""
    executor: str = "local"
    """local (processes of this machine) or ray (a Ray cluster; pip install 'ssdkd-env[cluster]')."""
    address: str = "auto"
    """Of the Ray cluster: auto (this machine is part of it), local (one that begins here and now), or HOST:PORT."""
    cpus_per_job: float = 1.0
    """Cores that an episode reserves on the Ray cluster."""
    gpus_per_job: float = 0.0
    """GPUs, or a share of one such as 0.25, that an episode reserves on the Ray cluster."""
    memory_per_job: float | None = None
    """Main memory that an episode reserves on the Ray cluster, in GiB; none where none is given."""


#: Names of these options, which a run takes when it is continued, too.
SIDE_BY_SIDE = tuple(option.name for option in fields(SideBySide))


@contextmanager
def executor_of(options: SideBySide) -> Iterator[Executor]:
    """The executor that a command line asks for, until the end of the context.

    Raises:
        InvalidInputError: when an option does not fit, Ray is missing, or there is no such cluster.
    """
    if options.processes is not None and options.processes < 1:
        raise InvalidInputError(f"--processes {options.processes}: expected at least 1")
    check_choice("--executor", options.executor, ("local", "ray"))
    if options.executor == "local":
        for option in fields(SideBySide)[2:]:
            if getattr(options, option.name) != option.default:
                name = option.name.replace("_", "-")
                raise InvalidInputError(f"--{name} is of a Ray cluster; give --executor ray, too, or leave it out")
        yield Processes(options.processes or DEFAULT_PROCESSES)
        return
    needs = Needs(options.cpus_per_job, options.gpus_per_job, options.memory_per_job)
    with RayCluster(options.address, options.processes, needs) as cluster:
        yield cluster
