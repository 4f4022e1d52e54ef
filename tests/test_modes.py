"""What PyTorch has been told is put away for a while, and then there again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssdkd_env.modes import put_away


class OneMore(TorchFunctionMode):
    """Whatever is put together is one more."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result + 1 if func is torch.cat else result


class HalfAsMuch(TorchDispatchMode):
    """Products are half of what they are."""

    PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.convolution.default)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result * 0.5 if func in self.PRODUCTS else result


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    yield
    torch.set_default_device(None)


@contextmanager
def autocast_asked_for(kind: str) -> Iterator[None]:
    """Without such a device `torch.autocast` would stay off."""
    torch.set_autocast_enabled(kind, True)
    yield
    torch.set_autocast_enabled(kind, False)


@contextmanager
def in_transformation(randomness: str | None) -> Iterator[None]:
    """Inside a function that is differentiated, or mapped with this rule of randomness."""
    functorch = torch._C._functorch
    if randomness is None:
        functorch._grad_increment_nesting()
    else:
        functorch._vmap_increment_nesting(3, randomness)
    yield
    functorch._grad_decrement_nesting() if randomness is None else functorch._vmap_decrement_nesting()


#: What callers have PyTorch do, each with what it leaves otherwise than PyTorch begins.
AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "without gradients": torch.no_grad,
    "gradients switched off": partial(torch.set_grad_enabled, False),
    "in inference mode": torch.inference_mode,
    "under autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "under autocast to float16": partial(torch.autocast, "cpu", torch.float16),
    "under autocast of another device": partial(autocast_asked_for, "mps"),
    "in float64": partial(default_dtype, torch.float64),
    "in bfloat16": partial(default_dtype, torch.bfloat16),
    "on another device": partial(default_device, "meta"),
    "in a block of another device": partial(torch.device, "meta"),
    "looking for NaN": partial(torch.autograd.set_detect_anomaly, True),
    "with functions changed": OneMore,
    "with operations changed": HalfAsMuch,
    "with numbers pretended": FakeTensorMode,
    "in a function that is mapped": partial(in_transformation, "error"),
    "in a function that is differentiated": partial(in_transformation, None),
}


def as_told() -> tuple[Any, ...]:
    """What PyTorch is told now, as far as it can be seen."""
    functorch = torch._C._functorch
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda", "mps", "xpu")),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_anomaly_enabled(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        functorch.peek_interpreter_stack() and functorch.peek_interpreter_stack().level(),
    )


UNTOLD = as_told()


def something() -> tuple[bytes, torch.dtype, bool]:
    """Numbers, their type, and whether gradients flow."""
    weights: Tensor = torch.nn.Linear(3, 2).weight
    with torch.no_grad():
        weights.copy_(torch.arange(6.0).view(2, 3))
    products = torch.cat([weights @ torch.ones(3, 1), torch.rand(1, 1, generator=torch.Generator().manual_seed(0))])
    return products.detach().numpy().tobytes(), products.dtype, products.requires_grad


@pytest.mark.parametrize("mode", AMBIENT.values(), ids=AMBIENT)
def test_what_is_computed_inside_is_what_is_computed_without(mode: Callable[[], AbstractContextManager[Any]]) -> None:
    expected = something()
    with mode():
        before = as_told()
        assert before != UNTOLD
        with put_away():
            assert as_told() == UNTOLD
            assert something() == expected
        assert as_told() == before
    assert as_told() == UNTOLD


@pytest.mark.parametrize("mode", AMBIENT.values(), ids=AMBIENT)
def test_it_comes_back_after_an_error(mode: Callable[[], AbstractContextManager[Any]]) -> None:
    with mode():
        before = as_told()
        with pytest.raises(ZeroDivisionError), put_away():
            _ = 1 / 0
        assert as_told() == before


def test_all_at_once() -> None:
    with torch.inference_mode(), default_device("meta"), OneMore(), torch.autocast("cpu"), HalfAsMuch():
        before = as_told()
        with put_away():
            assert as_told() == UNTOLD
            assert something()[1:] == (torch.float32, True)
        assert as_told() == before


def test_where_nothing_was_told_nothing_changes() -> None:
    with put_away():
        assert as_told() == UNTOLD
