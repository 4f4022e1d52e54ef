"""Labels around the engine's own functions, put there from outside and taken away again.

The engine knows nothing of labels. For the duration of a `with` block the functions that matter are wrapped: each says
on entering which part of which phase of the round it is, and on leaving that it is over. A second belongs to the
innermost label, so that the labels together are the whole round.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias
from unittest import mock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from laboratory.stopwatch import Labels
from ssdkd_env.distillation import (
    DistillationRun,
    ReplayBuffer,
    grouped,
    objective,
    priority,
    sources,
    student,
    updates,
)
from ssdkd_env.distillation import run as run_module
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.batch_norm import BatchNormStatistics, _MeanAndVariance
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.distillation.student import StudentTrainer
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.distillation.work import LogitsWork, SynthesisWork, TrainingWork, Work
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.judging import Judge
from ssdkd_env.envs.observations import Observer
from ssdkd_env.networks.grouping import NetworkGroup

#: Phase and part of a label, as `Labels.enter` takes them.
Place: TypeAlias = tuple[str | None, str | None]
Wrapping: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
#: The phases that a run, or an environment, writes as generators of work: owner, method, phase.
COURSES: tuple[tuple[Any, str, str], ...] = (
    (DistillationRun, "_synthesize", "synthesis"),
    (DistillationRun, "_entries", "answers"),
    (DistillationRun, "_distill", "distillation"),
    (DistillationRun, "_refresh", "refresh"),
    (Judge, "look", "observation"),
)
#: Functions: owner, name, phase (None: that of the caller), part (None: `OTHER`).
CALLS: tuple[tuple[Any, str, str | None, str | None], ...] = (
    (DistillationRun, "_update_buffer", "buffer", None),
    (DistillationRun, "_weigh", "buffer", "sampling"),
    (ReplayBuffer, "update", "buffer", "update"),
    (priority, "sampling_probabilities", "distillation", "sampling"),
    *((priority, name, None, "sampling") for name in ("gumbel", "importance_weights", "draw_with_replacement")),
    *((priority, name, None, "comparison") for name in ("class_share", "confidence", "discrepancy", "agreement")),
    (StudentTrainer, "look_at", None, "sampling"),  # gathers what was drawn; the augmentation inside is its own part
    (student, "random_crop_flip", None, "augmentation"),
    (objective, "random_crop_flip", None, "augmentation"),
    (Normalize, "__call__", None, "augmentation"),
    (Objective, "__call__", None, "loss"),
    (updates, "loss_gradient", None, "loss"),
    (updates, "distillation_loss", None, "loss"),
    (StudentTrainer, "loss", None, "loss"),
    (_MeanAndVariance, "apply", None, "statistics"),
    (BatchNormStatistics, "loss", None, "statistics"),
    (Tensor, "backward", None, "backward"),
    (sources, "make_adam", None, "optimiser"),
    (grouped, "make_adam", None, "optimiser"),
    *((source, "step", None, "optimiser") for source in (sources.MetaGenerator, sources.TrainedGenerator)),
    (sources.Pixels, "step", None, "optimiser"),
    (grouped._GeneratorGroup, "step", None, "optimiser"),
    (torch.optim.Adam, "step", None, "optimiser"),
    (torch.optim.SGD, "step", None, "optimiser"),
    (FastUpdate, "_descend", None, "optimiser"),
    *((FastUpdate, name, None, "grouping") for name in ("join", "part")),
    (NetworkGroup, "scatter", None, "grouping"),
    (grouped, "_by_minibatch", None, "grouping"),
    (run_module, "make_report", "observation", "report"),
    *((SSDKDEnv, name, "observation", None) for name in ("_score_now", "_curve_point", "_info")),
    *((Observer, name, "observation", None) for name in ("begin", "see", "observation")),
)


@contextmanager
def labelled(labels: Labels, runs: Sequence[DistillationRun]) -> Iterator[None]:
    """Wrap what the runs and their environments call, so that it enters and leaves its labels.

    Every function is put back at the end, after an exception too. Numbers do not change.

    Args:
        labels: what is entered and left.
        runs: whose networks are told apart as teacher, student and generator.
    """
    wrap = _Wrapping(labels, runs)
    with ExitStack() as undo:

        def replace(owner: Any, name: str, wrapping: Wrapping) -> None:
            wrapped = wrapping(getattr(owner, name))
            static = isinstance(inspect.getattr_static(owner, name), staticmethod | classmethod)
            undo.enter_context(mock.patch.object(owner, name, staticmethod(wrapped) if static else wrapped))

        for owner, name, phase, part in CALLS:
            replace(owner, name, wrap.under((phase, part)))
        for owner, name, phase in COURSES:
            replace(owner, name, wrap.course(phase))
        for work in (SynthesisWork, TrainingWork, LogitsWork):
            replace(work, "alone", wrap.under(wrap.of_work))
        replace(GroupedRuns, "_do", wrap.under(lambda _, works: wrap.of_work(works[0])))
        replace(GroupedRuns, "_group", wrap.group)
        for network in {NetworkGroup, *map(type, wrap.roles)}:
            replace(network, "forward", wrap.under(wrap.of_network))
        if compiler := sys.modules.get("torch._dynamo.eval_frame"):
            of_compiled = wrap.under(lambda network, *_: wrap.of_network(network._orig_mod))
            replace(compiler.OptimizedModule, "__call__", of_compiled)
        yield


class _Wrapping:
    """Makes wrappers, which take a function and return one that does the same inside a label.

    Args:
        labels: what is entered and left.
        runs: whose networks have roles.

    Attributes:
        roles: network → `"teacher"`, `"student"` or `"generator"`.
    """

    def __init__(self, labels: Labels, runs: Sequence[DistillationRun]) -> None:
        self._labels = labels
        self._phases: WeakKeyDictionary[Work, str] = WeakKeyDictionary()
        self.roles: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        for run in runs:
            self.roles[run.teacher] = self.roles[run._logits_teacher] = "teacher"
            self.roles[run.student] = "student"
            for value in vars(run.inversion.source).values():
                if isinstance(value, nn.Module):  # the generator, and its clone
                    self.roles[value] = "generator"

    def under(self, label: Place | Callable[..., Place | None]) -> Wrapping:
        """Put a function under a label, or under that which its arguments have, if they have one."""

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                place = label(*args) if callable(label) else label
                if place is None:
                    return original(*args, **kwargs)
                self._labels.enter(*place)
                try:
                    return original(*args, **kwargs)
                finally:
                    self._labels.leave()

            return wrapper

        return wrap

    def of_work(self, work: Work) -> Place:
        """A piece of work, or several equal ones, belongs to the phase whose course asked for it."""
        return self._phases.get(work), None

    def of_network(self, network: nn.Module, *_: Any) -> Place | None:
        """A network's pass belongs to its role; others of the same class, such as copies or layers, have none."""
        if torch.compiler.is_compiling():  # what is compiled here keeps no label
            return None
        role = self.roles.get(network)
        return None if role is None else (None, role)

    def course(self, phase: str) -> Wrapping:
        """For a generator of work: each of its stretches, and the work that it asks for, are of this phase."""

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                send, answer = self.under((phase, None))(original(*args, **kwargs).send), None
                while True:
                    try:
                        piece = send(answer)
                    except StopIteration as end:
                        return end.value
                    self._phases.setdefault(piece, phase)  # an inner course has seen the piece before an outer one
                    answer = yield piece

            return wrapper

        return wrap

    def group(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """For the gathering of networks into one, which takes over their role."""
        gather = self.under((None, "grouping"))(original)

        @functools.wraps(original)
        def wrapper(runs: GroupedRuns, networks: Sequence[nn.Module], *args: Any) -> Any:
            group = gather(runs, networks, *args)
            if group is not None and networks[0] in self.roles:
                self.roles[group] = self.roles[networks[0]]
            return group

        return wrapper
