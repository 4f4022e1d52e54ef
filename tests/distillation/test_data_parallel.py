"""Two processes that share each minibatch of a student, against one that has it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.data_parallel import Channel, Leader, follow, with_shared_statistics
from ssdkd_env.distillation.execution import Execution
from ssdkd_env.distillation.methods import make_method
from ssdkd_env.distillation.student import StudentSettings, StudentTrainer
from ssdkd_env.distillation.work import LayerRandom, TrainingWork, perform
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.deeplab import deeplab_small
from tests.own_networks import DenseNet

CPU = torch.device("cpu")
CLASSES = 4


class Odd(nn.Module):
    """A layer twice, one that is kept from training, a buffer that is replaced, a parameter without use, a hook."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(4)
        norm.register_forward_hook(lambda layer, inputs, output: 2 * output)
        first, second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.layers = nn.Sequential(first, norm, nn.ReLU(), second, norm, nn.ReLU())
        self.frozen, self.head = nn.BatchNorm2d(4), nn.Linear(4, CLASSES)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))

    def train(self, mode: bool = True) -> Odd:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        self.seen = self.seen + self.training
        logits: Tensor = self.head(self.frozen(self.layers(images)).mean((2, 3)))
        return logits


STUDENTS: dict[str, Callable[[], nn.Module]] = {
    "convnet": lambda: ConvNet(CLASSES, 1, (4, 6)),
    "dense": lambda: DenseNet(CLASSES),
    "deeplab": lambda: deeplab_small(CLASSES, in_channels=1, width=4),
    "odd": Odd,
}


def network(seed: int, name: str) -> nn.Module:
    torch.manual_seed(seed)
    return STUDENTS[name]()


def make_trainer(student: str = "convnet", plain: bool = False, compiler: str = "") -> StudentTrainer:
    """In double precision, in which rounding is far below what a wrong share would do."""
    return StudentTrainer(
        network(1, student).double(),
        network(2, student).double().eval().requires_grad_(False),
        StudentSettings(lr=0.1, weight_decay=1e-2),
        replace(make_method("ssdkd"), temperature=4.0),
        normalize=Normalize((0.4,), (0.3,), CPU),
        padding=1,
        flip=True,
        random=torch.Generator().manual_seed(3),
        execution=Execution(compiler=compiler),
        plain=plain,
    )


def work_of(trainer: StudentTrainer, batch_size: int, seed: int) -> TrainingWork:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (12, 1, 8, 8), generator=random).to(torch.uint8)
    draws = torch.randint(12, (3, batch_size), generator=random)
    weights = torch.rand(12, generator=random, dtype=torch.float64)
    return TrainingWork(trainer, images, draws, weights, 0.1, LayerRandom(0, CPU))


def train_twice(trainer: StudentTrainer, batch_size: int) -> dict[str, Any]:
    """Two pieces of work; before the second the student is put back to where it was, as after an error."""
    before = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    losses = [perform(work_of(trainer, batch_size, 0))]
    trainer.student.load_state_dict(before)
    losses.append(perform(work_of(trainer, batch_size, 1)))
    return {"losses": losses, **trainer.state_dict(), "views": trainer.random.get_state()}


@contextmanager
def group(place: str, rank: int, count: int) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", f"file://{place}", rank=rank, world_size=count, timeout=timedelta(seconds=60)
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def member(rank: int, folder: str, count: int, student: str, plain: bool, batch_size: int) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    trainer = make_trainer(student, plain)
    with group(f"{folder}/meeting", rank, count):
        channel = Channel(timedelta(seconds=60))
        if rank:
            torch.nn.init.zeros_(next(trainer.student.parameters()))  # whatever it is: the leader's counts
            follow(trainer, CPU, channel)
        else:
            with Leader(trainer, batch_size, channel).leading():
                made = train_twice(trainer, batch_size)
            torch.save(made, f"{folder}/made.pt")


@pytest.fixture
def in_double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize(
    ("count", "student", "plain", "batch_size"),
    [
        (2, "convnet", False, 8),
        (2, "dense", False, 4),
        (2, "deeplab", False, 2),
        (2, "convnet", True, 4),
        (3, "convnet", False, 7),
        (2, "odd", False, 8),
    ],
    ids=["halves", "dense", "one image each", "reference", "unequal thirds", "odd"],
)
def test_processes_with_shares_of_a_minibatch_do_what_one_with_the_whole_does(
    tmp_path: Path, count: int, student: str, plain: bool, batch_size: int
) -> None:
    spawn(member, (str(tmp_path), count, student, plain, batch_size), nprocs=count)
    shared = torch.load(tmp_path / "made.pt", weights_only=True)
    alone = train_twice(make_trainer(student, plain), batch_size)
    torch.testing.assert_close(shared, alone, rtol=1e-9, atol=1e-11)


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    channel: Any = None
    with pytest.raises(InvalidInputError, match="minibatches of 3 cannot be shared by 4 processes"):
        Leader(make_trainer(), 3, channel)
    with pytest.raises(InvalidInputError, match=r"backend='compiled'.*use 'fast'"):
        Leader(make_trainer(compiler="eager"), 4, channel)


def test_a_student_that_has_no_copy_is_refused() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        layer = nn.utils.weight_norm(nn.Linear(2, 2))
    layer(torch.zeros(1, 2)).sum().backward()
    with pytest.raises(InvalidInputError, match=r"student: a network that cannot be copied \(.*use one, or torch"):
        with_shared_statistics(layer)
