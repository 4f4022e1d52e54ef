"""What PyTorch has been told of everything that it computes, put away while a run computes.

A caller may act without gradients, in inference mode or under autocast, create its numbers in float64 or on another
device, look for NaN, watch every operation, or transform its own functions. None of that is meant for a run inside,
which is the same to the last bit all the same, and all of it is there again afterwards.

What says how the machine computes stays as it is: threads, deterministic algorithms, TF32, the kernels to be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch._C import _len_torch_function_stack
from torch._C._functorch import peek_interpreter_stack
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import _disable_current_modes, is_in_torch_dispatch_mode

#: Kinds of devices that autocast may be on for.
AUTOCAST = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def put_away() -> Iterator[None]:
    """Compute as in a process that has told PyTorch nothing.

    The default type and the search for NaN belong to the process, so that its other threads miss them for as long.
    """
    with ExitStack() as stack:
        for mode in _contrary_modes():
            stack.enter_context(mode)
        yield


def _contrary_modes() -> Iterator[AbstractContextManager[Any]]:
    """A context for each thing that is otherwise now, to be entered before the next one is asked for."""
    if peek_interpreter_stack() is not None:  # transformations of `torch.func`, in which nothing may be random
        yield temporarily_clear_interpreter_stack()
    while _len_torch_function_stack():  # a default device is one of them
        yield _pop_mode_temporarily()
    if is_in_torch_dispatch_mode():
        yield _disable_current_modes()
    if torch.is_inference_mode_enabled():
        yield torch.inference_mode(False)
    if not torch.is_grad_enabled():
        yield torch.enable_grad()
    for kind in AUTOCAST:
        if torch.is_autocast_enabled(kind):
            yield torch.autocast(kind, enabled=False)
    if torch.get_default_dtype() != torch.float32:
        yield _in_float32()
    if torch.is_anomaly_enabled():  # a diverged student is a result, no error
        yield torch.autograd.set_detect_anomaly(False)


@contextmanager
def _in_float32() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
