"""Arguments of the environment: what works, and what is refused with a line that helps."""

from __future__ import annotations

import pickle
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from ssdkd_env.distillation.sources import MetaGenerator
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import build_teacher
from tests.envs.episodes import BUDGET, SMALL_PROBE, actions_of, assert_same, episode, make, reset, steps
from tests.envs.own_networks import DIGITS_WITHOUT_BATCH_NORM, TINY, LinearStudent

HERE = "tests.envs.own_networks"

#: Arguments → (the argument that the message has to name, the remedy that it has to give).
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown task": ({"task": "digitz"}, "task='digitz'", "choose one of: camvid, cifar10, cifar100, digits, nyuv2"),
    "task in no module": ({"task": "no.such.module:spec"}, "task='no.such", "expected 'package.module:attribute'"),
    "task not in module": ({"task": f"{HERE}:nothing"}, "task=", "expected 'package.module:attribute'"),
    "task without module": ({"task": ":spec"}, "task=':spec'", "import path 'package.module:name'"),
    "relative task": ({"task": ".own_networks:TINY"}, "task='.own", "import path 'package.module:name'"),
    "task of another type": ({"task": f"{HERE}:NO_TASK"}, "task=", "expected an instance of TaskSpec"),
    "task without teacher": ({"task": f"{HERE}:TINY"}, "task 'tiny'", "give teacher="),
    "unknown method": ({"method": "ssdk"}, "method='ssdk'", "choose one of:"),
    "unknown action": ({"action": "exponent"}, "action='exponent'", "choose one of:"),
    "unknown reward": ({"reward": "accuracy"}, "reward='accuracy'", "choose one of:"),
    "unknown device": ({"device": "gpu"}, "device='gpu'", "choose 'auto' or 'cpu'"),
    "absent device": ({"device": "cuda:77"}, "device='cuda:77'", "choose 'auto' or 'cpu'"),
    "device that holds no numbers": ({"device": "meta"}, "device='meta'", "choose 'auto' or 'cpu'"),
    "unknown render mode": ({"render_mode": "human"}, "render_mode='human'", "choose one of: rgb_array"),
    "unknown budget key": ({"budget": {"round": 3}}, "budget has no setting 'round'", "choose among:"),
    "budget huge": ({"budget": {"candidates": 10**9}}, "budget['candidates']=1000000000", "at most 10,000,000"),
    "history huge": ({"history": 10**9}, "history=1000000000", "at least 1 and at most 1,000"),
    "budget zero": ({"budget": {"rounds": 0}}, "budget['rounds']=0", "expected a whole number of at least 1"),
    "budget negative": ({"budget": {"candidates": -4}}, "budget['candidates']=-4", "expected a whole number"),
    "budget fraction": ({"budget": {"candidates": 2.5}}, "budget['candidates']=2.5", "expected int"),
    "budget text": ({"budget": {"rounds": "3"}}, "budget['rounds']='3'", "expected int"),
    "budget true": ({"budget": {"rounds": True}}, "budget['rounds']=True", "expected int"),
    "budget null": ({"budget": {"rounds": None}}, "budget['rounds']=None", "expected int"),
    "budget no mapping": ({"budget": 3}, "budget=3", "expected"),
    "unknown student key": ({"student": {"rate": 0.1}}, "student has no setting 'rate'", "choose among:"),
    "student not finite": ({"student": {"lr": float("nan")}}, "student['lr']=nan", "expected a finite number"),
    "student negative": ({"student": {"lr": -0.1}}, "student['lr']=-0.1", "expected"),
    "unknown method key": ({"method_options": {"beta": 1.0}}, "method_options has no setting", "choose among:"),
    "unknown normalisation": (
        {"method_options": {"importance_normalization": "max"}},
        "method_options['importance_normalization']='max'",
        "choose one of: maximum, mean, plain",
    ),
    "method text": ({"method_options": {"gamma": "1"}}, "method_options['gamma']='1'", "expected float"),
    "method not finite": ({"method_options": {"gamma": float("inf")}}, "method_options['gamma']", "expected a finite"),
    "unknown student arch": ({"student_arch": "resnet"}, "student_arch='resnet'", "choose one of:"),
    "unknown generator arch": ({"generator_arch": "gan"}, "generator_arch='gan'", "choose one of:"),
    "student with other outputs": (
        {"student_arch": f"{HERE}:seven_outputs"},
        "student_arch=",
        "the number of classes must match",
    ),
    "student of pixels": ({"student_arch": f"{HERE}:pixelwise"}, "student_arch=", "needs"),
    "generator of other images": ({"generator_arch": f"{HERE}:small_images"}, "generator_arch=", "needs (1, 8, 8)"),
    "teacher_arch without teacher": ({"teacher_arch": "convnet"}, "teacher_arch='convnet'", "give teacher="),
    "probe setting": ({"probe": {"batch": 3}}, "probe has no setting 'batch'", "batch_size"),
    "probe of nothing": ({"probe": {"generators": 0}}, "probe['generators']=0", "at least 1"),
    "probe of more than is made": ({"probe": {"kept": 49}}, "probe['kept']=49", "keep fewer"),
    "real images where there are none": (
        {"task": f"{HERE}:DIGITS_WITHOUT_DATA", "method": "vanilla_kd", "data_root": "/no/such"},
        "data_root='/no/such'",
        "leave it out",
    ),
    "CIFAR without teacher": (
        {"task": "cifar10"},
        "task 'cifar10' ships no teacher",
        "ssdkd teacher --task cifar10",
    ),
    "teacher missing": ({"teacher": "/no/such/file.safetensors"}, "teacher='/no/such/file", "ssdkd teacher"),
    "evaluation missing": ({"evaluation": "/no/such/file.npz"}, "evaluation='/no/such/file.npz'", "an .npz"),
}


