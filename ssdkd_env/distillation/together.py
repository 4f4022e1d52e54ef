"""Pieces of work of several runs done side by side, step by step, as long as each of them has steps left.

Pieces need not be equally long: a run whose steps are done leaves, and the others go on as a smaller group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.distillation.execution import Execution, Forward
from ssdkd_env.distillation.forward import answers
from ssdkd_env.distillation.inversion import improve
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.distillation.sources import MetaGenerator, TrainedGenerator, add_gradients, descend, make_adam
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.distillation.work import SynthesisWork, TrainingWork
from ssdkd_env.networks.grouping import NetworkGroup

#: Networks as one, with their weights.
Grouped = Callable[[Sequence[nn.Module]], NetworkGroup]


class _Minibatches:
    """The minibatches of one student, one after the other.

    Args:
        work: its piece.

    Attributes:
        trainer: the run's.
        update: moves the student.
        left: minibatches that are still to come.
        loss: sum over those that are done, a scalar tensor.
    """

    def __init__(self, work: TrainingWork) -> None:
        assert isinstance(work.trainer.update, FastUpdate)
        self.trainer, self.update = work.trainer, work.trainer.update
        self.left = len(work.draws)
        self.loss = torch.zeros((), device=work.images.device)
        self._work = work
        self._chunks = iter(self.trainer.chunks(work.draws, work.images))
        self._coming: Iterator[tuple[Tensor, Tensor, Tensor]] = iter(())
        self._answers: list[Tensor] = []

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the next minibatch shows: network inputs, the teacher's logits, importance weights."""
        if not self._answers:
            self._look_at(next(self._chunks))
        return next(self._coming)

    def give(self, student_logits: Tensor) -> None:
        """Take note of what the student answered to it."""
        self._answers.append(student_logits)
        self.left -= 1
        if len(self._answers) == self._expected:
            losses = self.trainer.loss(self._teacher_logits, torch.cat(self._answers), self._weights)
            self.loss = self.loss + losses / len(student_logits)
            self._answers = []

    def _look_at(self, chunk: Tensor) -> None:
        inputs, self._weights = self.trainer.look_at(self._work.images, self._work.weights, chunk)
        # The teacher's passes are the run's own: they fill a core alone.
        with ranges.part("teacher"):
            self._teacher_logits = answers(self.trainer.teacher, inputs)
        self._expected = len(chunk)
        seen = (inputs, self._teacher_logits, self._weights)
        self._coming = zip(*(part.split(chunk.shape[1]) for part in seen), strict=True)


def train_together(works: Sequence[TrainingWork], grouped: Grouped) -> list[Tensor]:
    """Train students on their minibatches, one of each at a time; see `StudentTrainer.train`.

    Args:
        works: of trainers whose `begin` was called; their students can be grouped.
        grouped: gives students as one.

    Returns:
        Sums of the losses.
    """
    lanes = [_Minibatches(work) for work in works]
    while active := [lane for lane in lanes if lane.left]:
        count = min(lane.left for lane in active)
        if len(active) == 1:
            _train(active, active[0].update, count)
            continue
        students = [lane.trainer.student for lane in active]
        updates = [lane.update for lane in active]
        group = grouped(students)
        update = _group_update(active, group)
        update.join(updates)
        _train(active, update, count)
        update.part(updates)
        group.scatter(students)
    for lane in lanes:
        lane.trainer.student.eval()
    return [lane.loss for lane in lanes]


def _group_update(lanes: Sequence[_Minibatches], group: NetworkGroup) -> FastUpdate:
    first = lanes[0].trainer
    return FastUpdate(
        group,
        first.settings.momentum,
        first.settings.weight_decay,
        first.temperature,
        first.distance,
        students=len(lanes),
        forward=first.execution.of(group),
    )


def _train(lanes: Sequence[_Minibatches], update: FastUpdate, count: int) -> None:
    for _ in range(count):
        with ranges.part("grouping"):
            seen = [torch.cat(parts) for parts in zip(*(lane.take() for lane in lanes), strict=True)]
        for lane, own in zip(lanes, update(*seen).chunk(len(lanes)), strict=True):
            lane.give(own)


