"""Whole runs of every method on tiny budgets: what is the same for all, and what each does with its memory."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation import METHODS, DistillationRun, Method, RoundReport, SamplingPlan, make_method
from ssdkd_env.distillation.allowance import LEAST
from ssdkd_env.distillation.student import WHOLE, Share
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.tasks import Task, TaskSpec, load_task
from ssdkd_env.tasks.digits import split_digits
from ssdkd_env.tasks.task import LabelledImages, build_teacher
from tests.distillation.halfway import weighed
from tests.distillation.test_run import check_report, plain, same_state
from tests.own_networks import DENSE_TASK

CPU = torch.device("cpu")
BUDGET = {
    "rounds": 2,
    "warmup_rounds": 2,
    "candidates": 8,
    "inversion_steps": 2,
    "student_steps": 7,
    "batch_size": 8,
    "buffer_capacity": 12,
}
TRAINING_IMAGES, HELD_OUT_IMAGES = 40, 20
BY_MEMORY = {
    memory: [name for name, method in METHODS.items() if method.memory == memory]
    for memory in ("buffer", "pool", "stream", "real")
}
UNIFORM = SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0)


def real_data(spec: TaskSpec, dense: bool = False) -> tuple[LabelledImages, LabelledImages]:
    """Random images: even pixel values in the training part, odd ones in the held-out part."""
    random = torch.Generator().manual_seed(1)
    parts = []
    for count, odd in ((TRAINING_IMAGES, 0), (HELD_OUT_IMAGES, 1)):
        images = 2 * torch.randint(128, (count, *spec.image_shape), generator=random) + odd
        labels = torch.randint(spec.num_classes, (count, *(spec.image_shape[1:] if dense else ())), generator=random)
        parts.append((images.to(torch.uint8), labels))
    return parts[0], parts[1]


def make_task(training_set_size: int = TRAINING_IMAGES, **budget: int) -> Task:
    """The digits task with few real images."""
    digits = load_task("digits", budget=BUDGET | budget)
    spec = replace(digits.spec, teacher_data=lambda: real_data(digits.spec), training_set_size=training_set_size)
    return Task(spec, digits.teacher_on(CPU))


def untrained_task(spec: TaskSpec, dense: bool = False) -> Task:
    spec = replace(spec, teacher_data=lambda: real_data(spec, dense))
    return Task(spec, build_teacher(spec, seed=0))


def tiny_method(name: str, **options: Any) -> Method:
    """The method with two inversion steps at most."""
    steps = {"steps": 2} if METHODS[name].steps > 2 else {}
    return make_method(name, steps | options)


def make_run(name: str, seed: int = 0, task: Task | None = None, **options: Any) -> DistillationRun:
    return DistillationRun(task or make_task(), tiny_method(name, **options), seed)


def own_plan(name: str) -> SamplingPlan:
    """The method's own sampling without importance weights, so that losses are plain means."""
    return replace(METHODS[name].own_plan, importance_exponent=0.0)


def rows_of(images: Tensor) -> list[bytes]:
    return [bytes(row.flatten().tolist()) for row in images]


@dataclass
class Studied:
    """What the student saw: inputs and answers of its minibatches, and the memory and draws of each group of them."""

    inputs: list[Tensor] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)
    memories: list[Tensor] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)


@contextmanager
def studied(run: DistillationRun) -> Iterator[Studied]:
    seen = Studied()
    train = run.trainer.train

    def record_group(
        images: Tensor, draws: Tensor, weights: Tensor, learning_rate: float, share: Share = WHOLE
    ) -> Tensor:
        seen.memories.append(images.clone())
        seen.draws.append(draws.clone())
        return train(images, draws, weights, learning_rate, share)

    def record_minibatch(student: nn.Module, inputs: tuple[Tensor], answers: Tensor) -> None:
        if student.training:
            seen.inputs.append(inputs[0])
            seen.answers.append(answers.detach())

    run.trainer.train = record_group  # type: ignore[method-assign]
    hook = run.student.register_forward_hook(record_minibatch)
    try:
        yield seen
    finally:
        run.trainer.train = train  # type: ignore[method-assign]
        hook.remove()


