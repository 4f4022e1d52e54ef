"""P over buffer and candidates, distribution against distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ssdkd_env.distillation import DistillationRun, SamplingPlan, make_method
from ssdkd_env.distillation.buffer import Entries
from ssdkd_env.distillation.sampling import draw, log_weights, replacement_keys
from ssdkd_env.distillation.scoring import BinScorer, ClassBinScorer, NeuralScorer, SampleFeatures, Scorer
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Task
from ssdkd_env.tasks.task import build_teacher
from tests.distillation.rows import CLASSES, distribution, make_entries
from tests.distillation.test_run import UNIFORM, make_run, recorded_logits
from tests.own_networks import DENSE_TASK

EPSILON = 1e-2
PAPER_BY_SCORERS: dict[str, Scorer] = {
    "bins": BinScorer(1.0, torch.zeros(3, 4)),
    "class_bins": ClassBinScorer(1.0, torch.zeros(CLASSES, 4)),
    "samples": NeuralScorer(torch.eye(7)[0], torch.zeros(3, 7), torch.zeros(3), torch.zeros(3)),
}


def buffer_and_candidates(dense: bool) -> tuple[Entries, Entries, Tensor]:
    residents, candidates = make_entries(10, 1, dense=dense), make_entries(6, 2, dense=dense)
    candidates.importance_weight.fill_(1.0)
    return residents, candidates, residents.class_share.mean(dim=0)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", PAPER_BY_SCORERS)
def test_every_scorer_can_say_the_papers_sampler(name: str, dense: bool) -> None:
    residents, candidates, share = buffer_and_candidates(dense)
    found = log_weights(SamplingPlan(scorer=PAPER_BY_SCORERS[name]), share, residents, candidates)
    delta = torch.cat([(each.importance_weight * each.discrepancy).double() for each in (residents, candidates)])
    expected = (delta + EPSILON) / (delta + EPSILON).sum()
    torch.testing.assert_close(distribution(found), expected, rtol=1e-5, atol=1e-9)
    assert expected.max() > 2 * expected.min()


@pytest.mark.parametrize("dense", [False, True])
def test_three_exponents_are_the_first_three_weights_of_the_network(dense: bool) -> None:
    residents, candidates, share = buffer_and_candidates(dense)
    linear = torch.tensor([0.7, -1.2, 1.9, 0.0, 0.0, 0.0, 0.0])
    by_network = NeuralScorer(linear, torch.zeros(3, 7), torch.zeros(3), torch.zeros(3))
    found = []
    for plan in (SamplingPlan(0.7, -1.2, 1.9), SamplingPlan(scorer=by_network)):
        found.append(distribution(log_weights(plan, share, residents, candidates)))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-9)


def test_scores_belong_to_residents_first_and_to_candidates_then() -> None:
    residents, candidates, share = buffer_and_candidates(False)
    plan = SamplingPlan(scorer=lambda features: torch.arange(float(len(features))))
    assert log_weights(plan, share, residents, candidates).tolist() == list(range(16))
    by_priority = log_weights(SamplingPlan(), share, residents, candidates)
    torch.testing.assert_close(by_priority[:10], log_weights(SamplingPlan(), share, residents))


def test_residents_alone_are_weighed_where_there_are_no_candidates() -> None:
    residents, _, share = buffer_and_candidates(False)
    by_scorer = log_weights(SamplingPlan(scorer=PAPER_BY_SCORERS["samples"]), share, residents)
    by_exponents = log_weights(SamplingPlan(), share, residents)
    torch.testing.assert_close(distribution(by_scorer), distribution(by_exponents), rtol=1e-5, atol=1e-9)


def test_a_scorer_that_is_learnt_leaves_no_gradient_behind() -> None:
    residents, candidates, share = buffer_and_candidates(False)
    linear = torch.ones(7, requires_grad=True)
    scorer = NeuralScorer(linear, torch.zeros(3, 7), torch.zeros(3), torch.zeros(3))
    assert not log_weights(SamplingPlan(scorer=scorer), share, residents, candidates).requires_grad


@pytest.mark.parametrize("form", [lambda n: (n - 1,), lambda n: (n + 1,), lambda n: (n, 1), lambda n: ()])
def test_another_number_of_scores_is_refused(form: Callable[[int], tuple[int, ...]]) -> None:
    residents, candidates, share = buffer_and_candidates(False)
    plan = SamplingPlan(scorer=lambda features: torch.zeros(form(len(features))))
    with pytest.raises(InvalidInputError, match=r"SamplingPlan\.scorer gave shape .*, expected \(16,\)"):
        log_weights(plan, share, residents, candidates)


# --- draws ---


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("reweighted", [False, True])
def test_draws_follow_p_or_the_loss_does(reweighted: bool) -> None:
    """In both, an image's expected part of the loss is P·w."""
    weights = torch.tensor([0.0, 1.0, 2.0])
    plan = SamplingPlan(importance_exponent=0.5, reweighted=reweighted)
    drawn = draw(plan, weights, "plain", (400, 500), generator())
    p = distribution(weights)
    torch.testing.assert_close(drawn.probabilities, p)
    w = (3 * p) ** -0.5
    torch.testing.assert_close(drawn.importance_weights.double(), w, rtol=1e-5, atol=0.0)
    assert drawn.rows.shape == (400, 500) and drawn.rows.dtype == torch.int64
    counts = drawn.rows.flatten().bincount(minlength=3).double() / drawn.rows.numel()
    torch.testing.assert_close(counts, torch.full((3,), 1 / 3).double() if reweighted else p, rtol=0.0, atol=0.005)
    torch.testing.assert_close(counts * drawn.loss_weights, p * w, rtol=0.01, atol=0.0)


