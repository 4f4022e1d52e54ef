"""One student on several devices: the processes of a group share each of its minibatches.

One process, the leader, has the run. Whenever it comes to train the student, `Leader` has the others help: each has a
replica of the student, looks at its share of every minibatch, and PyTorch's `DistributedDataParallel` takes the mean of
their gradients. Synthesis, buffer and sampling are the leader's alone, and know nothing of it.

With BatchNorm's statistics taken over all shares, R processes of batch B do what one of batch R·B does, but for
rounding and for layers that draw random numbers, such as dropout. A layer of another kind that looks at a whole
minibatch sees its share, and so does a BatchNorm that its network holds where PyTorch does not see it. The student has
to use the same layers for every minibatch.
`torch.nn.SyncBatchNorm` refuses tensors of a CPU; `SharedBatchNorm` computes the same on any device, so that what the
tests see is what a cluster runs.

The leader sends the student's state anew with each piece of work: whatever it has loaded or undone meanwhile holds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ssdkd_env import ranges
from ssdkd_env.distillation.student import Share, StudentTrainer
from ssdkd_env.distillation.work import LayerRandom, TrainingWork, Work, helped_by
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.executors import WorkerDied

#: Layers whose statistics are shared.
_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: Objects are sent from the memory of the leader's CPU to theirs.
_CPU = torch.device("cpu")


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation over the shares of all processes of the group, by the formula of Ioffe & Szegedy 2015.

    Args:
        layer: whose parameters, buffers and settings it has.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats = layer.affine, layer.track_running_stats
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.__dict__.update({name: hooks for name, hooks in vars(layer).items() if "_hooks" in name})

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, …); statistics in float32 at least, the result in the type of the input."""
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = (0, *range(2, values.dim()))
        shape = (1, -1, *[1] * (values.dim() - 2))
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = _sum_of_all(torch.cat([values.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = values - mean.view(shape)
        variance = _sum_of_all(centred.square().sum(axes)) / total
        self._track(mean.detach(), variance.detach(), total)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        """Running statistics as PyTorch keeps them: of the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * (total / (total - 1))).to(self.running_var.dtype), share)


class _SumOfAll(torch.autograd.Function):
    """The sum of a tensor over all processes; the gradient is summed over them likewise."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def _sum_of_all(tensor: Tensor) -> Tensor:
    total: Tensor = _SumOfAll.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def with_shared_statistics(student: nn.Module) -> nn.Module:
    """A network with the student's own parameters and buffers, whose BatchNorm layers are `SharedBatchNorm`.

    Raises:
        InvalidInputError: when the student cannot be copied.
    """
    own = {id(tensor): tensor for tensor in (*student.parameters(), *student.buffers())}
    try:
        twin = copy.deepcopy(student, dict(own))
    except Exception as error:  # whatever a module of the user's own raises
        raise InvalidInputError(
            f"student: a network that cannot be copied ({one_line(error)}) cannot be trained by several processes; use "
            "one, or torch.nn.utils.parametrizations"
        ) from error
    shared: dict[int, nn.Module] = {}

    def replacement(layer: nn.Module | None) -> nn.Module | None:
        if type(layer) not in _KINDS:
            return layer
        return shared.setdefault(id(layer), SharedBatchNorm(layer))  # type: ignore[arg-type]

    for module in list(twin.modules()):
        for name, layer in module._modules.items():  # also where it is registered a second time
            module._modules[name] = replacement(layer)
    made = replacement(twin)
    assert made is not None
    return made


class Channel:
    """What the leader tells the others, over their CPUs. Made in all processes of the group at the same time.

    Args:
        patience: how long the others wait for the next message, while the leader does something else.
    """

    def __init__(self, patience: timedelta) -> None:
        self._group = distributed.new_group(backend="gloo", timeout=patience)

    def send(self, message: Any) -> None:
        """Send the others an object, from the leader."""
        distributed.broadcast_object_list([message], src=0, group=self._group, device=_CPU)

    def receive(self) -> Any:
        """What the leader sends next.

        Raises:
            WorkerDied: when it has ended meanwhile.
        """
        messages: list[Any] = [None]
        try:
            distributed.broadcast_object_list(messages, src=0, group=self._group, device=_CPU)
        except RuntimeError as error:  # what a closed connection is, by gloo
            raise WorkerDied(f"process {distributed.get_rank()} has lost the first one, which had the run") from error
        return messages[0]


@dataclass(frozen=True)
class _Piece:
    """What the others need to know of a piece of work, beside its tensors.

    Attributes:
        images, draws, weights: shapes of the tensors that follow; see `TrainingWork`.
        learning_rate: of all minibatches.
        seed: of layers that draw random numbers, which draw others in each process.
        views: state of the generator of the augmentation.
        state: of the trainer, on the CPU.
    """

    images: torch.Size
    draws: torch.Size
    weights: tuple[torch.Size, torch.dtype]
    learning_rate: float
    seed: int
    views: Tensor
    state: dict[str, Any]


class Replica:
    """This process's part in the training of a student. Made in all processes of the group at the same time.

    Args:
        trainer: of the student; of equal networks and settings in all processes.
    """

    def __init__(self, trainer: StudentTrainer) -> None:
        self.trainer = trainer
        self._share = Share(distributed.get_rank(), distributed.get_world_size())
        self._twin = with_shared_statistics(trainer.student)
        # Of a static graph some parameters may go without use.
        self._forward = trainer.execution.of(DistributedDataParallel(self._twin, static_graph=True))

    def train(
        self, images: Tensor, draws: Tensor, weights: Tensor, learning_rate: float, random: LayerRandom
    ) -> Tensor:
        """As `StudentTrainer.train`, with the others; gives the sum of the losses of all, in each of them."""
        self._begin()
        update, alone = self.trainer.update, self.trainer.update.forward
        update.forward = self._forward
        try:
            with LayerRandom(random.seed + self._share.index, random.device).lent():
                loss = self.trainer.train(images, draws, weights, learning_rate, self._share)
        finally:
            update.forward = alone
        self._end()
        distributed.all_reduce(loss)
        return loss

    def _begin(self) -> None:
        """Have the twin's layers train that the student would train: some networks keep BatchNorm from it."""
        self.trainer.student.train()
        for module, own in self._pairs():
            module.training = own.training
            for name, buffer in own._buffers.items():
                module._buffers[name] = buffer

    @torch.no_grad()
    def _end(self) -> None:
        """Give the student the buffers that the twin has put others in the place of."""
        for module, own in self._pairs():
            for name, buffer in module._buffers.items():
                kept = own._buffers[name]
                if buffer is not kept and buffer is not None and kept is not None:
                    kept.copy_(buffer)

    def _pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Each module of the twin, and the student's in its place."""
        twins, own = (net.named_modules(remove_duplicate=False) for net in (self._twin, self.trainer.student))
        for (_, module), (_, other) in zip(twins, own, strict=True):
            yield module, other


class Leader:
    """Has the others of the group help a run with its student.

    Args:
        trainer: of the student. Work of other trainers is done by the leader alone.
        batch_size: images in each of its minibatches.
        channel: to the others.

    Raises:
        InvalidInputError: when the trainer compiles its networks, or has fewer images than there are processes.
    """

    def __init__(self, trainer: StudentTrainer, batch_size: int, channel: Channel) -> None:
        if trainer.execution.compiler:
            raise InvalidInputError("backend='compiled': a student on several devices is not compiled; use 'fast'")
        processes = distributed.get_world_size()
        if batch_size < processes:
            raise InvalidInputError(f"minibatches of {batch_size} cannot be shared by {processes} processes; use fewer")
        self._trainer, self._channel = trainer, channel
        self._replica: Replica | None = None

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Have all work with the student that this context comes to shared; the others are then told to end.

        Not after an error, which may be of their own end. Whoever has started all processes ends the others then.
        """
        with helped_by(self._do):
            yield
        self._channel.send(None)

    def _do(self, work: Work[Any]) -> Any:
        with ranges.phase(work.name):
            if isinstance(work, TrainingWork) and work.trainer is self._trainer:
                return self._train(work)
            return work.alone()

    def _train(self, work: TrainingWork) -> Tensor:
        trainer = self._trainer
        self._channel.send(
            _Piece(
                work.images.shape,
                work.draws.shape,
                (work.weights.shape, work.weights.dtype),
                work.learning_rate,
                work.random.seed,
                trainer.random.get_state(),
                _on_cpu(trainer.state_dict()),
            )
        )
        for tensor in (work.images, work.draws, work.weights):
            distributed.broadcast(tensor.contiguous(), 0)
        if self._replica is None:
            self._replica = Replica(trainer)
        return self._replica.train(work.images, work.draws, work.weights, work.learning_rate, work.random)


def follow(trainer: StudentTrainer, device: torch.device, channel: Channel) -> None:
    """Help the leader with every piece of its work until it says that there is no more.

    Args:
        trainer: equal to the leader's.
        device: of this process.
        channel: from the leader.

    Raises:
        WorkerDied: when the leader has ended without a word.
    """
    replica: Replica | None = None
    while (piece := channel.receive()) is not None:
        shape, dtype = piece.weights
        images = torch.empty(piece.images, dtype=torch.uint8, device=device)
        draws = torch.empty(piece.draws, dtype=torch.int64, device=device)
        weights = torch.empty(shape, dtype=dtype, device=device)
        for tensor in (images, draws, weights):
            distributed.broadcast(tensor, 0)
        trainer.load_state_dict(piece.state)
        trainer.random.set_state(piece.views)
        if replica is None:
            replica = Replica(trainer)
        replica.train(images, draws, weights, piece.learning_rate, LayerRandom(piece.seed, device))


def _on_cpu(state: Any) -> Any:
    """A state with its tensors on the CPU: a device of the leader's may be another's here."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {name: _on_cpu(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on_cpu(value) for value in state)
    return state