@dataclass
class Recorded:
    """A run of a method from its start to its end."""

    run: DistillationRun
    reports: list[RoundReport]
    rounds: list[Studied]
    sizes: list[int]
    state_after_first: Any
    global_random_untouched: bool


@cache
def recorded(name: str) -> Recorded:
    """Made once; the tests below only look at it."""
    run, plan = make_run(name, seed=5), own_plan(name)
    before = torch.get_rng_state()
    reports, rounds, sizes = [run.warm_up()], [], [len(run.buffer)]
    state: Any = None
    while not run.done:
        with studied(run) as seen:
            reports.append(run.step(plan))
        rounds.append(seen)
        sizes.append(len(run.buffer))
        if run.round == 1:
            with tempfile.TemporaryDirectory() as folder:
                save_state(Path(folder) / "run.safetensors", run.state_dict())
                state = load_state(Path(folder) / "run.safetensors")
    untouched = torch.equal(before, torch.get_rng_state())
    return Recorded(run, reports, rounds, sizes, state, untouched)


# --- every method ---


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_to_its_end_with_finite_reports(name: str) -> None:
    record = recorded(name)
    assert record.run.done
    assert [report.round for report in record.reports] == [0, 1, 2]
    check_report(record.reports[-1], record.run)
    for report in record.reports:
        assert not report.diverged
        numbers = [n for v in asdict(report).values() for n in (v if isinstance(v, tuple) else (v,))]
        assert all(math.isfinite(number) for number in numbers)
        assert (report.student_loss > 0) == (report.learning_rate > 0) == (report.round > 0)


