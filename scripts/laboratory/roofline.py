"""What share of a device's measured peak and bandwidth the student's minibatches reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from laboratory.machine import timed
from ssdkd_env.distillation import DistillationRun

#: Side of the square matrices whose product measures the peak, and numbers that are copied to measure bandwidth.
PRODUCT_SIDE = {"cpu": 1536, "cuda": 8192}
COPIED_NUMBERS = {"cpu": 2**26, "cuda": 2**29}
#: Turns of each measurement, of which the fastest counts.
TURNS = 5

#: Operations that move no data: they look at the same memory in another way, or leave it as it is.
_FREE = (
    *("view", "reshape", "permute", "transpose", "t.default", "expand", "slice", "select", "split", "unflatten"),
    *("unsqueeze", "squeeze", "detach", "as_strided", "alias", "empty"),
)


class TrafficCounter(TorchDispatchMode):
    """Adds up the bytes that each operation reads and writes, as if none was fused with the next.

    Attributes:
        nbytes: so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it."""
        outputs = func(*args, **(kwargs or {}))
        if not any(name in str(func) for name in _FREE):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, outputs)) if isinstance(leaf, Tensor)]
            self.nbytes += sum(tensor.nbytes for tensor in tensors)
        return outputs


@dataclass(frozen=True)
class Roofline:
    """A device's measured limits.

    Attributes:
        flops: operations a second of a large matrix product.
        bandwidth: bytes a second that a large copy reads and writes.
    """

    flops: float
    bandwidth: float


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Time a matrix product in a type, and a copy of float32 numbers."""
    side, numbers = PRODUCT_SIDE[device.type], COPIED_NUMBERS[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(numbers, device=device)
    target = torch.ones_like(source)
    product = fastest(lambda: left @ right, device)
    copy = fastest(lambda: target.copy_(source), device)
    return Roofline(flops=2 * side**3 / product, bandwidth=2 * source.nbytes / copy)


def fastest(work: Callable[[], Any], device: torch.device, turns: int = TURNS) -> float:
    """Seconds of the fastest turn, after one that warms up."""
    return min([timed(device, work)[1] for _ in range(turns + 1)][1:])


@dataclass(frozen=True)
class Cost:
    """What a round's student minibatches cost.

    Attributes:
        flops: operations of convolutions and products, teacher and student, forward and backward.
        nbytes: read and written by all operations of the plain step, unfused.
        seconds: of the fastest round of minibatches.
    """

    flops: float
    nbytes: float
    seconds: float


def cost_of_minibatches(run: DistillationRun, reference: DistillationRun) -> Cost:
    """Count the work of a round's minibatches, and time them.

    Args:
        run: to be timed, however its backend and precision do it.
        reference: the same run, whose operations are counted: not compiled, with the same precision.
    """
    minibatches = run.task.spec.budget.student_steps
    # All minibatches cost the same: one chunk is counted.
    counted = len(reference.trainer.chunks(_draws(reference, minibatches))[0])
    traffic = TrafficCounter()
    with FlopCounterMode(display=False) as flops:
        _train(reference, counted)
    with traffic:
        _train(reference, counted)
    scale = minibatches / counted
    return Cost(
        flops=scale * flops.get_total_flops(),
        nbytes=scale * traffic.nbytes,
        seconds=fastest(lambda: _train(run, minibatches), run.device),
    )


def _draws(run: DistillationRun, minibatches: int) -> Tensor:
    size = (minibatches, run.task.spec.budget.batch_size)
    return torch.randint(len(run.buffer), size, device=run.device)


def _train(run: DistillationRun, minibatches: int) -> None:
    residents = run.buffer.residents
    run.trainer.train(residents.images, _draws(run, minibatches), residents.importance_weight, run.round)
