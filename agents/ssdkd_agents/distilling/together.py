"""A distillation in the processes that `torchrun` has started: one has the run, the others help with its student.

Which one a process is, and how many there are, it is told by environment variables. Alone it is the only one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.data_parallel import Leader, follow, receive, send
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError

#: How long the others wait for the leader, whose synthesis and measurements are its own. PyTorch's ten minutes are
#: less than a round of large images.
PATIENCE = timedelta(days=7)
#: What `torchrun` tells each process that it starts. Other launchers set the same.
_SET = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class _Description:
    """Of the leader's run, for the others.

    Attributes:
        settings: of its environment.
        seed: of its run.
        device: its type.
        digest: of its teacher.
    """

    settings: dict[str, Any]
    seed: int
    device: str
    digest: str


class Leading:
    """The leader's side, whether there are others or not.

    Args:
        count: of all processes.
    """

    def __init__(self, count: int) -> None:
        self._count, self._awaited = count, count > 1

    @contextmanager
    def sharing(self, env: SSDKDEnv) -> Iterator[None]:
        """Have the student of an environment's episode, which has begun, trained by all processes.

        Raises:
            InvalidInputError: when the run cannot be shared.
        """
        run = env.run
        assert run is not None
        if self._count == 1:
            yield
            return
        if run.device.type == "cuda" and run.device.index != _local_rank():
            raise InvalidInputError(f"device={str(run.device)!r}: each process has a GPU of its own; leave it out")
        leader = Leader(run.trainer, env.budget.batch_size)
        settings = replace(env.settings, precision=run.precision.name)
        send(_Description(asdict(settings), run.seed, run.device.type, env.task.teacher_digest()))
        with leader.leading():
            yield
        self._awaited = False

    def end(self) -> None:
        """Let the others go, where nothing was shared."""
        if self._awaited:
            send(None)


@contextmanager
def joined() -> Iterator[Leading | None]:
    """Join the others that `torchrun` has started, if it has; gives the leader's side, or None to those that help.

    Raises:
        InvalidInputError: when there are fewer GPUs than processes that would each have one.
    """
    if not all(name in os.environ for name in _SET) or (count := int(os.environ["WORLD_SIZE"])) == 1:
        yield Leading(1)
        return
    rank = int(os.environ["RANK"])
    backend = "gloo"
    if torch.cuda.is_available():
        if _local_rank() >= torch.cuda.device_count():
            raise InvalidInputError(
                f"process {_local_rank()} of this machine has no GPU: there are {torch.cuda.device_count()}; give "
                "torchrun a smaller --nproc-per-node, or CUDA_VISIBLE_DEVICES= to compute on the CPU"
            )
        torch.cuda.set_device(_local_rank())
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        if rank:
            yield None
        else:
            leading = Leading(count)
            try:
                yield leading
            except (InvalidInputError, OSError, SystemExit):  # after any other the others may be in the midst of a step
                leading.end()
                raise
            leading.end()
    finally:
        distributed.destroy_process_group()


def help_the_leader() -> None:
    """Help with the student of the leader's run until it ends.

    Raises:
        InvalidInputError: when what the run is made of is not here, or another teacher is.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader ends with a round, and says so
    described: _Description | None = receive()
    if described is None:
        return
    device = f"cuda:{_local_rank()}" if described.device == "cuda" else described.device
    env = SSDKDEnv(**{**described.settings, "device": device})
    if env.task.teacher_digest() != described.digest:
        raise InvalidInputError(f"teacher {env.task.spec.teacher_weights!r} is another one here than the leader's")
    run = DistillationRun(env.task, env.method, described.seed, env.device, env.backend, env.settings.precision)
    follow(run.trainer, run.device)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
