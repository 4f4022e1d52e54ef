"""Instance sets: what is in them, and that the held-out ones are held out."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.registry import CONVNET_WIDTHS, NETWORKS
from ssdkd_env.tasks import INSTANCE_SETS, Instance, find_instances, load_task
from ssdkd_env.tasks.digits import ASSETS, DIGITS
from ssdkd_env.tasks.instances import crossed, grid
from ssdkd_env.tasks.probe import fingerprint


def test_grid_is_every_combination_once() -> None:
    made = grid([None, "a"], ("s", "t", "u"), (0.1,), (4, 8))
    assert len(set(map(repr, made))) == len(made) == 2 * 3 * 1 * 2
    assert {(each.teacher, each.student_arch, each.buffer_scale, each.budget["rounds"]) for each in made} == set(
        product([None, "a"], "stu", [0.1], [4, 8])
    )
    assert all(set(each.budget) == {"rounds"} for each in made)


@pytest.mark.parametrize("held_out", ["digits-test", "digits-far"])
def test_held_out_sets_share_nothing_with_the_training_set(held_out: str) -> None:
    """Another teacher by its weights, not by its name alone."""
    sets = [INSTANCE_SETS["digits-train"].instances, INSTANCE_SETS[held_out].instances]
    digests = [{load_task("digits", teacher).teacher_digest() for teacher in {i.teacher for i in s}} for s in sets]
    students = [{each.student_arch for each in instances} for instances in sets]
    scales = [{each.buffer_scale for each in instances} for instances in sets]
    rounds = [{each.budget["rounds"] for each in instances} for instances in sets]
    for trained_on, judged_by in (digests, students, scales, rounds):
        assert trained_on and judged_by and not trained_on & judged_by


def test_test_set_lies_between_and_far_set_beyond_what_is_trained_on() -> None:
    def ranges(which: str) -> list[list[float]]:
        instances = INSTANCE_SETS[which].instances
        widths = [float((each.student_arch or "").removeprefix("convnet")) for each in instances]
        return [widths, [each.buffer_scale or 0 for each in instances], [each.budget["rounds"] for each in instances]]

    trained, between, far = map(ranges, ("digits-train", "digits-test", "digits-far"))
    for inside, seen in zip(between, trained, strict=True):
        assert min(seen) < min(inside) <= max(inside) < max(seen)
    for outside, seen in zip(far, trained, strict=True):
        assert all(not min(seen) <= value <= max(seen) for value in outside)


#: Attributes of an instance that a set is made of, all of them numbers but for the teacher.
OF_WORK = ("teacher", "student_arch", "buffer_scale", "work_scale")


@pytest.mark.parametrize("held_out", ["digits-work-test", "digits-work-far"])
def test_sets_of_work_share_nothing_either(held_out: str) -> None:
    sets = [INSTANCE_SETS[name].instances for name in ("digits-work-train", held_out)]
    for name in OF_WORK:
        trained_on, judged_by = ({getattr(each, name) for each in instances} for instances in sets)
        assert trained_on and judged_by and not trained_on & judged_by
    warm_ups = [{each.budget["warmup_rounds"] for each in instances} for instances in sets]
    assert not warm_ups[0] & warm_ups[1]
    digests = [{load_task("digits", each.teacher).teacher_digest() for each in instances} for instances in sets]
    assert not digests[0] & digests[1]


def test_sets_of_work_lie_between_and_beyond() -> None:
    def ranges(which: str) -> list[list[float]]:
        instances = INSTANCE_SETS[f"digits-work-{which}"].instances
        widths = [float((each.student_arch or "").removeprefix("convnet")) for each in instances]
        warm_ups = [float(each.budget["warmup_rounds"]) for each in instances]
        return [widths, warm_ups, *([getattr(each, name) for each in instances] for name in OF_WORK[2:])]

    trained, between, far = map(ranges, ("train", "test", "far"))
    for inside, seen in zip(between, trained, strict=True):
        assert min(seen) < min(inside) <= max(inside) < max(seen)
    for outside, seen in zip(far, trained, strict=True):
        assert all(not min(seen) <= value <= max(seen) for value in outside)


def test_crossed_buffers_and_work_take_teachers_and_students_in_turn() -> None:
    made = crossed(["a", None], ("s", "t", "u"), (0.1, 0.2), (0.5, 1.0, 2.0))
    assert [(each.buffer_scale, each.work_scale) for each in made] == list(product((0.1, 0.2), (0.5, 1.0, 2.0)))
    assert [each.teacher for each in made] == ["a", None, "a", None, "a", None]
    assert [each.student_arch for each in made] == ["s", "t", "u", "t", "u", "s"]
    assert not any(each.budget for each in made)
    twice = crossed(["a", None, "b", "c", "d"], ("s", "t", "u"), (0.1, 0.2), (0.5, 1.0), (1, 12), times=2)
    assert [(each.buffer_scale, each.work_scale, each.budget["warmup_rounds"]) for each in twice] == 2 * list(
        product((0.1, 0.2), (0.5, 1.0), (1, 12))
    )
    assert all(first.teacher != second.teacher for first, second in zip(twice[:8], twice[8:], strict=True))
    assert all(first.student_arch != second.student_arch for first, second in zip(twice[:8], twice[8:], strict=True))


def test_no_teacher_or_student_of_the_training_set_belongs_to_one_buffer_work_or_warm_up() -> None:
    instances = INSTANCE_SETS["digits-work-train"].instances
    for name in ("teacher", "student_arch"):
        for value in {getattr(each, name) for each in instances}:
            own = [each for each in instances if getattr(each, name) == value]
            assert len(own) >= 4
            for scale in ("buffer_scale", "work_scale"):
                assert len({getattr(each, scale) for each in own}) >= 2
            assert len({each.budget["warmup_rounds"] for each in own}) == 2


@pytest.mark.parametrize("which", INSTANCE_SETS)
def test_every_instance_can_be_made_and_no_two_are_alike(which: str) -> None:
    known = INSTANCE_SETS[which]
    tasks = [load_task(**each.over({"task": known.task})) for each in known.instances]
    assert len({id(task) for task in tasks}) == len(tasks) == len(known.instances)
    for task, each in zip(tasks, known.instances, strict=True):
        assert task.spec.budget.buffer_capacity == round((each.buffer_scale or 0) * 1797)
        assert task.spec.budget.rounds == each.budget.get("rounds", DIGITS.budget.rounds)
        assert task.spec.budget.warmup_rounds == each.budget.get("warmup_rounds", DIGITS.budget.warmup_rounds)
        assert bool(task.spec.budget.work) == bool(each.work_scale) != ("rounds" in each.budget)
        shipped = Path(task.spec.probe_sets) / f"probe-{fingerprint(task)}.safetensors"
        assert shipped.is_file(), "no reset may wait for a probe set"


def test_instances_of_a_teacher_share_it() -> None:
    """A set of fifty would otherwise hold fifty teachers, and no two of its runs could be done together."""
    narrow = str(ASSETS / "digits_teacher_narrow.safetensors")
    first, second = (load_task("digits", narrow, student_arch=arch) for arch in ("convnet6", "convnet8"))
    other = load_task("digits", student_arch="convnet6")
    for folded in (False, True):
        teachers = [task.teacher_on(torch.device("cpu"), folded) for task in (first, second, other)]
        assert teachers[0] is teachers[1]
        assert teachers[2] is not teachers[0]
    assert first.spec.student_arch == "convnet6" and second.spec.student_arch == "convnet8"


# --- finding a set ---


def test_set_of_ones_own_is_found_by_its_import_path() -> None:
    found = find_instances("tests.envs.own_networks:SMALL_SET", "digits")
    assert len(found) == 8 and all(isinstance(each, Instance) for each in found)


@pytest.mark.parametrize(
    ("name", "task", "match"),
    [
        (
            "digits-tran",
            "digits",
            r"instances='digits-tran' is unknown; choose one of: digits-far, digits-test, ",
        ),
        (3, "digits", r"instances=3: expected a name such as 'digits-train', or an import path"),
        ("no_module:x", "digits", r"instances='no_module:x' could not be imported"),
        ("tests.envs.own_networks:TINY", "tiny", r"TINY' is a TaskSpec, expected an instance of InstanceSet"),
        ("digits-train", "cifar10", r"belong to task 'digits', not to 'cifar10'; leave one out"),
        ("tests.envs.own_networks:EMPTY_SET", "digits", r"is empty; give it at least one Instance"),
    ],
)
def test_odd_sets_are_refused(name: str, task: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        find_instances(name, task)


# --- the small networks of the sets ---


@pytest.mark.parametrize("width", CONVNET_WIDTHS)
def test_small_classifiers_double_their_channels_twice(width: int) -> None:
    network = NETWORKS[f"convnet{width}"](num_classes=10, in_channels=1)
    convolutions = [part.weight.shape for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [tuple(shape[:2]) for shape in convolutions] == [(width, 1), (2 * width, width), (4 * width, 2 * width)]
