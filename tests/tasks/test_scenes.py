"""CamVid and NYUv2 as tasks: found on the disk, read, and played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import ssdkd_env  # noqa: F401 (registers the ids)
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.data.camvid import CAMVID_CLASSES
from ssdkd_env.tasks.data.locate import find_dataset
from ssdkd_env.tasks.data.nyuv2_classes import NYUV2_CLASSES, NYUV2_CLASSES_40
from ssdkd_env.tasks.data.readers import read_split
from ssdkd_env.tasks.registry import with_real_data
from ssdkd_env.tasks.scenes import CAMVID, NYUV2
from ssdkd_env.tasks.task import Task, TaskSpec, build_teacher
from ssdkd_env.tasks.void import VOID
from tests.own_networks import DENSE_TASK

CPU = torch.device("cpu")
SMALL = replace(CAMVID, teacher_arch="deeplab_small12")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("camvid-teacher") / "teacher.safetensors"
    save_weights(path, build_teacher(SMALL, seed=0))
    return str(path)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four images of CamVid's layout, at half the task's size."""
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("images", "labels"):
            (tmp_path / "camvid" / split / kind).mkdir(parents=True)
        for number in range(4):
            labels = np.full((60, 80), number, np.uint8)
            labels[:30, :40] = 11
            Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(
                tmp_path / "camvid" / split / "images" / f"{number}.png"
            )
            Image.fromarray(labels).save(tmp_path / "camvid" / split / "labels" / f"{number}.png")
    return tmp_path


def test_camvid_is_read_at_the_tasks_size(data: Path) -> None:
    spec = with_real_data(CAMVID, data)
    assert spec.evaluation is not None and spec.teacher_data is not None
    images, labels = spec.evaluation()
    assert images.shape == (4, 3, 120, 160)
    assert labels.shape == (4, 120, 160) and labels.dtype == torch.uint8
    assert labels.unique().tolist() == [0, 1, 2, 3, VOID]
    assert (labels == VOID).sum() == 4 * 60 * 80
    train, test = spec.teacher_data()
    assert torch.equal(test[0], images) and not torch.equal(train[0], test[0])


def test_camvid_is_an_environment_with_mean_iou(data: Path, teacher: str) -> None:
    env = gymnasium.make(
        "SSDKD/CamVid-v2",
        teacher=teacher,
        teacher_arch="deeplab_small12",
        data_root=str(data),
        budget={"preset": "tiny"},
        probe={"generators": 1, "batches": 1, "kept": 1, "batch_size": 4, "steps": 1},
        render_mode="rgb_array",
    ).unwrapped
    _, info = env.reset(seed=0)
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(env.paper_action)  # type: ignore[attr-defined]
    assert 0.0 <= info["mean_iou"] <= 1.0 and 0.0 <= info["accuracy"] <= 1.0
    assert env.task.dense and len(env.episode.snapshot.class_iou) == 11  # type: ignore[attr-defined]


def test_real_images_are_distilled_on_as_the_upper_reference(data: Path, teacher: str) -> None:
    env = SSDKDEnv(
        "camvid",
        "vanilla_kd",
        teacher=teacher,
        teacher_arch="deeplab_small12",
        data_root=str(data),
        method_options={"real_share": 1.0},
        budget={"preset": "tiny"},
        probe={"generators": 1, "batches": 1, "kept": 1, "batch_size": 4, "steps": 1},
    )
    env.reset(seed=0)
    assert env.run is not None and len(env.run.buffer) == 4
    _, _, _, _, info = env.step(env.paper_action)
    assert info["synthesized"] == 0 and not info["diverged"]


def test_tasks_name_their_classes() -> None:
    for spec, names in ((CAMVID, CAMVID_CLASSES), (NYUV2, NYUV2_CLASSES)):
        assert spec.classes == names and len(names) == spec.num_classes
    assert (CAMVID.num_classes, NYUV2.num_classes) == (11, 13)
    assert NYUV2.image_shape == (3, 128, 128) and NYUV2.mean == NYUV2.std == (0.5, 0.5, 0.5)
    assert (NYUV2.teacher_arch, NYUV2.student_arch) == ("deeplabv3_resnet50", "deeplabv3_mobilenet_v2")


def test_a_run_on_nyuv2_synthesises_as_many_images_as_the_papers() -> None:
    budget = NYUV2.budget
    assert (budget.rounds + budget.warmup_rounds) * budget.candidates == 16_000


def test_dfad_segments_as_its_authors_do(teacher: str) -> None:
    task = load_task("camvid", teacher, "deeplab_small12")
    assert task.make_method("dfad").adversarial_distance == "log_l1"
    assert task.make_method("ssdkd").adversarial_distance == "kl"
    own = Task(DENSE_TASK, build_teacher(DENSE_TASK, seed=0))
    assert own.make_method("dfad").adversarial_distance == "log_l1"  # so does any other task
    assert own.make_method("dfad", {"adversarial_distance": "l1"}).adversarial_distance == "l1"
    spec = replace(DENSE_TASK, methods={"dfad": {"adversarial_distance": "js"}})
    assert Task(spec, build_teacher(spec, seed=0)).make_method("dfad").adversarial_distance == "js"


def test_without_a_teacher_one_is_asked_for() -> None:
    with pytest.raises(InvalidInputError, match=r"task 'camvid' ships no teacher; .*ssdkd teacher --task camvid"):
        load_task("camvid")


