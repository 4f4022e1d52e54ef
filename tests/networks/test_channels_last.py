from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.problem import Budget
from ssdkd_env.networks.channels_last import (
    GlobalAveragePooling,
    every_second_pixel,
    keep_gradient_channels_last,
    to_channels_last,
)
from ssdkd_env.tasks.cifar import CIFAR10
from ssdkd_env.tasks.scenes import CAMVID
from ssdkd_env.tasks.task import Task, build_teacher
from ssdkd_env.threads import alone


def mean(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3), dtype=torch.promote_types(features.dtype, torch.float32))


def padded_slice(features: Tensor) -> Tensor:
    return F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))


PAIRS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "mean": (GlobalAveragePooling(), mean),
    "subsample": (lambda features: every_second_pixel(features, 1, 2), padded_slice),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_and_gradients_are_those_of_pytorch(name: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    features = torch.randn(3, 6, *size).to(dtype).contiguous(memory_format=torch.channels_last)
    results = []
    for operation in PAIRS[name]:
        inputs = features.clone(memory_format=torch.preserve_format).requires_grad_()
        outputs = operation(inputs)
        weights = torch.arange(outputs.numel(), dtype=outputs.dtype).view_as(outputs)
        results.append((outputs, torch.autograd.grad(outputs, inputs, weights)[0]))
    (own, own_gradient), (expected, expected_gradient) = results
    assert torch.equal(own, expected)
    assert torch.equal(own_gradient, expected_gradient)
    assert own_gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_conversion_gives_its_gradient_back_as_it_was() -> None:
    features = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5).requires_grad_()
    converted = to_channels_last(features)
    weights = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(converted, features, weights)
    assert torch.equal(converted, features)
    assert torch.equal(gradient, weights)
    assert converted.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous()


@pytest.mark.parametrize("name", PAIRS)
def test_they_may_be_differentiated_twice(name: str) -> None:
    features = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    operation = PAIRS[name][0]
    assert torch.autograd.gradgradcheck(lambda x: operation(x).square(), (features,))


class Layouts(TorchDispatchMode):
    """What happens to feature maps.

    Attributes:
        seen: how many went in or out of operations.
        odd: operations on maps that lie otherwise than in channels_last.
        converted: shapes of maps in the contiguous layout that were copied.
    """

    #: They only look at numbers, or move them.
    VIEWS = ("slice", "view", "expand", "permute", "transpose", "alias", "split", "detach", "gather", "pad", "copy")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = 0
        self.odd: set[str] = set()
        self.converted: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        made = results if isinstance(results, tuple | list) else (results,)
        for tensor in (*args, *made):
            # With few channels they are images, in small squares weights.
            if not isinstance(tensor, Tensor) or tensor.dim() != 4 or tensor.shape[1] < 8 or tensor[0, 0].numel() <= 16:
                continue
            self.seen += 1
            if tensor.is_contiguous(memory_format=torch.channels_last):
                continue
            if "clone" in str(func):
                self.converted |= {tuple(tensor.shape)} if tensor.is_contiguous() else set()
            elif not any(word in str(func) for word in self.VIEWS):
                self.odd.add(f"{func} on {tuple(tensor.shape)} with strides {tensor.stride()}")
        return results


@pytest.mark.parametrize("arch", ["resnet8", "resnet18", "wrn16_1", "vgg11"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_feature_maps_lie_in_channels_last_through_a_whole_round(arch: str, precision: str) -> None:
    options = {"widths": (8, 8, 16, 16)} if arch == "resnet18" else {}
    spec = replace(
        CIFAR10,
        teacher_arch=arch,
        student_arch=arch,
        generator_arch="generator_small",
        teacher_options=options,
        student_options=options,
        budget=Budget(**CIFAR10.budgets["tiny"]),
    )
    task = Task(spec, build_teacher(spec, seed=0))
    run = DistillationRun(task, task.make_method("ssdkd"), seed=0, precision=precision)
    with alone(), Layouts() as layouts:
        run.step(SamplingPlan())
    assert layouts.seen > 500
    assert not layouts.odd
    # The generator's linear layer makes maps, and no other place converts any.
    assert layouts.converted == {(16, 32, 8, 8)}


class Enlargements(TorchDispatchMode):
    """Gradients that go back through an enlargement.

    Attributes:
        channels_last: of each, whether it lay so.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.channels_last: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "upsample_bilinear2d_backward" in str(func):
            self.channels_last.append(args[0].is_contiguous(memory_format=torch.channels_last))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("count", [1, 2])
def test_gradients_of_dense_logits_lie_as_the_logits_do(count: int) -> None:
    """Softmax leaves the layout; from the contiguous one the way back through the enlargement takes longer."""
    budget = replace(CAMVID.budget, **CAMVID.budgets["tiny"])
    spec = replace(CAMVID, image_shape=(3, 24, 32), budget=budget, teacher_arch="deeplab_small12")
    task = Task(spec, build_teacher(spec, seed=0))
    runs = [DistillationRun(task, task.make_method("ssdkd"), seed) for seed in range(count)]
    with alone(), Enlargements() as enlargements:
        GroupedRuns().play([partial(run.step, SamplingPlan()) for run in runs])
    assert len(enlargements.channels_last) >= 2 * spec.budget.inversion_steps + spec.budget.student_steps
    assert all(enlargements.channels_last)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 6)])
def test_gradient_of_logits_keeps_its_values(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape)
    logits = logits.contiguous(memory_format=torch.channels_last) if logits.dim() == 4 else logits
    weights = torch.randn(shape)
    kept = logits.clone(memory_format=torch.preserve_format).requires_grad_()
    (gradient,) = torch.autograd.grad(keep_gradient_channels_last(kept * 1.0), kept, weights)
    assert torch.equal(gradient, weights)
    assert gradient.stride() == logits.stride()
    assert keep_gradient_channels_last(logits) is logits  # which nobody differentiates