@pytest.mark.parametrize("name", METHODS)
def test_two_runs_of_one_seed_are_bit_identical(name: str) -> None:
    record, again = recorded(name), make_run(name, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)  # of no influence
        reports = [again.warm_up(), *(again.step(own_plan(name)) for _ in range(2))]
    assert [plain(report) for report in reports] == [plain(report) for report in record.reports]
    assert same_state(again.state_dict(), record.run.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_a_run_from_disk_continues_bit_identically(name: str) -> None:
    record, resumed = recorded(name), make_run(name, seed=6)
    resumed.load_state_dict(record.state_after_first)
    assert plain(resumed.step(own_plan(name))) == plain(record.reports[-1])
    assert same_state(resumed.state_dict(), record.run.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_the_global_generator_is_not_touched(name: str) -> None:
    assert recorded(name).global_random_untouched


@pytest.mark.parametrize("name", METHODS)
def test_the_student_has_the_budgets_minibatches_in_every_round(name: str) -> None:
    for seen in recorded(name).rounds:
        assert [len(inputs) for inputs in seen.inputs] == [BUDGET["batch_size"]] * BUDGET["student_steps"]
        per_batch = METHODS[name].student_steps_per_batch
        groups = {5: [5, 2], 10: [7], 0: [7]}[per_batch]
        assert [len(draws) for draws in seen.draws] == groups


@pytest.mark.parametrize("name", METHODS)
def test_the_student_minimises_the_methods_distance(name: str) -> None:
    """Mean over the minibatches of T²·KL(teacher ‖ student), or of the mean absolute difference of the logits."""
    record = recorded(name)
    temperature = {"zskt": 1.0}.get(name, record.run.task.spec.student.temperature)
    for report, seen in zip(record.reports[1:], record.rounds, strict=True):
        losses = []
        for inputs, answers in zip(seen.inputs, seen.answers, strict=True):
            logits = record.run.teacher(inputs).double()
            if name == "dfad":
                losses.append((logits - answers.double()).abs().mean())
                continue
            p, q = ((values / temperature).softmax(dim=1) for values in (logits, answers.double()))
            losses.append(temperature**2 * (p * (p / q).log()).sum(dim=1).mean())
        assert report.student_loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_statistics_of_all_images_sum_to_their_number(name: str) -> None:
    record = recorded(name)
    expected = {
        "buffer": [16, 24, 32],
        "pool": [16, 24, 32],
        "real": [0, 0, 0],
        "stream": [56, 112, 168] if name == "dfq" else [40, 120, 200],  # one, or two groups a round
    }[METHODS[name].memory]
    assert [report.synthesized for report in record.reports] == expected
    assert record.run.synthesized_class_counts.sum() == expected[-1]
    assert record.run.synthesized_difficulty.sum() == expected[-1]


@pytest.mark.parametrize("name", METHODS)
def test_the_first_images_have_an_adversary_where_there_is_no_warm_up(name: str) -> None:
    first, last = recorded(name).reports[0], recorded(name).reports[-1]
    assert (first.adversarial_loss < 0) == (name in ("zskt", "dfad", "dfq"))
    if name in ("zskt", "dfad", "dfq", "deepinversion"):
        assert last.adversarial_loss < 0
    if name in ("dafl", "vanilla_kd"):
        assert last.adversarial_loss == 0


@pytest.mark.parametrize("name", METHODS)
def test_only_priority_sampling_is_not_uniform(name: str) -> None:
    record = recorded(name)
    assert (record.reports[-1].effective_sample_size < 0.99) == (name == "ssdkd")
    assert (record.run.buffer.residents.importance_weight == 1).all()


# --- memories ---


@pytest.mark.parametrize("name", METHODS)
def test_the_memory_keeps_to_its_capacity(name: str) -> None:
    record = recorded(name)
    expected = {
        "buffer": [12, 12, 12],
        "pool": [16, 24, 32],  # grows by the candidates
        "stream": [56] * 3 if name == "dfq" else [40] * 3,  # what a group of minibatches draws
        "real": [TRAINING_IMAGES] * 3,
    }[METHODS[name].memory]
    assert record.sizes == expected
    assert record.run.buffer.capacity == expected[-1]
    assert [report.buffer_fill for report in record.reports] == [size / expected[-1] for size in expected]


@pytest.mark.parametrize("name", BY_MEMORY["pool"])
def test_a_pool_keeps_all_that_was_synthesised(name: str) -> None:
    record = recorded(name)
    first, second = (rows_of(seen.memories[0]) for seen in record.rounds)
    assert second[: len(first)] == first
    assert record.run.buffer.residents.born.tolist() == [-2] * 8 + [-1] * 8 + [0] * 8 + [1] * 8
    assert [report.replaced for report in record.reports] == [0, 0, 0]


@pytest.mark.parametrize("name", ["fast2", "deepinversion"])
def test_the_oldest_leave_a_pool_that_is_full(name: str) -> None:
    run = make_run(name, pool_capacity=20)
    run.warm_up()
    expected = {1: [-2] * 4 + [-1] * 8 + [0] * 8, 2: [-1] * 4 + [0] * 8 + [1] * 8}
    while not run.done:
        before = rows_of(run.buffer.residents.images)
        report = run.step(UNIFORM)
        born = run.buffer.residents.born
        assert sorted(born.tolist()) == expected[run.round]
        kept = rows_of(run.buffer.residents.images[born < run.round - 1])
        assert set(kept) <= set(before)
        assert report.replaced == {1: 4, 2: 8}[run.round]


@pytest.mark.parametrize("name", BY_MEMORY["stream"])
def test_a_stream_is_fresh_for_every_group_of_minibatches(name: str) -> None:
    record = recorded(name)
    memories = [rows_of(images) for seen in record.rounds for images in seen.memories]
    assert len(memories) == (2 if name == "dfq" else 4)
    for index, memory in enumerate(memories):
        assert all(not set(memory) & set(earlier) for earlier in memories[:index])
    assert (record.run.buffer.residents.born == 1).all()
    assert record.reports[-1].replaced == sum(map(len, memories)) // 2


def test_a_method_can_keep_its_images_in_another_memory() -> None:
    for memory, sizes in (("buffer", [8, 12, 12]), ("pool", [8, 24, 40])):
        run = make_run("dafl", memory=memory)
        run.warm_up()
        found = [len(run.buffer)]
        while not run.done:
            run.step(UNIFORM)
            found.append(len(run.buffer))
        assert found == sizes


def test_every_candidate_enters_with_a_full_update_and_the_oldest_leave() -> None:
    for seed in range(3):
        run = make_run("ssdkd", seed, update="full")
        run.warm_up()
        assert sorted(run.buffer.residents.born.tolist()) == [-2] * 4 + [-1] * 8
        reports = []
        for expected in ([-1] * 4 + [0] * 8, [0] * 4 + [1] * 8):
            reports.append(run.step(replace(SamplingPlan(), replaced_share=0.1)))
            assert sorted(run.buffer.residents.born.tolist()) == expected
        assert [report.replaced for report in reports] == [8, 8]


def test_candidates_compete_with_a_partial_update() -> None:
    kept = set()
    for seed in range(6):
        run = make_run("ssdkd", seed)
        run.step(SamplingPlan())
        kept.add(int((run.buffer.residents.born == 0).sum()))
    assert len(kept) > 1, "always as many candidates enter"
    assert max(kept) <= 8


# --- real images ---


def test_the_student_sees_real_training_images_and_no_held_out_one() -> None:
    record = recorded("vanilla_kd")
    spec = record.run.task.spec
    assert isinstance(spec, TaskSpec)
    train, held_out = (set(rows_of(images)) for images, _ in real_data(spec))
    for seen in record.rounds:
        (memory,) = seen.memories
        assert set(rows_of(memory)) == train
        assert not set(rows_of(memory)) & held_out
        assert (memory % 2 == 0).all()
    assert (record.run.synthesized, record.reports[-1].synthesized) == (0, 0)
    assert [report.replaced for report in record.reports] == [0, 0, 0]
    assert record.reports[-1].candidate_discrepancy == record.reports[-1].bn_loss == 0.0


def test_real_digits_are_those_that_the_teacher_was_trained_on() -> None:
    run = make_run("vanilla_kd", task=load_task("digits", budget=BUDGET), real_share=0.1)
    run.warm_up()
    (train, _), (held_out, _) = split_digits()
    assert len(run.buffer) == 180  # a tenth of all digits, as a buffer of scale 0.1
    rows = rows_of(run.buffer.residents.images)
    assert set(rows) <= set(rows_of(train))
    assert not set(rows) & set(rows_of(held_out))


@pytest.mark.parametrize(
    ("training_set_size", "share", "count"),
    [(40, 1.0, 40), (40, 0.5, 20), (40, 0.001, 1), (0, 0.1, 4), (100, 0.1, 10), (100, 1.0, 40)],
)
def test_a_share_of_the_training_set_is_chosen_by_the_seed(training_set_size: int, share: float, count: int) -> None:
    subsets = []
    for seed in (1, 1, 2):
        run = make_run("vanilla_kd", seed, make_task(training_set_size), real_share=share)
        run.warm_up()
        subsets.append(rows_of(run.buffer.residents.images))
        assert len(set(subsets[-1])) == count, "an image was drawn twice"
        run.step(UNIFORM)
        assert rows_of(run.buffer.residents.images) == subsets[-1]
    assert subsets[0] == subsets[1]
    assert subsets[0] != subsets[2]


def test_a_task_without_real_images_is_refused() -> None:
    task = Task(DENSE_TASK, build_teacher(DENSE_TASK, seed=0))
    with pytest.raises(InvalidInputError, match=r"no real training images.*teacher_data") as error:
        make_run("vanilla_kd", task=task)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", ["size", "labels"])
def test_real_images_that_do_not_fit_the_task_are_refused(fault: str) -> None:
    spec = make_task().spec
    (images, labels), held_out = real_data(spec)
    bad = (images[:, :, :4], labels) if fault == "size" else (images, labels + 10)
    task = Task(replace(spec, teacher_data=lambda: (bad, held_out)), build_teacher(spec, seed=0))
    with pytest.raises(InvalidInputError, match="training data"):
        make_run("vanilla_kd", task=task)


# --- the first layer's reset ---


@pytest.mark.parametrize(
    ("share", "rounds", "expected"),
    [
        (0.0, 10, []),
        (0.6, 200, [120]),
        (0.6, 5, [3]),
        (0.5, 4, [2]),
        (0.5, 5, [3]),
        (0.1, 1, []),
        (0.07, 100, [7]),
    ],
)
def test_the_first_layer_is_reset_once_after_its_share_of_the_rounds(
    share: float, rounds: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("fast2", task=make_task(rounds=rounds), first_layer_reset=share)
    resets: list[int] = []
    monkeypatch.setattr(run.inversion.source, "reset_first_layer", lambda: resets.append(run.round))
    for run.round in range(rounds):
        run._reset_first_layer()
        run.allowance.spend(LEAST)
    assert resets == expected


def test_a_generator_is_made_anew_once_a_round_however_many_turns_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("dafl", task=make_task(rounds=3, student_steps=3), generator_life=1, student_steps_per_batch=1)
    rounds: list[int] = []
    monkeypatch.setattr(run.inversion.source, "reset_generator", lambda: rounds.append(run.round))
    run.warm_up()
    before = len(rounds)
    while not run.done:
        run.step(UNIFORM)
    assert rounds[before:] == [0, 1, 2]


@pytest.mark.parametrize("life", [0, 2, 3])
def test_a_generator_lives_for_so_many_rounds_before_and_after_the_end_of_the_warm_up(
    life: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("nayer", task=make_task(rounds=5, warmup_rounds=4), generator_life=life, steps=1)
    events: list[str] = []
    for part, method in ((run.inversion.source, "reset_generator"), (run.inversion, "synthesize")):
        original = getattr(part, method)

        def record(*arguments: Any, original: Any = original, method: str = method) -> Any:
            events.append(method)
            return original(*arguments)

        monkeypatch.setattr(part, method, record)
    run.warm_up()
    while not run.done:
        run.step(UNIFORM)
    made, lives = 0, []
    for event in events:
        made += event == "synthesize"
        if event == "reset_generator":
            lives.append(made - 4)
    assert made == 9
    assert lives == [born for born in range(-4, 5) if life and born % life == 0]


@pytest.mark.parametrize("name", ["fast2", "fast5_plain", "nayer", "dafl", "deepinversion", "vanilla_kd"])
def test_the_reset_comes_before_the_rounds_synthesis(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(name, task=make_task(rounds=3), first_layer_reset=0.3)
    events: list[str] = []
    for part, method in ((run.inversion.source, "reset_first_layer"), (run.inversion, "synthesize")):
        original = getattr(part, method)

        def record(*arguments: Any, original: Any = original, method: str = method) -> Any:
            events.append(f"{method} in round {run.round}")
            return original(*arguments)

        monkeypatch.setattr(part, method, record)
    run.warm_up()
    while not run.done:
        run.step(UNIFORM)
    resets = [event for event in events if event.startswith("reset")]
    assert resets == ["reset_first_layer in round 1"]
    if name != "vanilla_kd":
        assert events.index(resets[0]) < events.index("synthesize in round 1")


# --- measuring a large memory in turns ---


def measured(run: DistillationRun) -> Tensor:
    """Rows of the memory that a round measures anew; their discrepancies are checked."""
    known = len(run.buffer)
    run.buffer.residents.discrepancy.fill_(777.0)
    run.step(UNIFORM)
    residents = run.buffer.residents
    rows = torch.nonzero(residents.discrepancy[:known] != 777.0).flatten()
    with torch.no_grad():
        inputs = (residents.images[rows].float() / 255 - run.task.spec.mean[0]) / run.task.spec.std[0]
        p, q = (network(inputs).double().softmax(dim=1) for network in (run.teacher, run.student))
    torch.testing.assert_close(residents.discrepancy[rows].double(), (p * (p / q).log()).sum(1), rtol=1e-3, atol=1e-5)
    return rows


def test_every_image_of_a_large_memory_is_measured_in_turn() -> None:
    run = make_run("vanilla_kd", task=make_task(rounds=4))
    run.warm_up()
    turns = [measured(run).tolist() for _ in range(4)]
    assert [len(rows) for rows in turns] == [12] * 4  # as many as the small buffer holds
    assert {row for rows in turns for row in rows} == set(range(TRAINING_IMAGES))


def test_every_image_of_a_growing_pool_is_measured_in_turn() -> None:
    run = make_run("fast2", task=make_task(rounds=8, student_steps=1))
    run.warm_up()
    turns = [measured(run).tolist() for _ in range(8)]
    assert all(len(rows) <= 12 for rows in turns)
    assert set(range(16)) <= {row for rows in turns for row in rows}


@pytest.mark.parametrize(("method", "measured_rows"), [("fast2", 5), ("ssdkd", 12)])
def test_of_a_memory_that_is_not_small_a_sample_does(
    method: str, measured_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssdkd_env.distillation.sizes.SAMPLE", 5)
    run = make_run(method, task=make_task(rounds=8, student_steps=1))
    for _ in range(4):
        run.step(UNIFORM)
    assert len(measured(run)) == measured_rows


def test_a_small_buffer_is_measured_whole() -> None:
    run = make_run("ssdkd")
    run.warm_up()
    assert len(measured(run)) == 12


# --- one logit per image ---


@pytest.mark.parametrize(
    ("name", "residents", "candidates"), [("fast2", 16, 8), ("vanilla_kd", 40, 0), ("dfq", 56, 56)]
)
def test_logits_say_what_the_student_studies(name: str, residents: int, candidates: int) -> None:
    run = make_run(name)
    run.warm_up()
    for wrong in (residents, residents + candidates + 8):
        if wrong != residents + candidates:
            with pytest.raises(InvalidInputError, match=rf"SamplingPlan\.logits.*{residents + candidates}"):
                run.step(SamplingPlan(logits=torch.zeros(wrong)))
    logits = torch.full((residents + candidates,), -100.0)
    logits[-3] = 0.0
    with studied(run) as seen:
        _, log_weights = weighed(run, SamplingPlan(importance_exponent=0.0, logits=logits))
    (draws,) = seen.draws
    assert len(set(draws.flatten().tolist())) == 1
    assert log_weights[draws[0, 0]] == 0.0
    entered = int((run.buffer.residents.born == 0).sum())
    assert entered == (residents if name == "vanilla_kd" else candidates)  # whatever their logits


def test_logits_are_refused_where_images_change_several_times_a_round() -> None:
    run = make_run("dafl")
    run.warm_up()
    before = run.state_dict()
    with pytest.raises(InvalidInputError, match=r"SamplingPlan\.logits: method 'dafl' changes its images several"):
        run.step(SamplingPlan(logits=torch.zeros(80)))
    assert same_state(run.state_dict(), before)


# --- other networks ---


@pytest.mark.parametrize("name", METHODS)
def test_dense_prediction_runs_to_its_end(name: str) -> None:
    run = make_run(name, task=untrained_task(DENSE_TASK, dense=True))
    while not run.done:
        report = run.step(METHODS[name].own_plan)
    check_report(report, run)
    torch.testing.assert_close(run.buffer.residents.class_share.sum(dim=1), torch.ones(len(run.buffer)))
    assert run.synthesized_class_counts.sum().item() == pytest.approx(run.synthesized, rel=1e-5)
    assert run.synthesized_difficulty.sum() == run.synthesized


@pytest.mark.parametrize("name", METHODS)
def test_a_teacher_without_batch_norm_serves_every_method(name: str) -> None:
    spec = replace(make_task().spec, teacher_arch="convnet", teacher_options={"channels": (4,), "batch_norm": False})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = make_run(name, task=untrained_task(spec))
    assert all("BatchNorm" in str(warning.message) for warning in caught)
    assert bool(caught) == (METHODS[name].bn_weight > 0)
    while not run.done:
        report = run.step(METHODS[name].own_plan)
    check_report(report, run)
    assert (report.bn_loss > 0) == (METHODS[name].bn_weight > 0)