# --- a task of one's own ---

#: Normalisation of so many channels.
GREY: dict[int, dict[str, Any]] = {count: {"mean": (0.5,) * count, "std": (0.5,) * count} for count in (1, 3)}
OWN = replace(DENSE_TASK, name="own", image_shape=(3, 8, 12), dense=True, void=7)


def write_pair(folder: Path, name: str, labels: np.ndarray[Any, Any]) -> None:
    for kind, pixels in (("images", np.zeros((*labels.shape, 3), np.uint8)), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


@pytest.mark.parametrize("form", ["folders", "lists", "arrays"])
def test_images_and_label_maps_of_ones_own_are_read(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the task's number for no class, and at its size."""
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    labels, source = np.array([[0, 1, 7], [3, 2, 7]], np.uint8), tmp_path / "data"
    large = labels.repeat(4, axis=0).repeat(4, axis=1)
    if form == "folders":
        write_pair(source / "test", "a", labels)
    elif form == "lists":
        write_pair(source, "a", labels)
        write_pair(source, "b", labels)
        (source / "test.txt").write_text("a\n")
    else:
        source = tmp_path / "maps.npz"
        np.savez(source, images=np.zeros((1, 3, 8, 12), np.uint8), labels=large[None])
    for channels in (3, 1):
        images, maps = read_split(
            "evaluation", source, "test", replace(OWN, image_shape=(channels, 8, 12), **GREY[channels])
        )
        assert images.shape == (1, channels, 8, 12) and images.dtype == torch.uint8
    expected = np.where(large == 7, VOID, large)
    assert maps.dtype == torch.uint8 and np.array_equal(maps[0].numpy(), expected)
    with pytest.raises(InvalidInputError, match=r"evaluation.*7"):
        read_split("evaluation", source, "test", replace(OWN, void=None))


def test_numbers_below_zero_may_mean_no_class(tmp_path: Path) -> None:
    labels = np.array([[[0, 1], [-1, 2]]], np.int16).repeat(4, axis=1).repeat(6, axis=2)
    np.savez(tmp_path / "maps.npz", images=np.zeros((1, 3, 8, 12), np.uint8), labels=labels)
    _, maps = read_split("evaluation", tmp_path / "maps.npz", "test", replace(OWN, void=-1))
    assert np.array_equal(maps.numpy(), labels.astype(np.uint8))  # −1 is 255, which is VOID
    with pytest.raises(InvalidInputError, match=r"evaluation: label maps have the values -1"):
        read_split("evaluation", tmp_path / "maps.npz", "test", OWN)


@pytest.mark.parametrize(
    ("spec", "void", "expected"),
    [(CAMVID, None, [0, 1, 10, VOID, VOID]), (CAMVID, 0, [VOID, 0, 9, 10, None]), (NYUV2, 255, [0, 1, 10, 11, VOID])],
    ids=["the data set's", "0", "255"],
)
def test_tasks_number_for_no_class_holds_before_the_data_sets(
    spec: TaskSpec, void: int | None, expected: list[int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    stored = [number for number, label in zip((0, 1, 10, 11, 255), expected, strict=True) if label is not None]
    for number, label in enumerate(stored):
        write_pair(tmp_path / "maps" / "test", str(number), np.full((6, 8), label, np.uint8))
    _, maps = read_split("evaluation", tmp_path / "maps", "test", replace(spec, void=void))
    assert maps[:, 0, 0].tolist() == [label for label in expected if label is not None]


def test_tasks_have_the_classes_of_their_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    write_pair(tmp_path / "test", "a", np.array([[0, 40], [1, 14]], np.uint8))
    spec = replace(NYUV2, num_classes=40, classes=NYUV2_CLASSES_40)
    _, maps = read_split("evaluation", tmp_path, "test", spec)
    assert maps[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [VOID, 39, 0, 13]
    with pytest.raises(InvalidInputError, match=r"num_classes=12: NYUv2 has 13 or 40 classes"):
        read_split("evaluation", tmp_path, "test", replace(NYUV2, num_classes=12))
    with pytest.raises(
        InvalidInputError, match=r"task 'camvid' has 12 classes, CamVid's .* with its 11; leave dataset"
    ):
        read_split("evaluation", tmp_path, "test", replace(CAMVID, num_classes=12))


# --- where they are found ---


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("camvid/train/images/0.png", "camvid"),
        ("camvid-160x120.tar.xz", "camvid-160x120.tar.xz"),
        ("train/images/0.png", "."),
        ("trainannot/0.png", "."),
        ("train.txt", "."),
    ],
)
def test_camvid_is_found(place: str, found: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    assert find_dataset("camvid", tmp_path) == tmp_path / found


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("nyuv2/nyu_depth_v2_labeled.mat", "nyuv2"),
        ("nyu_depth_v2_labeled.mat", "."),
        ("labels13/0.png", "."),
        ("nyuv2.tar.gz", "nyuv2.tar.gz"),
    ],
)
def test_nyuv2_is_found(place: str, found: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    assert find_dataset("nyuv2", tmp_path) == tmp_path / found


@pytest.mark.parametrize("name", ["camvid", "nyuv2"])
def test_folder_without_it_is_refused_with_what_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=rf"holds no data set '{name}'; looked for {name}/, {name}\*\.tar\*, "):
        find_dataset(name, tmp_path)
