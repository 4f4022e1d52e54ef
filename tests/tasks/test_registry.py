"""Loading tasks: caching, overrides, networks of the user's own, and errors that teach."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.distillation import METHODS, DistillationRun, StudentSettings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.registry import build_network
from ssdkd_env.recent import Recent
from ssdkd_env.tasks import TASKS, Budget, Task, load_task
from ssdkd_env.tasks import registry as registry_module
from ssdkd_env.tasks.cifar import CIFAR10, CIFAR100
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import build_teacher
from tests.own_networks import DENSE_TASK, DenseNet, DropoutNet, FlatGenerator

CPU = torch.device("cpu")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks registered in a test are forgotten after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TASKS, "_entries", dict(TASKS))
        yield


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a ConvNet with its default widths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(tmp_path / "teacher.safetensors", ConvNet(10))
    return tmp_path / "teacher.safetensors"


@pytest.fixture
def digits_weights(tmp_path: Path) -> Path:
    """Weights of the digits task's own teacher architecture."""
    save_weights(tmp_path / "digits.safetensors", build_teacher(TASKS["digits"], seed=0))
    return tmp_path / "digits.safetensors"


# --- caching ---


def thing_of(task: Task) -> object:
    """Something that a task keeps: the same object where it is shared."""
    return task.once("a thing of a test", object)


def test_tasks_of_equal_arguments_share_what_is_in_memory() -> None:
    base = load_task("digits")
    for again in (load_task("digits"), load_task("digits", budget={}), load_task("digits", student={})):
        assert again.spec == base.spec
        assert again.teacher_on(CPU) is base.teacher_on(CPU)
        assert thing_of(again) is thing_of(base)


def test_tasks_of_other_budgets_share_it_too() -> None:
    base = load_task("digits")
    rounds = base.spec.budget.rounds + 1
    for arguments in ({"budget": {"rounds": rounds}}, {"buffer_scale": 0.05}, {"work_scale": 0.5}):
        other = load_task("digits", **arguments)
        assert other.spec.budget != base.spec.budget
        assert thing_of(other) is thing_of(base)
        assert other.teacher_on(CPU, folded=True) is base.teacher_on(CPU, folded=True)
    assert base.spec.budget == DIGITS.budget


def test_tasks_of_other_networks_or_settings_share_the_teacher_alone() -> None:
    base = load_task("digits")
    for arguments in ({"student": {"lr": 0.123}}, {"student_arch": "convnet"}, {"probe": {"steps": 2}}):
        other = load_task("digits", **arguments)
        assert thing_of(other) is not thing_of(base)
        assert other.teacher_on(CPU) is base.teacher_on(CPU)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Recent[str, Task]:
    """The tasks in memory, none at first."""
    monkeypatch.setattr(registry_module, "_taught", Recent(registry_module.KEPT_TASKS))
    tasks: Recent[str, Task] = Recent(registry_module.KEPT_TASKS)
    monkeypatch.setattr(registry_module, "_loaded", tasks)
    return tasks


def test_changing_budgets_leave_nothing_behind(counted: Recent[str, Task]) -> None:
    for rounds in range(1, 30):
        load_task("digits", budget={"rounds": rounds}, buffer_scale=rounds / 100)
    assert len(counted) == 1


def test_changing_settings_leave_the_last_few_tasks_behind(counted: Recent[str, Task]) -> None:
    for number in range(20):
        load_task("digits", student={"lr": 0.1 + number / 100})
    assert len(counted) == registry_module.KEPT_TASKS


def test_what_is_in_use_is_found_whatever_else_was_loaded(counted: Recent[str, Task]) -> None:
    """Runs are done together where their teachers are the same object."""
    used = load_task("digits", budget={"rounds": 2})
    teacher, thing = used.teacher_on(CPU), thing_of(used)
    for number in range(20):
        load_task("digits", student={"lr": 0.1 + number / 100})
    again = load_task("digits", budget={"rounds": 3})
    assert again.teacher_on(CPU) is teacher
    assert thing_of(again) is thing


