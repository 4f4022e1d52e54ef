"""Probe sets: what they are made of, and where they are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.tasks import Task, load_task, probe
from ssdkd_env.tasks.digits import ASSETS
from ssdkd_env.tasks.probe import ProbeSet, file_name, fingerprint, synthesize
from ssdkd_env.tasks.probe_settings import PROBE_SOURCES, ProbeSettings, ProbeSource

CPU = torch.device("cpu")
SMALL = {"generators": 2, "batches": 3, "kept": 2, "batch_size": 10, "steps": 1}
NAMES = ("b", "wide", "narrow", "tail", "step", "narrow_tail", "narrow_step", "far", "far_tail", "far_step")
TEACHERS = ("", *(f"_{name}" for name in NAMES))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The tasks whose probe sets are made, not found."""
    tasks: list[Task] = []

    def counted(task: Task, device: torch.device) -> torch.Tensor:
        tasks.append(task)
        return synthesize(task, device)

    monkeypatch.setattr(probe, "synthesize", counted)
    return tasks


def task_of(sources: str = "meta_generator", teacher: str = "", **settings: Any) -> Task:
    return load_task(
        "digits",
        str(ASSETS / f"digits_teacher{teacher}.safetensors") if teacher else None,
        probe={**SMALL, "sources": sources, **settings},
    )


def shipping(folder: Path) -> Task:
    """A task with probe sets in a folder, and small ones."""
    task = task_of()
    return task.with_spec(replace(task.spec, probe_sets=str(folder)))


# --- what they are made of ---


@pytest.mark.parametrize("sources", [*PROBE_SOURCES, "+".join(PROBE_SOURCES), "pixels+noisy_labels"])
def test_every_source_gives_as_many_images_of_every_generator(sources: str) -> None:
    task = task_of(sources)
    images = synthesize(task, CPU)
    assert images.shape == (len(sources.split("+")) * 2 * 2 * 10, 1, 8, 8)
    assert images.dtype == torch.uint8
    batches = images.view(-1, 10, 1, 8, 8)
    assert len({batch.numpy().tobytes() for batch in batches}) == len(batches)


def test_several_sources_are_each_one_after_the_other() -> None:
    parts = [synthesize(task_of(name), CPU) for name in ("noisy_labels", "meta_generator")]
    assert torch.equal(synthesize(task_of("noisy_labels+meta_generator"), CPU), torch.cat(parts))


def test_only_the_last_batches_of_a_source_that_lasts_are_kept() -> None:
    """More of them are kept when more are asked for; the last is the same."""
    many, few = (synthesize(task_of(generators=1, kept=kept), CPU) for kept in (3, 1))
    assert torch.equal(many[-10:], few)


@pytest.mark.parametrize("source", PROBE_SOURCES.values(), ids=PROBE_SOURCES)
def test_sources_use_the_teacher_alone(source: ProbeSource) -> None:
    assert source.method.adversarial_weight == 0.0
    assert source.method.memory != "real"


def test_making_it_repeats_exactly_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = synthesize(task_of("noisy_labels"), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(synthesize(task_of("noisy_labels"), CPU), first)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sources": "pixel"}, r"probe\['sources'\]='pixel' is unknown; choose one of: meta_generator, noisy_labels"),
        ({"sources": "pixels+"}, r"probe\['sources'\]='' is unknown"),
        ({"sources": ""}, r"probe\['sources'\]='' is unknown"),
        ({"sources": "pixels + noisy_labels"}, r"probe\['sources'\]='pixels ' is unknown"),
        ({"sources": "pixels+pixels"}, r"names one twice; name each once"),
        ({"generators": 0}, r"probe\['generators'\]=0: expected a whole number of at least 1"),
        ({"batches": 2, "kept": 3}, r"probe\['kept'\]=3: only 2 batches are made; keep fewer"),
    ],
    ids=str,
)
def test_odd_settings_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        ProbeSettings(**settings)


def test_score_is_agreement_and_divergence_of_the_softened_outputs() -> None:
    """Against sums written out in float64."""
    task = task_of()
    probes = ProbeSet(task, CPU)
    student = task.build_student(3)
    inputs = (probes.images.double() / 255 - task.spec.mean[0]) / task.spec.std[0]
    with torch.no_grad():
        answers = [network(inputs.float()).double() for network in (task.teacher_on(CPU), student)]
    p, q = (answer.softmax(1) for answer in answers)
    score = probes.score(student)
    assert score.agreement == pytest.approx((p.argmax(1) == q.argmax(1)).double().mean().item())
    assert score.discrepancy == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4)


