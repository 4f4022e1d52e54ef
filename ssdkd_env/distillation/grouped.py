"""Several runs at once: equal pieces of their work are done as one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.execution import Execution, Forward
from ssdkd_env.distillation.forward import answers, images_a_pass, logits_of
from ssdkd_env.distillation.inversion import improve
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.distillation.sources import MetaGenerator, TrainedGenerator, add_gradients, descend, make_adam
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.distillation.work import LogitsWork, SynthesisWork, TrainingWork, Work, helped_by
from ssdkd_env.networks.grouping import NetworkGroup, can_group
from ssdkd_env.threads import one_at_a_time

ResultT = TypeVar("ResultT")


@one_at_a_time
class GroupedRuns:
    """Does the work of several runs of one method, which may be at different rounds.

    Runs that ask for equal pieces at the same time are served together: their students and generators are one grouped
    network each, and the teacher inverts and answers for all in one pass (it teaches each its own minibatches, which
    fill a core alone). Weights, moments and random streams stay with the runs, so that each gives what it would give
    alone, but for rounding. What cannot be done together is done run by run: runs whose teacher or kind of student no
    other has (instances of a set), networks without a grouped form, the plain backend, and methods whose images do not
    come from a generator that is kept from batch to batch.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, NetworkGroup | None] = {}

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
        """The results of equal pieces of work, together where that is possible."""
        ways: dict[type, Callable[[Any], list[Any] | None]] = {
            SynthesisWork: self._synthesize,
            TrainingWork: self._train,
            LogitsWork: self._answer,
        }
        with ranges.phase(works[0].name):
            done = ways[type(works[0])](works) if len(works) > 1 else None
            return [work.alone() for work in works] if done is None else done

    def _group(self, networks: Sequence[nn.Module], input_shape: Sequence[int]) -> NetworkGroup | None:
        """The networks as one, with their weights; None where they have no grouped form."""
        first = networks[0]
        shapes = tuple(parameter.shape for parameter in first.parameters())
        # Every traced network has a class of its own, so the name has to do; its text shows its operations.
        key = (type(first).__qualname__, str(first), shapes, len(networks))
        if key not in self._groups:
            device = next(first.parameters()).device

            def example(count: int) -> Tensor:
                random = torch.Generator().manual_seed(0)
                return torch.randn(count, *input_shape, dtype=torch.float64, generator=random).to(device)

            possible = can_group(first, example)
            self._groups[key] = NetworkGroup(first, len(networks)) if possible else None
        group = self._groups[key]
        if group is not None:
            group.gather(networks)
        return group

    def _answer(self, works: list[LogitsWork]) -> list[Tensor] | None:
        networks, images = [work.network for work in works], [work.images for work in works]
        count, normalize = len(works), works[0].normalize
        if all(network is networks[0] for network in networks):
            with ranges.part(works[0].role):
                logits = logits_of(works[0].execution.of(networks[0]), torch.cat(images), normalize)
            return list(logits.chunk(count))
        group = self._group(networks, images[0].shape[1:])
        if group is None:
            return None
        forward = works[0].execution.of(group)
        share = max(images_a_pass(images[0]) // count, 1)
        chunks = zip(*(each.split(share) for each in images), strict=True)
        with torch.no_grad(), ranges.part(works[0].role):
            shares = [forward(normalize(torch.cat(chunk))).chunk(count) for chunk in chunks]
        return [torch.cat(parts) for parts in zip(*shares, strict=True)]

    def _train(self, works: list[TrainingWork]) -> list[Tensor] | None:
        trainers = [work.trainer for work in works]
        updates = [trainer.update for trainer in trainers if isinstance(trainer.update, FastUpdate)]
        if len(updates) < len(works):
            return None
        for work in works:
            work.trainer.begin(work.learning_rate)
        students = [trainer.student for trainer in trainers]
        group = self._group(students, works[0].images.shape[1:])
        if group is None:
            return None
        losses = _train_group(works, group, updates)
        group.scatter(students)
        for student in students:
            student.eval()
        return losses

    def _synthesize(self, works: list[SynthesisWork]) -> list[tuple[Tensor, Tensor]] | None:
        inversions = [work.inversion for work in works]
        sources = [own for inversion in inversions if (own := inversion.lasting_generator()) is not None]
        if len(sources) < len(works):
            return None
        execution = inversions[0].execution
        student: Forward | None = None
        if works[0].student is not None:
            students = [work.student for work in works if work.student is not None]
            group = self._group(students, inversions[0].image_shape)
            if group is None:
                return None
            student = execution.of(group)
        generators = [own.begin_generator() for own in sources]
        generator = self._group(generators, (inversions[0].latent_dim,))
        if generator is None:
            return None
        method = inversions[0].method
        source = _GeneratorGroup(generator, sources, method, execution)
        objective = Objective.joined([inversion.objective for inversion in inversions])
        shares = torch.stack([work.buffer_share for work in works])
        targets = torch.cat([inversion.draw_targets(shares.device) for inversion in inversions])
        emphases = [work.emphasis for work in works]
        parts = improve(source, objective, targets, student, shares, emphases, works[0].steps)
        images = source.finish()
        generator.scatter(generators)
        objective.part([inversion.objective for inversion in inversions])
        return list(zip(images.chunk(len(works)), parts, strict=True))


def _play(call: Callable[[], ResultT], hand_over: Callable[[Work[Any]], Any], _: None) -> ResultT:
    """Make a call whose work is handed over to whoever plays the others."""

    def helper(work: Work[Any]) -> Any:
        # Gradient mode and autocast belong to the thread: a run that stopped inside would leave them to the others.
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        return hand_over(work)

    with helped_by(helper):
        return call()


def _train_group(works: list[TrainingWork], group: NetworkGroup, updates: list[FastUpdate]) -> list[Tensor]:
    """The students' minibatches, one of each student's at a time; see `StudentTrainer.train`. Sums of the losses."""
    trainer, count, batch_size = works[0].trainer, len(works), works[0].draws.shape[1]
    update = FastUpdate(
        group,
        trainer.settings.momentum,
        trainer.settings.weight_decay,
        trainer.temperature,
        trainer.distance,
        students=count,
        forward=trainer.execution.of(group),
    )
    update.join(updates)
    totals = [torch.zeros((), device=works[0].images.device) for _ in works]
    for chunks in zip(*(trainer.chunks(work.draws, work.images) for work in works), strict=True):
        looks = [
            work.trainer.look_at(work.images, work.weights, chunk) for work, chunk in zip(works, chunks, strict=True)
        ]
        with ranges.part("teacher"):
            teacher_logits = [answers(trainer.teacher, inputs) for inputs, _ in looks]
        steps = zip(
            *(_by_minibatch(parts, batch_size) for parts in (*zip(*looks, strict=True), teacher_logits)), strict=True
        )
        student_logits = torch.stack([update(inputs, logits, weights) for inputs, weights, logits in steps])
        for index, own in enumerate(student_logits.unflatten(1, (count, batch_size)).unbind(1)):
            weights = looks[index][1]
            totals[index] += trainer.loss(teacher_logits[index], own.flatten(0, 1), weights) / batch_size
    update.part(updates)
    return totals


@ranges.part("grouping")
def _by_minibatch(parts: Sequence[Tensor], batch_size: int) -> Tensor:
    """The runs' minibatches · batch_size rows each → (minibatches, runs · batch_size, …)."""
    by_run = torch.stack(list(parts)).unflatten(1, (-1, batch_size))
    by_minibatch: Tensor = by_run.transpose(0, 1).flatten(1, 2)
    return by_minibatch


class _GeneratorGroup:
    """The generators of several runs as one source of images, of all runs one after the other.

    Args:
        generator: the networks that the steps move, as one.
        members: whose they are.
        method: learning rates.
        execution: how they are called.
    """

    def __init__(
        self,
        generator: NetworkGroup,
        members: Sequence[MetaGenerator | TrainedGenerator],
        method: Method,
        execution: Execution,
    ) -> None:
        self._generator, self._members, self._method = generator, members, method
        self._forward = execution.of(generator)
        self._parameters: list[Tensor] = [p for p in generator.parameters() if p.requires_grad]

    def begin(self, targets: Tensor) -> None:
        """Every member's latents, and an optimiser for the batch."""
        count = len(targets) // len(self._members)
        self._latents = torch.cat([member.draw_latents(count) for member in self._members]).requires_grad_()
        self._optimizer = make_adam(self._method, self._parameters, [self._latents])
        self._gradients = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    @ranges.part("generator")
    def images(self) -> Tensor:
        """(runs · N, C, H, W)."""
        return self._forward(self._latents)

    def step(self, loss: Tensor) -> None:
        """One step of every member; the loss is the sum of theirs."""
        descend(self._optimizer, loss)
        add_gradients(self._gradients, self._parameters)
        self._steps += 1

    def finish(self) -> Tensor:
        """End the batch of every member; its images, without gradient."""
        for member, gradients in zip(self._members, self._generator.shares(self._gradients), strict=True):
            member.end_generator(gradients, self._steps)
        with torch.no_grad():
            return self.images()
