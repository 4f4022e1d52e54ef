"""Importance weights as a run uses them: their scale, who enters with which, and what the memory is measured in."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ssdkd_env.distillation import DistillationRun, make_method, priority
from ssdkd_env.distillation.priority import PRIORITY_EPSILON
from tests.distillation.halfway import weighed
from tests.distillation.test_run import PAPER, UNIFORM, make_run, make_task


@pytest.mark.parametrize("normalization", ["mean", "maximum", "plain"])
def test_importance_weights_are_scaled_as_the_method_says(normalization: str) -> None:
    run = make_run(3, importance_normalization=normalization)
    run.step(PAPER)
    _, log_weights = weighed(run, PAPER)
    residents = run.buffer.residents
    p = log_weights.double().softmax(dim=0)
    w = (len(p) * p) ** -PAPER.importance_exponent
    scale = {"mean": (p * w).sum(), "maximum": w.max(), "plain": torch.ones(())}[normalization]
    torch.testing.assert_close(residents.importance_weight.double(), w / scale, rtol=1e-4, atol=1e-6)


def test_candidates_enter_with_the_weight_of_residents_of_their_kl() -> None:
    run = make_run(3, make_task(buffer_capacity=64))  # room for all
    run.step(PAPER)
    residents = run.buffer.residents
    known = len(residents)
    x = (residents.discrepancy.double() + PRIORITY_EPSILON).log().numpy().copy()
    y = residents.importance_weight.double().log().numpy().copy()
    assert y.max() - y.min() > 0.1
    slope, offset = np.polyfit(x, y, 1)
    before = copy.deepcopy(run.student)
    _, log_weights = weighed(run, PAPER)
    new = run.buffer.residents.rows(slice(known, None))
    assert len(new) > 0
    with torch.no_grad():
        kl = priority.discrepancy(run.teacher(run._normalize(new.images)), before(run._normalize(new.images)))
    entering = np.exp(np.clip(offset + slope * np.log(kl.numpy() + PRIORITY_EPSILON), y.min(), y.max()))
    np.testing.assert_allclose(log_weights[known:].exp().numpy(), entering * kl.numpy() + PRIORITY_EPSILON, rtol=1e-3)


def test_before_the_first_draws_all_images_weigh_the_same() -> None:
    run = make_run(3)
    run.warm_up()
    assert (run.buffer.residents.importance_weight == 1).all()


def test_in_bfloat16_the_memory_is_measured_nearly_as_in_float32() -> None:
    run = DistillationRun(make_task(), make_method("ssdkd"), 3, precision="bfloat16")
    run.step(UNIFORM)
    residents = run.buffer.residents
    with torch.no_grad():
        inputs = run._normalize(residents.images)
        exact = priority.discrepancy(run.teacher(inputs), run.student(inputs))
        with torch.autocast("cpu", torch.bfloat16):
            logits = run._answering.network(inputs)
        rounded = priority.discrepancy(run.teacher(inputs), logits.float())
    assert residents.discrepancy.dtype == torch.float32
    torch.testing.assert_close(residents.discrepancy, rounded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(residents.discrepancy, exact, rtol=0.05, atol=0.01)
    assert not torch.equal(residents.discrepancy, exact)