def test_the_highest_replacement_key_is_a_draw_from_p() -> None:
    weights, random = torch.tensor([0.0, 1.0, 2.0]), generator()
    first = torch.stack([replacement_keys(weights, random).argmax() for _ in range(20_000)]).bincount(minlength=3)
    torch.testing.assert_close(first.double() / 20_000, distribution(weights), rtol=0.0, atol=0.015)


# --- in a run ---


def test_a_scorer_sees_the_candidates_of_its_own_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its log-weights are those that buffer and candidates compete with."""
    seen: list[SampleFeatures] = []

    def scorer(features: SampleFeatures) -> Tensor:
        seen.append(features)
        return features.column("difficulty_rank")

    run = make_run(8)
    run.step(UNIFORM)
    logits = recorded_logits(run, SamplingPlan(scorer=scorer), monkeypatch)
    assert len(seen) == 1
    assert len(seen[0]) == 24 + 16
    assert torch.equal(logits, seen[0].column("difficulty_rank"))
    newest = seen[0].column("age_rank") == seen[0].column("age_rank").min()
    assert newest[24:].all(), "candidates are the youngest"


def test_the_log_weights_of_a_scorer_given_as_logits_make_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    by_scorer, by_logits = make_run(8), make_run(8)
    for run in (by_scorer, by_logits):
        run.step(UNIFORM)
    logits = recorded_logits(by_scorer, SamplingPlan(scorer=BinScorer(0.5, torch.arange(12.0).view(3, 4))), monkeypatch)
    by_logits.step(SamplingPlan(logits=logits))
    assert torch.equal(by_scorer.buffer.residents.images, by_logits.buffer.residents.images)
    pairs = zip(by_scorer.student.parameters(), by_logits.student.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


#: Of methods with several batches a round, with real images, and with a memory that grows.
OTHER_METHODS: dict[str, dict[str, Any]] = {"dafl": {}, "vanilla_kd": {"real_share": 0.01}, "fast5": {"steps": 2}}


@pytest.mark.parametrize("method", OTHER_METHODS)
@pytest.mark.parametrize("name", ["bins", "samples"])
def test_scorers_serve_methods_of_every_memory(method: str, name: str) -> None:
    task = make_run().task
    by_scorer, by_exponents = (DistillationRun(task, make_method(method, OTHER_METHODS[method]), 0) for _ in range(2))
    for _ in range(2):
        report = by_scorer.step(SamplingPlan(scorer=PAPER_BY_SCORERS[name]))
        expected = by_exponents.step(SamplingPlan())
        assert report.student_loss == pytest.approx(expected.student_loss, rel=1e-3)
        assert report.effective_sample_size == pytest.approx(expected.effective_sample_size, rel=1e-3)


def test_scorers_serve_dense_prediction() -> None:
    run = make_run(0, Task(DENSE_TASK, build_teacher(DENSE_TASK, seed=0)))
    table = torch.arange(16.0).view(4, 4) / 8
    for _ in range(2):
        report = run.step(SamplingPlan(scorer=ClassBinScorer(1.0, table)))
        assert not report.diverged
        assert report.effective_sample_size < 1