def synthesize_together(works: Sequence[SynthesisWork], grouped: Grouped) -> list[tuple[Tensor, Tensor]]:
    """Synthesise a batch of each run, one step of each at a time; see `Inversion.synthesize`.

    Args:
        works: whose images come from generators that last; these and the students can be grouped.
        grouped: gives networks as one.

    Returns:
        Images and losses of each.
    """
    results: dict[int, tuple[Tensor, Tensor]] = {}
    inversions = [work.inversion for work in works]
    shares = torch.stack([work.buffer_share for work in works])
    targets = torch.stack([inversion.draw_targets(shares.device) for inversion in inversions])
    source = _Generators.begun(works, targets.shape[1], grouped)
    active, done = list(range(len(works))), 0
    while active:
        until = min(works[index].steps for index in active)
        objective = Objective.joined([inversions[index].objective for index in active])
        students = [student for index in active if (student := works[index].student) is not None]
        adversary = inversions[0].execution.of(grouped(students)) if students else None
        emphases = [works[index].emphasis for index in active]
        seen = targets[active].flatten(), adversary, shares[active], emphases
        parts = improve(source, objective, *seen, steps=until - done)
        objective.end_batch()
        places = {place: index for place, index in enumerate(active) if works[index].steps == until}
        objective.part({place: inversions[index].objective for place, index in places.items()})
        images = source.finish(list(places), grouped)
        results |= {index: (own, parts[place]) for (place, index), own in zip(places.items(), images, strict=True)}
        rest = [place for place in range(len(active)) if place not in places]
        active, done = [active[place] for place in rest], until
        if rest:
            source = source.without_others(rest, grouped)
    return [results[index] for index in range(len(works))]


class _Generators:
    """The generators of several runs as one source of images, of all runs one after the other.

    Args:
        members: whose they are.
        networks: that the steps move, of each.
        latents: (runs, N, latent_dim), of each.
        method: learning rates.
        execution: how they are called.
        grouped: gives networks as one.
        steps: that the batch has had.
    """

    def __init__(
        self,
        members: Sequence[MetaGenerator | TrainedGenerator],
        networks: Sequence[nn.Module],
        latents: Tensor,
        method: Method,
        execution: Execution,
        grouped: Grouped,
        steps: int = 0,
    ) -> None:
        self._members, self._networks, self._method, self._execution = members, networks, method, execution
        self._group = grouped(networks)
        self._forward: Forward = execution.of(self._group)
        self._parameters: list[Tensor] = [p for p in self._group.parameters() if p.requires_grad]
        self._latents = latents.flatten(0, 1).requires_grad_()
        self._optimizer = make_adam(method, self._parameters, [self._latents])
        self._gradients = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = steps

    @classmethod
    def begun(cls, works: Sequence[SynthesisWork], count: int, grouped: Grouped) -> _Generators:
        """Those of works, with `count` new latents each."""
        first = works[0].inversion
        members = [own for work in works if (own := work.inversion.lasting_generator()) is not None]
        networks = [member.begin_generator() for member in members]
        latents = torch.stack([member.draw_latents(count) for member in members])
        return cls(members, networks, latents, first.method, first.execution, grouped)

    @ranges.part("generator")
    def images(self) -> Tensor:
        """(runs · N, C, H, W)."""
        return self._forward(self._latents)

    def step(self, loss: Tensor) -> None:
        """One step of every member; the loss is the sum of theirs."""
        descend(self._optimizer, loss)
        add_gradients(self._gradients, self._parameters)
        self._steps += 1

    def finish(self, places: Sequence[int], grouped: Grouped) -> list[Tensor]:
        """Give all networks their weights back, and end the batch of some members; the images of these."""
        self._group.scatter(self._networks)
        shares = self._group.shares(self._gradients)
        for place in places:
            self._members[place].end_generator(shares[place], self._steps)
        networks, latents = self._only(places)
        # Those that go on do not see this pass, of which BatchNorm would take note.
        group = grouped(networks)
        with torch.no_grad(), ranges.part("generator"):
            images: Tensor = self._execution.of(group)(latents.flatten(0, 1))
        group.scatter(networks)
        return list(images.chunk(len(places)))

    @ranges.part("grouping")
    def without_others(self, places: Sequence[int], grouped: Grouped) -> _Generators:
        """These members alone, in the middle of their batch."""
        networks, latents = self._only(places)
        members = [self._members[place] for place in places]
        rest = _Generators(members, networks, latents, self._method, self._execution, grouped, self._steps)
        old, new = [*self._parameters, self._latents], [*rest._parameters, rest._latents]
        for mine, theirs in zip(old, new, strict=True):
            # Steps are counted in common, moments are like the parameter.
            rest._optimizer.state[theirs] = {
                name: self._share(value, places, theirs) if value.dim() else value.clone()
                for name, value in self._optimizer.state.get(mine, {}).items()
            }
        rest._gradients = [
            self._share(mine, places, theirs) for mine, theirs in zip(self._gradients, rest._gradients, strict=True)
        ]
        return rest

    def _only(self, places: Sequence[int]) -> tuple[list[nn.Module], Tensor]:
        latents = self._latents.detach().unflatten(0, (len(self._members), -1))
        return [self._networks[place] for place in places], latents[list(places)]

    def _share(self, value: Tensor, places: Sequence[int], like: Tensor) -> Tensor:
        """Some members' part of a tensor, in the layout of another: fused optimisers want all strides alike."""
        parts = value.chunk(len(self._members))
        return torch.empty_like(like).copy_(torch.cat([parts[place] for place in places]))
