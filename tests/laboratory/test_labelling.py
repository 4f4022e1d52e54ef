"""Labels account for a whole round, change none of its numbers and leave nothing behind."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from laboratory.labelling import labelled
from laboratory.profiling import Environments
from laboratory.stopwatch import PHASES, REST, Label, Stopwatch

from ssdkd_env.envs.distillation import StepResult
from tests.envs.episodes import BUDGET, SMALL_PROBE

STEPS, MINIBATCHES = BUDGET["inversion_steps"], BUDGET["student_steps"]


def begun(count: int = 1, **kwargs: Any) -> Environments:
    environments = Environments(
        "SSDKD/Digits-v2", {"budget": BUDGET, "probe": SMALL_PROBE, "device": "cpu"} | kwargs, count, seed=3
    )
    environments.begin()
    return environments


def once_labelled(environments: Environments) -> tuple[Stopwatch, dict[int, StepResult]]:
    watch = Stopwatch()
    with labelled(watch, environments.runs), watch.running():
        results = environments.once()
    return watch, results


def namespaces(environments: Environments) -> Iterator[Any]:
    """Everything that a wrapper could hide in: modules of ours, their classes, PyTorch's classes, the networks."""
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] == "ssdkd_env" and isinstance(module, ModuleType):
            yield module
            yield from (value for value in vars(module).values() if isinstance(value, type))
    yield from (torch.Tensor, torch.optim.Optimizer, torch.optim.Adam, torch.optim.SGD, torch.autograd.Function)
    for run in environments.runs:
        for network in (run.teacher, run._logits_teacher, run.student):
            for part in network.modules():
                yield part
                yield type(part)


def snapshot(environments: Environments) -> list[dict[str, int]]:
    return [{name: id(value) for name, value in vars(owner).items()} for owner in namespaces(environments)]


def test_every_function_is_put_back() -> None:
    environments = begun()
    before = snapshot(environments)
    with labelled(Stopwatch(), environments.runs):
        assert snapshot(environments) != before
    assert snapshot(environments) == before


def test_every_function_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    environments = begun()
    (run,) = environments.runs
    monkeypatch.setattr(run.buffer, "update", None)
    before = snapshot(environments)
    watch = Stopwatch()
    with pytest.raises(TypeError, match="not callable"), labelled(watch, environments.runs), watch.running():
        environments.once()
    assert snapshot(environments) == before
    assert watch._open == [REST]
    assert sum(watch.seconds.values()) == pytest.approx(watch.wall)


@pytest.mark.parametrize(
    ("count", "kwargs"),
    [
        (1, {}),
        (1, {"backend": "plain"}),
        (3, {}),
        (2, {"backend": "plain"}),
        (1, {"method": "deepinversion", "method_options": {"steps": 2}}),
        (1, {"method": "cmi", "method_options": {"steps": 2}}),
        (1, {"method": "vanilla_kd"}),
    ],
)
def test_labels_change_no_number(count: int, kwargs: dict[str, Any]) -> None:
    marked, plain = begun(count, **kwargs), begun(count, **kwargs)
    watch, results = once_labelled(marked)
    expected = plain.once()
    assert list(results) == list(expected) == list(range(count))
    for index in range(count):
        np.testing.assert_array_equal(results[index][0], expected[index][0])
        assert results[index][1:] == expected[index][1:]
    for run, other in zip(marked.runs, plain.runs, strict=True):
        for one, same in zip(run.student.parameters(), other.student.parameters(), strict=True):
            assert torch.equal(one, same)
    assert sum(watch.seconds.values()) == pytest.approx(watch.wall)
    assert {label.phase for label in watch.seconds} <= set(PHASES)


@pytest.mark.parametrize("backend", ["fast", "plain"])
def test_calls_of_a_round_are_those_of_its_budget(backend: str) -> None:
    watch, _ = once_labelled(begun(backend=backend))
    calls = {str(label): count for label, count in watch.calls.items()}
    assert calls["synthesis: backward"] == calls["synthesis: teacher"] == calls["synthesis: student"] == STEPS
    assert calls["synthesis: generator"] == STEPS + 1  # the finished batch
    assert calls["distillation: backward"] == calls["distillation: student"] == MINIBATCHES
    assert calls["distillation: optimiser"] == MINIBATCHES
    assert calls["distillation: teacher"] == 1  # of all minibatches, which are few, at once
    assert calls["answers: teacher"] == calls["answers: student"] == calls["refresh: student"] == 1
    assert calls["buffer: update"] == calls["observation: report"] == 1
    assert "refresh: teacher" not in calls  # its answers are remembered
    assert "observation: teacher" not in calls
    assert {"synthesis: loss", "synthesis: augmentation", "synthesis: statistics", "synthesis: optimiser"} <= set(calls)
    assert {"distillation: sampling", "distillation: augmentation", "distillation: loss"} <= set(calls)
    assert {"buffer: sampling", "answers: comparison", "refresh: comparison", "observation: student"} <= set(calls)


def test_equal_work_of_several_environments_is_labelled_as_one() -> None:
    watch, _ = once_labelled(begun(count=3))
    calls = {str(label): count for label, count in watch.calls.items()}
    assert calls["synthesis: backward"] == calls["synthesis: student"] == STEPS
    assert calls["synthesis: generator"] == STEPS + 1
    assert calls["distillation: backward"] == calls["distillation: student"] == MINIBATCHES
    assert calls["distillation: teacher"] == 3  # each run's images are another
    assert calls["buffer: update"] == calls["observation: report"] == 3
    assert {"synthesis: grouping", "distillation: grouping", "refresh: grouping", "observation: grouping"} <= set(calls)


def test_a_copy_of_a_network_has_no_label() -> None:
    environments = begun()
    (run,) = environments.runs
    watch, images = Stopwatch(), torch.zeros(2, *environments.runs[0].task.spec.image_shape)
    with labelled(watch, environments.runs), watch.running():
        copy.deepcopy(run.student)(images)
        assert not watch.calls
        run.student(images)
    assert watch.calls == {Label("rest", "student"): 1}


def test_a_compiled_network_has_the_label_of_what_was_compiled() -> None:
    environments = begun()
    (run,) = environments.runs
    images = torch.rand(2, *run.task.spec.image_shape)
    with torch.no_grad():
        expected, compiled = run.student(images), torch.compile(run.student, backend="eager")
        call, watch = type(compiled).__call__, Stopwatch()
        with labelled(watch, environments.runs), watch.running():
            answers = [compiled(images) for _ in range(3)]  # compiled in the first
        answers.append(compiled(images))
    assert all(torch.equal(answer, expected) for answer in answers)
    assert watch.calls == {Label("rest", "student"): 3}
    assert type(compiled).__call__ is call