def test_a_teacher_file_that_changed_is_read_again(digits_weights: Path) -> None:
    first = load_task("digits", teacher=str(digits_weights))
    assert load_task("digits", teacher=str(digits_weights)).teacher_on(CPU) is first.teacher_on(CPU)
    changed = build_teacher(TASKS["digits"], seed=0)
    with torch.no_grad():
        changed.get_parameter("classifier.bias").fill_(3.0)
    save_weights(digits_weights, changed)
    stamp = digits_weights.stat().st_mtime_ns + 1_000_000
    os.utime(digits_weights, ns=(stamp, stamp))
    second = load_task("digits", teacher=str(digits_weights))
    assert second.teacher_on(CPU) is not first.teacher_on(CPU)
    assert second.teacher_on(CPU).state_dict()["classifier.bias"].tolist() == [3.0] * 10


# --- overrides ---


def test_overrides_reach_the_task_and_leave_the_rest() -> None:
    base = load_task("digits").spec
    spec = load_task("digits", budget={"rounds": 2, "candidates": 7}, student={"lr": 0.5, "momentum": 0}).spec
    assert spec.budget == replace(base.budget, rounds=2, candidates=7)
    assert spec.student == replace(base.student, lr=0.5, momentum=0.0)
    assert TASKS["digits"] == base


@pytest.mark.parametrize(
    ("argument", "options", "match"),
    [
        ("budget", {"epochs": 3}, "budget has no setting 'epochs'.*rounds"),
        ("budget", {"rounds": 2.5}, r"budget\['rounds'\]=2\.5.*int"),
        ("budget", {"rounds": "3"}, r"budget\['rounds'\]='3'"),
        ("budget", {"rounds": True}, r"budget\['rounds'\]=True"),
        ("budget", {"rounds": None}, r"budget\['rounds'\]=None"),
        ("budget", {"rounds": math.nan}, r"budget\['rounds'\]=nan"),
        ("student", {"learning_rate": 0.1}, "student has no setting 'learning_rate'.*lr"),
        ("student", {"lr": math.nan}, r"student\['lr'\]=nan.*finite"),
        ("student", {"lr": math.inf}, r"student\['lr'\]=inf"),
        ("student", {"lr": "0.1"}, r"student\['lr'\]='0\.1'.*float"),
        ("student", {"lr": -0.1}, "lr"),
        ("student", {"momentum": -1.0}, "momentum"),
    ],
)
def test_bad_overrides_are_refused_by_name(argument: str, options: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {argument: options}
    with pytest.raises(InvalidInputError, match=match) as error:
        load_task("digits", **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [f.name for f in fields(Budget) if f.name != "work"])
@pytest.mark.parametrize("value", [0, -3])
def test_every_part_of_the_budget_is_at_least_one(name: str, value: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"budget\['{name}'\]={value}.*at least 1"):
        load_task("digits", budget={name: value})


# --- names ---


@pytest.mark.parametrize("task", ["mnist", "Digits", ""])
def test_an_unknown_task_lists_the_known_ones(task: str) -> None:
    with pytest.raises(InvalidInputError, match=r"task=.*unknown.*digits"):
        load_task(task)


@pytest.mark.parametrize("task", ["no_such_package:SPEC", "tests.own_networks:NO_SPEC", "tests.own_networks:NUMBER"])
def test_an_import_path_that_leads_to_no_task_is_refused(task: str) -> None:
    with pytest.raises(InvalidInputError, match=f"task='{task}'"):
        load_task(task)


@pytest.mark.usefixtures("registry")
def test_a_task_of_ones_own_loads_by_name_and_by_import_path(tmp_path: Path) -> None:
    path = tmp_path / "dense.safetensors"
    save_weights(path, build_teacher(DENSE_TASK, seed=3))
    TASKS.register("mine", replace(DENSE_TASK, name="mine", teacher_weights=str(path)))
    assert load_task("mine").spec.num_classes == DENSE_TASK.num_classes
    task = load_task("tests.own_networks:DENSE_TASK", teacher=str(path))
    assert isinstance(task.teacher_on(CPU), DenseNet)
    assert task.accuracy(task.teacher_on(CPU), CPU) is None


def test_a_task_without_a_teacher_asks_for_one() -> None:
    with pytest.raises(InvalidInputError, match="teacher="):
        load_task("tests.own_networks:DENSE_TASK")


# --- teachers ---


def test_another_architecture_needs_weights_of_its_own() -> None:
    with pytest.raises(InvalidInputError, match="teacher_arch='convnet' needs weights"):
        load_task("digits", teacher_arch="convnet")


def test_a_missing_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"teacher=.*does not exist"):
        load_task("digits", teacher=str(tmp_path / "none.safetensors"))


