"""What is known of the images that a run has lately synthesised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ssdkd_agents.distilling.recent import IMAGES_A_CLASS, Recent

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Budget, load_task
from tests.envs.episodes import BUDGET


class FakeRun:
    """As much of a run as is looked at: so many images of each class a step."""

    def __init__(self, classes: int) -> None:
        self.synthesized_class_counts, self.round = torch.zeros(classes, dtype=torch.float64), -1

    def step(self, *counts: float) -> FakeRun:
        self.synthesized_class_counts += torch.tensor(counts, dtype=torch.float64)
        self.round += 1
        return self


def effective(*steps: tuple[float, ...]) -> list[float | None]:
    recent, run, seen = Recent(), FakeRun(len(steps[0])), []
    for counts in steps:
        recent.see(run.step(*counts))  # type: ignore[arg-type]
        seen.append(recent.effective_classes)
    return seen


def test_effective_number_of_classes_is_the_exponential_of_the_entropy() -> None:
    assert effective((5, 5, 5, 5)) == [pytest.approx(4.0)]
    assert effective((9, 0, 0)) == [pytest.approx(1.0)]
    # -(½ ln ½ + 2 · ¼ ln ¼) = 1.5 ln 2
    assert effective((8, 4, 4)) == [pytest.approx(2**1.5)]
    assert effective((0, 0, 0)) == [None]


def test_it_is_of_the_last_steps_that_have_enough_images() -> None:
    """One step of ten images of each class is enough; of smaller ones, as many as have so many."""
    many = 2 * IMAGES_A_CLASS
    assert effective((many, 0), (0, many), (many, 0)) == [pytest.approx(1.0)] * 3
    half = IMAGES_A_CLASS
    assert effective((half, 0), (0, half), (0, half)) == [*map(pytest.approx, (1.0, 2.0, 1.0))]
    assert effective((1, 0), (0, 1), (0, 1))[-1] == pytest.approx(3 / 4 ** (1 / 3))


def test_few_images_are_not_enough_to_say() -> None:
    recent, run = Recent(), FakeRun(2)
    for count, enough in ((IMAGES_A_CLASS, False), (IMAGES_A_CLASS, True), (1, True)):
        recent.see(run.step(count, 0))  # type: ignore[arg-type]
        assert recent.is_enough is enough


def run_of(method: str = "ssdkd", **budget: int) -> DistillationRun:
    task = load_task("digits").with_budget(Budget(**(BUDGET | budget)))
    return DistillationRun(task, task.make_method(method), seed=2)


def played(recent: Recent, run: DistillationRun, rounds: int) -> list[Any]:
    """The run's images after each round, by the round in which they were made."""
    plan, came = run.method.own_plan, []
    if not run.warm:
        run.warm_up()
        recent.see(run)
        came += list(run.buffer.residents.images.clone())
    for _ in range(rounds):
        before = run.round
        run.step(plan)
        recent.see(run)
        residents = run.buffer.residents
        came += list(residents.images[residents.born == before])
    return came


@pytest.mark.parametrize("method", ["ssdkd", "fast5_plain", "dafl"])
def test_the_last_images_are_those_that_came_last_into_the_buffer(method: str) -> None:
    for most in (5, 30, 10_000):
        recent = Recent(most)
        came = played(recent, run_of(method), 3)
        images, rounds = recent.images()
        assert torch.equal(images, torch.stack(came)[-most:])
        assert len(rounds) == len(images) == min(most, len(came))
        assert rounds.tolist() == sorted(rounds.tolist()) and rounds[-1] == 2


def test_it_goes_on_from_its_state() -> None:
    whole, half = Recent(30), Recent(30)
    played(whole, run_of(), 3)
    run = run_of()
    played(half, run, 1)
    resumed = Recent(30)
    resumed.load_state_dict(half.state_dict())
    played(resumed, run, 2)
    assert resumed.effective_classes == whole.effective_classes
    assert all(map(torch.equal, resumed.images(), whole.images()))
    with pytest.raises(InvalidInputError, match="the last 30 images were held, 7 are asked for"):
        Recent(7).load_state_dict(half.state_dict())
