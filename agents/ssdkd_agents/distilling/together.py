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
from ssdkd_env.distillation.data_parallel import Channel, Leader, follow
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError

#: How long the others wait for the leader, whose synthesis and measurements are its own. PyTorch's half hour may be
#: less than a round of large images.
PATIENCE = timedelta(days=7)
#: What `torchrun` tells each process that it starts. Other launchers set the same.
_SET = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class _Description:
    """Of the leader's run, for the others.

    Attributes:
        settings: of its environment.
        instance: which of the environment's tasks its episode plays.
        seed: of its run.
        device: its type.
        identity: of the task.
    """

    settings: dict[str, Any]
    instance: int
    seed: int
    device: str
    identity: str


class Leading:
    """The leader's side, whether there are others or not.

    Args:
        channel: to the others; None where there are none.
    """

    def __init__(self, channel: Channel | None = None) -> None:
        self._channel, self._awaited = channel, channel is not None

    @contextmanager
    def sharing(self, env: SSDKDEnv) -> Iterator[None]:
        """Have the student of an environment's episode, which has begun, trained by all processes.

        Raises:
            InvalidInputError: when the run cannot be shared.
        """
        run = env.run
        assert run is not None
        if self._channel is None:
            yield
            return
        if run.device.type == "cuda" and run.device.index != _local_rank():
            raise InvalidInputError(f"device={str(run.device)!r}: each process has a GPU of its own; leave it out")
        leader = Leader(run.trainer, env.budget.batch_size, self._channel)
        settings = asdict(replace(env.settings, precision=run.precision.name))
        index = env.instances.index
        identity = repr(env.instances.tasks[index].identity())
        self._channel.send(_Description(settings, index, run.seed, run.device.type, identity))
        with leader.leading():
            yield
        self._awaited = False

    def end(self) -> None:
        """Let the others go, where nothing was shared."""
        if self._channel is not None and self._awaited:
            self._channel.send(None)


@contextmanager
def joined() -> Iterator[Leading | Channel]:
    """Join the others that `torchrun` has started, if it has; gives the leader's side, or a channel to those that help.

    Raises:
        InvalidInputError: when there are fewer GPUs than processes that would each have one.
    """
    if not all(name in os.environ for name in _SET) or int(os.environ["WORLD_SIZE"]) == 1:
        yield Leading()
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
    distributed.init_process_group(backend)
    channel = Channel(PATIENCE)
    if rank:
        yield channel
    else:
        leading = Leading(channel)
        try:
            yield leading
        except (InvalidInputError, OSError, SystemExit):  # after any other the others may be in the midst of a step
            leading.end()
            raise
        leading.end()
    distributed.destroy_process_group()  # not after an error: it may wait for the others, who may wait for this one


def help_the_leader(channel: Channel) -> None:
    """Help with the student of the leader's run until it ends.

    Raises:
        InvalidInputError: when what the run is made of is not here, or another teacher is.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader ends with a round, and says so
    described: _Description | None = channel.receive()
    if described is None:
        return
    device = f"cuda:{_local_rank()}" if described.device == "cuda" else described.device
    env = SSDKDEnv(**{**described.settings, "device": device})
    task = env.instances.tasks[described.instance]
    if repr(task.identity()) != described.identity:
        raise InvalidInputError(
            f"task {task.spec.name} is another one in process {distributed.get_rank()} than in the first: are teacher, "
            "networks and images the same on its machine?"
        )
    run = DistillationRun(task, env.method, described.seed, env.device, env.backend, env.settings.precision)
    follow(run.trainer, run.device, channel)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