def test_a_teacher_of_ones_own_is_loaded_frozen(weights: Path) -> None:
    task = load_task("digits", teacher=str(weights), teacher_arch="convnet")
    teacher = task.teacher_on(CPU)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    saved = ConvNet(10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        saved = ConvNet(10)
    assert torch.equal(teacher.state_dict()["classifier.weight"], saved.classifier.weight)
    assert task.teacher_on(CPU) is teacher


def test_a_teacher_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", ConvNet(7))
    with pytest.raises(InvalidInputError, match=r"teacher=.*classifier.*\(7.*\(10"):
        load_task("digits", teacher=str(tmp_path / "w.safetensors"))


def test_a_teacher_whose_factory_ignores_the_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", DropoutNet(2))
    with pytest.raises(InvalidInputError, match=r"teacher_arch='tests\.own_networks:two_classes'.*number of classes"):
        load_task("digits", teacher=str(tmp_path / "w.safetensors"), teacher_arch="tests.own_networks:two_classes")


# --- students and generators ---


def test_a_student_and_a_generator_of_ones_own_are_built() -> None:
    task = load_task(
        "digits",
        student_arch="tests.own_networks:DropoutNet",
        generator_arch="tests.own_networks:plain_generator",
    )
    assert isinstance(task.build_student(0), DropoutNet)
    assert isinstance(task.build_generator(0), FlatGenerator)


@pytest.mark.parametrize("role", ["student", "generator"])
def test_networks_depend_on_the_seed_alone(role: str) -> None:
    build = getattr(load_task("digits"), f"build_{role}")
    torch.manual_seed(1)
    first = build(5)
    torch.manual_seed(2)
    second, other = build(5), build(6)
    parameters = [list(network.parameters()) for network in (first, second, other)]
    assert first is not second
    assert all(torch.equal(a, b) for a, b in zip(parameters[0], parameters[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(parameters[0], parameters[2], strict=True))


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ("resnet99", "unknown"),
        ("no_such_package:make", "imported"),
        ("tests.own_networks:no_arguments", "refused"),
        ("tests.own_networks:no_module", "returned list"),
        ("tests.own_networks:two_classes", "number of classes"),
        ("tests.own_networks:TiedNet", ""),  # takes vectors: its output on images has the wrong shape
        ("tests.own_networks:DictNet", ""),  # answers with a dictionary
    ],
)
def test_a_student_that_does_not_fit_is_refused(arch: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=f"student_arch='{arch}'.*{match}") as error:
        load_task("digits", student_arch=arch).build_student(0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ("gan", "unknown"),
        ("tests.own_networks:no_module", "returned list"),
        ("tests.own_networks:small_generator", "shape"),
        ("tests.own_networks:identity_generator", "shape"),
        ("tests.own_networks:deaf_generator", ""),  # fails on a latent vector
    ],
)
def test_a_generator_that_does_not_fit_is_refused(arch: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=f"generator_arch='{arch}'.*{match}") as error:
        load_task("digits", generator_arch=arch).build_generator(0)
    assert "\n" not in str(error.value)


def test_real_data_of_a_task_that_do_not_fit_are_refused_as_it_is_loaded(registry: None) -> None:
    """And not when a folder has been made, and hours have begun."""
    broken = torch.zeros(2, 1, 8, 9, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    TASKS.register("mine", replace(DIGITS, name="mine", evaluation=lambda: broken))
    with pytest.raises(InvalidInputError, match="evaluation data: images are"):
        load_task("mine")


def test_weights_that_are_no_path_are_refused(registry: None) -> None:
    TASKS.register("mine", replace(DIGITS, name="mine", teacher_weights=5))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="teacher=5: expected the path of a weights file"):
        load_task("mine")


# --- budgets by name, and the buffer's scale ---


@pytest.fixture
def with_budgets(registry: None) -> None:
    """A task with two budgets of its own beside the default."""
    budgets = {"small": {"rounds": 2, "candidates": 5, "buffer_capacity": 20}, "broken": {"epochs": 3}}
    TASKS.register("mine", replace(DIGITS, name="mine", budgets=budgets))


@pytest.mark.usefixtures("with_budgets")
def test_a_named_budget_replaces_the_settings_it_has() -> None:
    small = replace(DIGITS.budget, rounds=2, candidates=5, buffer_capacity=20)
    options = {"preset": "small"}
    assert load_task("mine", budget=options).spec.budget == small
    assert options == {"preset": "small"}, "the caller's mapping was changed"
    assert load_task("mine").spec.budget == DIGITS.budget


