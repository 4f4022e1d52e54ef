"""Several runs at once: like pieces of their work are done as one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.forward import images_a_pass, logits_of
from ssdkd_env.distillation.together import synthesize_together, train_together
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.distillation.work import LogitsWork, SynthesisWork, TrainingWork, Work, helped_by
from ssdkd_env.networks.grouping import NetworkGroup, can_group
from ssdkd_env.threads import one_at_a_time

ResultT = TypeVar("ResultT")
#: Parameters of groups that are kept (half a gigabyte with their gradients), and groups that are kept in any case: a
#: student as adversary and in training, and a generator.
MOST_PARAMETERS, FEWEST_GROUPS = 64_000_000, 3


@one_at_a_time
class GroupedRuns:
    """Does the work of several runs of one method, which may be at different rounds.

    Runs that ask for like pieces at the same time are served together, each for as many steps as it wants: their
    students and generators are one grouped network each, and the teacher inverts and answers for all in one pass (it
    teaches each its own minibatches, which fill a core alone). Weights, moments and random streams stay with the runs,
    so that each gives what it would give alone, but for rounding. What cannot be done together is done run by run: runs
    whose teacher or kind of student no other has (instances of a set), networks without a grouped form, the plain
    backend, and methods whose images do not come from a generator that is kept from batch to batch.
    """

    def __init__(self) -> None:
        self._possible: dict[Hashable, bool] = {}
        self._groups: dict[Hashable, NetworkGroup] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy makes its groups anew; weights are the runs'."""
        return GroupedRuns, ()

    def play(self, calls: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
        """Make the calls, each of which plays one run, and do what is equal in their work as one.

        Each call is made in a greenlet, which stops where it comes to a piece of work. When all have stopped or
        returned, the pieces are done and each goes on with its result. What a call raises, this raises; the others end
        where they stand, and undo the step that they are in.

        Returns:
            What each call returns.
        """
        parent = getcurrent()
        players = [greenlet(partial(_play, call, parent.switch)) for call in calls]
        results: dict[int, ResultT] = {}
        given: dict[int, Any] = dict.fromkeys(range(len(calls)))
        try:
            while given:
                waiting: dict[Hashable, dict[int, Work[Any]]] = {}
                for index, result in given.items():
                    came = players[index].switch(result)
                    if players[index].dead:
                        results[index] = came
                    else:
                        waiting.setdefault(came.key, {})[index] = came
                given = {}
                for pieces in waiting.values():
                    given |= zip(pieces, self._do(list(pieces.values())), strict=True)
        finally:
            for player in players:
                if not player.dead:  # an error has left it waiting
                    player.throw()
        return [results[index] for index in range(len(calls))]

    def _do(self, works: list[Any]) -> list[Any]:
        """The results of like pieces of work, together where that is possible."""
        ways: dict[type, Callable[[Any], list[Any] | None]] = {
            SynthesisWork: self._synthesize,
            TrainingWork: self._train,
            LogitsWork: self._answer,
        }
        with ranges.phase(works[0].name):
            done = ways[type(works[0])](works) if len(works) > 1 else None
            return [work.alone() for work in works] if done is None else done

    def _can_group(self, network: nn.Module, input_shape: Sequence[int]) -> bool:
        """Whether such networks have a grouped form; tried once for each kind."""
        kind = _kind(network)
        if kind not in self._possible:
            device = next(network.parameters()).device

            def example(count: int) -> Tensor:
                random = torch.Generator().manual_seed(0)
                return torch.randn(count, *input_shape, dtype=torch.float64, generator=random).to(device)

            self._possible[kind] = can_group(network, example)
        return self._possible[kind]

    def _group(self, networks: Sequence[nn.Module]) -> NetworkGroup:
        """Networks of a kind that has a grouped form as one, with their weights."""
        key = _kind(networks[0]), len(networks)
        group = self._groups.pop(key, None)
        if group is None:
            group = NetworkGroup(networks[0], len(networks))
            self._make_room(group)
        self._groups[key] = group  # as the last one
        group.gather(networks)
        return group

    def _make_room(self, group: NetworkGroup) -> None:
        """Forget what was used longest ago: groups shrink step by step, and all sizes of a large network are much."""
        while len(self._groups) >= FEWEST_GROUPS:
            if sum(map(_parameters, (*self._groups.values(), group))) <= MOST_PARAMETERS:
                return
            del self._groups[next(iter(self._groups))]

    def _answer(self, works: list[LogitsWork]) -> list[Tensor] | None:
        networks, images = [work.network for work in works], [work.images for work in works]
        count, normalize = len(works), works[0].normalize
        if all(network is networks[0] for network in networks):
            with ranges.part(works[0].role):
                logits = logits_of(works[0].execution.of(networks[0]), torch.cat(images), normalize)
            return list(logits.chunk(count))
        if not self._can_group(networks[0], images[0].shape[1:]):
            return None
        forward = works[0].execution.of(self._group(networks))
        share = max(images_a_pass(images[0]) // count, 1)
        chunks = zip(*(each.split(share) for each in images), strict=True)
        with torch.no_grad(), ranges.part(works[0].role):
            shares = [forward(normalize(torch.cat(chunk))).chunk(count) for chunk in chunks]
        return [torch.cat(parts) for parts in zip(*shares, strict=True)]

    def _train(self, works: list[TrainingWork]) -> list[Tensor] | None:
        trainers = [work.trainer for work in works]
        if not all(isinstance(trainer.update, FastUpdate) for trainer in trainers):
            return None
        if not self._can_group(trainers[0].student, works[0].images.shape[1:]):
            return None
        for work in works:
            work.trainer.begin(work.learning_rate)
        return train_together(works, self._group)

    def _synthesize(self, works: list[SynthesisWork]) -> list[tuple[Tensor, Tensor]] | None:
        inversions = [work.inversion for work in works]
        sources = [own for inversion in inversions if (own := inversion.lasting_generator()) is not None]
        if len(sources) < len(works):
            return None
        student = works[0].student
        if student is not None and not self._can_group(student, inversions[0].image_shape):
            return None
        if not self._can_group(sources[0].begin_generator(), (inversions[0].latent_dim,)):
            return None
        return synthesize_together(works, self._group)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _kind(network: nn.Module) -> Hashable:
    """Networks of one kind are grouped by one form."""
    shapes = tuple(parameter.shape for parameter in network.parameters())
    # Every traced network has a class of its own, so the name has to do; its text shows its operations.
    return type(network).__qualname__, str(network), shapes


def _play(call: Callable[[], ResultT], hand_over: Callable[[Work[Any]], Any], _: None) -> ResultT:
    """Make a call whose work is handed over to whoever plays the others."""

    def helper(work: Work[Any]) -> Any:
        # Gradient mode and autocast belong to the thread: a run that stopped inside would leave them to the others.
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        return hand_over(work)

    with helped_by(helper):
        return call()
