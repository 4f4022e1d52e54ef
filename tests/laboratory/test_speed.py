"""Counted operations and bytes against arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from laboratory.speed import CONVOLUTIONS, convolution_rate, cost_of_round, fastest

from ssdkd_env.distillation import DistillationRun, make_method
from ssdkd_env.tasks import load_task

CPU = torch.device("cpu")


def test_operations_of_a_round_are_those_of_the_layers() -> None:
    """Two for each multiply-add; a backward pass costs twice a forward pass, but for the first layer's inputs."""
    digits = load_task("digits")
    budget = replace(digits.spec.budget, student_steps=12, batch_size=16, warmup_rounds=1)
    # Real images: nothing is synthesised, and after the minibatches as many are measured as a small buffer holds.
    runs = [DistillationRun(digits.with_budget(budget), make_method("vanilla_kd"), 0) for _ in range(2)]
    cost = cost_of_round(*runs)

    def layers(widths: tuple[int, ...]) -> list[int]:
        pixels = (64, 16, 4)
        pairs = zip((1, *widths[:-1]), widths, pixels, strict=True)
        return [2 * 9 * before * after * size for before, after, size in pairs] + [2 * widths[-1] * 10]

    teacher, student = layers((16, 32, 64)), layers((12, 24, 48))
    image = sum(teacher) + 3 * sum(student) - student[0]
    assert cost["flops"] == pytest.approx(12 * 16 * image + budget.buffer_capacity * sum(student))
    assert cost["seconds"] > 0


def test_a_convolutions_rate_counts_two_operations_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laboratory.speed.fastest", lambda work, device: 0.5 if work().shape == (64, 8, 4, 4) else 0.0)
    assert convolution_rate(8, 4, CPU, torch.float32) == 2 * (2 * 64 * 4 * 4 * 8 * 8 * 9)
    assert len(CONVOLUTIONS) > 1


def test_the_fastest_turn_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.1, 1.0, 4.0, 10.0, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert fastest(lambda: None, CPU, turns=2) == 2.0