@pytest.mark.usefixtures("with_budgets")
def test_single_settings_go_before_those_of_a_named_budget() -> None:
    budget = load_task("mine", budget={"rounds": 3, "preset": "small", "batch_size": 4}).spec.budget
    assert budget == replace(DIGITS.budget, rounds=3, candidates=5, buffer_capacity=20, batch_size=4)
    assert load_task("mine", budget={"preset": "small"}, buffer_scale=0.01).spec.budget.buffer_capacity == 18


@pytest.mark.usefixtures("with_budgets")
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"preset": "large"}, r"budget\['preset'\]='large' is unknown; choose one of: broken, small"),
        ({"preset": 3}, r"budget\['preset'\]=3 is unknown"),
        ({"preset": "small", "epochs": 3}, "budget has no setting 'epochs'"),
        ({"preset": "broken"}, r"budgets\['broken'\] has no setting 'epochs'"),
    ],
)
def test_a_named_budget_that_does_not_fit_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        load_task("mine", budget=options)


@pytest.mark.parametrize(("scale", "capacity"), [(0.1, 180), (0.01, 18), (1, 1797), (1.0, 1797), (1e-6, 1)])
def test_the_buffers_scale_is_a_share_of_the_training_set(scale: float, capacity: int) -> None:
    budget = load_task("digits", buffer_scale=scale, budget={"rounds": 2}).spec.budget
    assert budget == replace(DIGITS.budget, rounds=2, buffer_capacity=capacity)


@pytest.mark.parametrize(
    "scale",
    [
        *(0, 0.0, -0.1, 1.1, 2, math.nan, "0.1"),
        True,
    ],
)
def test_a_scale_that_is_no_share_is_refused(scale: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"buffer_scale=.*share in \(0, 1\]"):
        load_task("digits", buffer_scale=scale)


def test_a_scale_beside_a_capacity_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"buffer_scale and budget\['buffer_capacity'\]"):
        load_task("digits", buffer_scale=0.1, budget={"buffer_capacity": 180})


def test_a_scale_needs_the_size_of_the_training_set(tmp_path: Path) -> None:
    save_weights(tmp_path / "dense.safetensors", build_teacher(DENSE_TASK, seed=3))
    with pytest.raises(InvalidInputError, match=r"buffer_scale=0.1: task 'tiny-segmentation' does not say.*buffer_cap"):
        load_task("tests.own_networks:DENSE_TASK", teacher=str(tmp_path / "dense.safetensors"), buffer_scale=0.1)


# --- real data ---


def write_data(folder: Path, shape: tuple[int, ...], seed: int) -> Path:
    """A folder with 30 training and 20 test images; returns the folder that holds it."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for split, count in (("train", 30), ("test", 20)):
        images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(count) % 10)
    return folder.parent


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data" / "mine", (1, 8, 8), seed=0)


@pytest.fixture
def with_dataset(registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose real data lie in the user's folder."""
    monkeypatch.delenv("SSDKD_DATA", raising=False)
    TASKS.register("mine", replace(DIGITS, name="mine", dataset="mine", evaluation=None, teacher_data=None))


def images_of(root: Path, split: str) -> list[int]:
    with np.load(root / "mine" / f"{split}.npz") as file:
        images: list[int] = file["images"].tolist()
    return images


@pytest.mark.usefixtures("with_dataset")
def test_real_data_come_from_data_root(data: Path) -> None:
    task = load_task("mine", data_root=str(data))
    evaluation = task.evaluation(CPU)
    assert evaluation is not None
    assert evaluation[0].tolist() == images_of(data, "test")
    assert task.training_images().tolist() == images_of(data, "train")
    teacher = task.teacher_on(CPU)
    assert task.held_out_accuracy(teacher, CPU) == task.accuracy(teacher, CPU)
    assert load_task("mine", data_root=str(data)).evaluation(CPU) is evaluation