def refusal(arguments: dict[str, Any]) -> str:
    """The message with which the constructor refuses, which is before the first reset."""
    with pytest.raises(InvalidInputError) as caught:
        SSDKDEnv(**arguments)
    return str(caught.value)


@pytest.mark.parametrize(("arguments", "named", "remedy"), BAD.values(), ids=BAD)
def test_bad_argument_is_refused_in_one_line_that_names_it_and_a_remedy(
    arguments: dict[str, Any], named: str, remedy: str
) -> None:
    message = refusal(arguments)
    assert "\n" not in message
    assert named in message
    assert remedy in message


def test_refusal_is_a_value_error() -> None:
    """So that code which knows nothing of this package catches it."""
    assert issubclass(InvalidInputError, ValueError)


def test_an_argument_that_nobody_knows_is_refused_in_the_words_of_python() -> None:
    """TorchRL's `GymEnv` gives every environment a `frameskip`, and leaves it out when it reads them."""
    with pytest.raises(TypeError, match=re.escape("__init__() got an unexpected keyword argument 'frameskip'")):
        gymnasium.make("SSDKD/Digits-v2", frameskip=1)


class Malicious:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "executed")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
@pytest.mark.parametrize("zipped", [True, False], ids=["torch.save", "pickle"])
def test_teacher_that_wants_to_run_code_does_not_get_to(suffix: str, zipped: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / f"teacher{suffix}"
    content = {"weight": torch.zeros(1), "evil": Malicious(marker)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    message = refusal({"teacher": str(path)})
    assert not marker.exists()
    assert "\n" not in message
    assert f"teacher={str(path)!r}" in message
    assert "refused" in message or "cannot be read" in message
    torch.load(BytesIO(path.read_bytes()), weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file was dangerous indeed


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 7, 500, 0.5, 0.99])
def test_teacher_that_was_cut_short_is_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"teacher{suffix}"
    network = build_teacher(DIGITS, seed=0)
    if suffix == ".pt":
        torch.save(network.state_dict(), path)
    else:
        save_weights(path, network)
    SSDKDEnv(teacher=str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    message = refusal({"teacher": str(path)})
    assert "\n" not in message
    assert f"teacher={str(path)!r}" in message
    assert "cut short" in message or "save the state dict alone" in message


def test_teacher_of_another_architecture_is_refused(tiny_teacher: str, tmp_path: Path) -> None:
    message = refusal({"teacher": tiny_teacher})
    assert "\n" not in message
    assert f"teacher={tiny_teacher!r} does not fit ConvNet" in message
    assert "give the architecture that these weights were trained with" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_teacher_with_values_that_are_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    network = build_teacher(DIGITS, seed=0)
    with torch.no_grad():
        next(network.parameters()).view(-1)[3] = value
    save_weights(tmp_path / "teacher.safetensors", network)
    message = refusal({"teacher": str(tmp_path / "teacher.safetensors")})
    assert "\n" not in message
    for part in ("teacher=", "NaN or infinite", "train it again"):
        assert part in message


def test_teacher_that_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("weights")
    torch.save([1, 2, 3], tmp_path / "list.pt")
    for path in (tmp_path, tmp_path / "text.pt", tmp_path / "list.pt"):
        message = refusal({"teacher": str(path)})
        assert "\n" not in message
        assert f"teacher={str(path)!r}" in message


def test_own_teacher_file_serves_in_both_formats(tmp_path: Path) -> None:
    network = build_teacher(DIGITS, seed=4)
    save_weights(tmp_path / "teacher.safetensors", network)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "teacher.pt")
    first, second = (
        episode(make(teacher=str(tmp_path / name)), 3, actions_of(5)) for name in ("teacher.safetensors", "teacher.pt")
    )
    assert_same(first, second)
    assert first[-1].info != episode(make(), 3, actions_of(5))[-1].info


def test_teacher_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    infos = []
    for seed in (4, 5):
        save_weights(path, build_teacher(DIGITS, seed=seed))
        infos.append(reset(make(teacher=str(path)), 3).info)
    assert infos[0] != infos[1]


def test_own_student_and_generator_come_by_import_path() -> None:
    env = make(student_arch=f"{HERE}:LinearStudent", generator_arch=f"{HERE}:LinearGenerator")
    moments = episode(env, 3, actions_of(5))
    assert env.run is not None
    assert type(env.run.student).__name__ == "LinearStudent"
    assert isinstance(env.run.inversion.source, MetaGenerator)
    assert type(env.run.inversion.source.generator).__name__ == "LinearGenerator"
    assert moments[-1].terminated
    assert not moments[-1].info["diverged"]


def test_own_task_comes_by_import_path(tiny_teacher: str) -> None:
    env = SSDKDEnv(task=f"{HERE}:TINY", teacher=tiny_teacher, probe=SMALL_PROBE)
    assert env.task.spec.name == TINY.name
    assert episode(env, 3, actions_of(5))[-1].terminated


def test_own_teacher_architecture_comes_with_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_weights(path, LinearStudent(10))
    env = make(teacher=str(path), teacher_arch=f"{HERE}:LinearStudent")
    with pytest.warns(UserWarning, match="BatchNorm"):
        reset(env, 3)
    assert type(env.task.teacher_on(env.device)).__name__ == "LinearStudent"


def test_teacher_without_batch_norm_warns_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_weights(path, build_teacher(DIGITS_WITHOUT_BATCH_NORM, seed=0))
    env = make(task=f"{HERE}:DIGITS_WITHOUT_BATCH_NORM", teacher=str(path))
    with pytest.warns(UserWarning, match=r"no BatchNorm.*image priors"):
        reset(env, 3)
    moments = steps(env, actions_of(5))
    assert moments[-1].terminated
    assert moments[-1].info["bn_loss"] > 0.0


def test_settings_replace_those_of_the_task_and_method() -> None:
    env = make(student={"lr": 1, "momentum": 0.5}, method_options={"gamma": 0.5})
    assert {name: getattr(env.budget, name) for name in BUDGET} == BUDGET
    assert (env.task.spec.student.lr, env.task.spec.student.momentum) == (1.0, 0.5)
    assert env.method.gamma == 0.5
    moments = episode(env, 3, actions_of(5))
    assert [moment.info["learning_rate"] for moment in moments][:2] == [0.0, 1.0]


@pytest.mark.parametrize("arguments", [{"student": {"lr": 0.1}}, {"method_options": {"gamma": 2.0}}])
def test_settings_change_the_episode(arguments: dict[str, Any]) -> None:
    first, second = (episode(make(**each), 3, actions_of(5)) for each in ({}, arguments))
    assert first[-1].info != second[-1].info


def test_environments_of_one_task_share_the_teacher() -> None:
    first, second = make(), make(reward="probe_discrepancy")
    assert first.task.teacher_on(first.device) is second.task.teacher_on(second.device)


def test_device_auto_and_cpu_agree_where_there_is_no_accelerator() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is an accelerator")
    assert make(device="auto").device == make(device="cpu").device == torch.device("cpu")


def test_nothing_of_the_teacher_changes_in_an_episode() -> None:
    env = make()
    teacher = env.task.teacher_on(env.device)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    episode(env, 3, actions_of(5))
    assert not teacher.training
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(before[name], tensor)