# --- the name ---


def test_fingerprint_depends_on_what_the_images_depend_on_and_nothing_else() -> None:
    task = task_of()
    others = [
        task_of("pixels"),
        task_of(steps=2),
        task_of(teacher="_b"),
        task.with_spec(replace(task.spec, std=(0.4,))),
        task.with_spec(replace(task.spec, generator_options={"channels": 8})),
    ]
    assert len({fingerprint(each) for each in (task, *others)}) == 1 + len(others)
    assert len({fingerprint(task), fingerprint(task, "2.0"), fingerprint(task, "2.0", "cuda")}) == 3
    same = load_task(
        "digits", budget={"rounds": 2}, student_arch="convnet6", probe={**SMALL, "sources": "meta_generator"}
    )
    assert fingerprint(same) == fingerprint(task)


# --- where they are found ---


@pytest.mark.parametrize("teacher", TEACHERS)
def test_shipped_teachers_have_theirs_and_wait_for_none(teacher: str, made: list[Task], cache: Path) -> None:
    task = load_task("digits", str(ASSETS / f"digits_teacher{teacher}.safetensors"))
    probes = ProbeSet(task, CPU)
    assert not made and not cache.exists()
    settings = task.spec.probe
    assert len(probes.images) == 3 * settings.generators * settings.kept * settings.batch_size
    assert probes.score(task.teacher_on(CPU)).agreement == 1.0


def test_no_file_is_shipped_that_no_teacher_uses() -> None:
    wanted = {file_name(load_task("digits", str(ASSETS / f"digits_teacher{name}.safetensors"))) for name in TEACHERS}
    assert {path.name for path in ASSETS.glob("probe-*")} == wanted


def test_other_settings_do_not_take_the_shipped_set(made: list[Task], cache: Path) -> None:
    assert len(ProbeSet(task_of(), CPU).images) == 2 * 2 * 10
    assert len(made) == 1 and len(list(cache.iterdir())) == 1


def test_shipped_set_goes_before_the_one_in_the_cache(made: list[Task], tmp_path: Path) -> None:
    task = shipping(tmp_path / "shipped")
    ProbeSet(task, CPU)
    marked = torch.full((7, 1, 8, 8), 9, dtype=torch.uint8)
    save_state(tmp_path / "shipped" / file_name(task), {"images": marked})
    assert torch.equal(ProbeSet(task, CPU).images, marked)
    assert len(made) == 1


@pytest.mark.parametrize("damage", ["cut short", "no images", "text", "other shape", "other type"])
def test_damaged_shipped_set_is_made_anew_in_the_cache_and_stays_as_it_is(
    damage: str, made: list[Task], tmp_path: Path, cache: Path
) -> None:
    """The folder belongs to the package: nothing is written there."""
    task = shipping(tmp_path / "shipped")
    path = tmp_path / "shipped" / file_name(task)
    images = torch.zeros(7, 1, 8, 8, dtype=torch.uint8)
    contents: dict[str, dict[str, Any]] = {
        "no images": {},
        "text": {"images": "x"},
        "other shape": {"images": images[:, :, :4]},
    }
    save_state(path, contents.get(damage, {"images": images.float() if damage == "other type" else images}))
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:-20])
    before = path.read_bytes()
    expected = synthesize(task, CPU)
    for _ in range(2):  # the second time it is found in the cache
        assert torch.equal(ProbeSet(task, CPU).images, expected)
    assert len(made) == 1
    assert path.read_bytes() == before
    (kept,) = cache.iterdir()
    assert torch.equal(load_state(kept)["images"], expected)


def test_students_are_told_apart_on_the_shipped_images() -> None:
    probes = ProbeSet(load_task("digits"), CPU)
    torch.manual_seed(0)
    untrained = ConvNet(10, 1, (6, 12, 24)).eval()
    assert probes.score(untrained).agreement < 0.4
    assert (
        probes.score(load_task("digits", str(ASSETS / "digits_teacher_b.safetensors")).teacher_on(CPU)).agreement > 0.4
    )