@pytest.mark.usefixtures("with_dataset")
def test_real_data_come_from_the_environment_variable(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_DATA", str(data))
    assert load_task("mine").training_images().tolist() == images_of(data, "train")


@pytest.mark.usefixtures("with_dataset")
def test_data_root_goes_before_the_environment_variable(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_data(tmp_path / "other" / "mine", (1, 8, 8), seed=1)
    monkeypatch.setenv("SSDKD_DATA", str(data))
    assert load_task("mine", data_root=str(other)).training_images().tolist() == images_of(other, "train")
    monkeypatch.setenv("SSDKD_DATA", str(tmp_path / "nowhere"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_task("mine", data_root=str(other))


@pytest.mark.usefixtures("with_dataset")
def test_without_real_data_no_accuracy_is_reported_and_nothing_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = load_task("mine")
    teacher = task.teacher_on(CPU)
    assert task.accuracy(teacher, CPU) is None
    assert task.held_out_accuracy(teacher, CPU) is None
    with pytest.raises(InvalidInputError, match=r"task 'mine' has no real training images.*data_root=.*SSDKD_DATA"):
        task.training_images()


@pytest.mark.usefixtures("with_dataset")
@pytest.mark.parametrize("exists", [True, False])
def test_an_environment_variable_without_the_data_only_gives_a_warning(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSDKD_DATA", str(tmp_path if exists else tmp_path / "nowhere"))
    with pytest.warns(UserWarning, match="no accuracy on real images will be reported: SSDKD_DATA=") as caught:
        task = load_task("mine")
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name], "not the caller's line"
    assert task.accuracy(task.teacher_on(CPU), CPU) is None


@pytest.mark.usefixtures("with_dataset")
@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_data_root_without_the_data_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"data_root=.*mine"):
        load_task("mine", data_root=str(tmp_path / folder))


@pytest.mark.usefixtures("with_dataset")
def test_evaluation_data_of_ones_own_go_before_those_of_data_root(data: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other" / "mine", (1, 8, 8), seed=1)
    task = load_task("mine", data_root=str(data), evaluation=str(other / "mine" / "test.npz"))
    evaluation = task.evaluation(CPU)
    assert evaluation is not None
    assert evaluation[0].tolist() == images_of(other, "test")
    assert task.training_images().tolist() == images_of(data, "train")


# --- CIFAR ---


@pytest.mark.parametrize(
    ("spec", "classes", "mean", "std"),
    [
        (CIFAR10, 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        (CIFAR100, 100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ],
)
def test_cifar_has_the_standard_protocol(spec: Any, classes: int, mean: Any, std: Any) -> None:
    assert TASKS[spec.name] is spec
    assert (spec.dataset, spec.image_shape, spec.num_classes) == (spec.name, (3, 32, 32), classes)
    assert (spec.mean, spec.std, spec.padding, spec.flip, spec.latent_dim) == (mean, std, 4, True, 256)
    assert (spec.teacher_arch, spec.student_arch) == ("resnet34", "resnet18")
    assert spec.student == StudentSettings(lr=0.2, momentum=0.9, weight_decay=1e-4, temperature=20.0)
    budget = spec.budget
    assert (budget.rounds, budget.warmup_rounds, budget.candidates) == (200, 20, 256)
    assert (budget.student_steps, budget.batch_size) == (400, 256)
    assert budget.buffer_capacity == 5000 == 0.1 * spec.training_set_size
    for settings in spec.budgets.values():
        replace(budget, **settings)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_without_a_teacher_says_which_command_makes_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSDKD_DATA", raising=False)
    with pytest.raises(InvalidInputError, match="ships no teacher") as error:
        load_task(name)
    assert f"ssdkd teacher --task {name} --data-root DATA --out " in str(error.value)
    assert "teacher=" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["ssdkd", "dafl", "vanilla_kd"])
def test_cifar_runs_from_end_to_end_on_its_tiny_budget(method: str, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_weights(path, build_network("teacher_arch", "resnet8", {"num_classes": 10, "in_channels": 3}, seed=0))
    task = load_task(
        "cifar10",
        teacher=str(path),
        teacher_arch="resnet8",
        student_arch="resnet8",
        budget={"preset": "tiny"},
        data_root=str(write_data(tmp_path / "data" / "cifar10", (3, 32, 32), seed=0)),
    )
    run = DistillationRun(task, METHODS[method], seed=0)
    while not run.done:
        report = run.step(METHODS[method].own_plan)
        assert not report.diverged
        assert report.student_loss > 0
    assert len(run.buffer) == {"ssdkd": 32, "dafl": 32, "vanilla_kd": 30}[method]
    accuracy = task.accuracy(run.student, "cpu")
    assert accuracy is not None
    assert 0 <= accuracy <= 1
