"""Two processes that share each minibatch of a student, against one that has it alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.data_parallel import Leader, follow
from ssdkd_env.distillation.execution import Execution
from ssdkd_env.distillation.methods import make_method
from ssdkd_env.distillation.student import StudentSettings, StudentTrainer
from ssdkd_env.distillation.work import LayerRandom, TrainingWork, perform
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.convnet import ConvNet
from tests.own_networks import DenseNet

CPU = torch.device("cpu")
CLASSES = 4


def network(seed: int, dense: bool) -> nn.Module:
    torch.manual_seed(seed)
    return DenseNet(CLASSES) if dense else ConvNet(CLASSES, 1, (4, 6))


def make_trainer(dense: bool = False, plain: bool = False, compiler: str = "") -> StudentTrainer:
    """In double precision, in which rounding is far below what a wrong share would do."""
    return StudentTrainer(
        network(1, dense).double(),
        network(2, dense).double().eval().requires_grad_(False),
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


def member(rank: int, folder: str, count: int, dense: bool, plain: bool, batch_size: int) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    trainer = make_trainer(dense, plain)
    with group(f"{folder}/meeting", rank, count):
        if rank:
            torch.nn.init.zeros_(next(trainer.student.parameters()))  # whatever it is: the leader's counts
            follow(trainer, CPU)
        else:
            with Leader(trainer, batch_size).leading():
                made = train_twice(trainer, batch_size)
            torch.save(made, f"{folder}/made.pt")


@pytest.fixture
def in_double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize(
    ("count", "dense", "plain", "batch_size"),
    [(2, False, False, 8), (2, True, False, 4), (2, False, True, 4), (3, False, False, 7)],
    ids=["halves", "dense", "reference", "unequal thirds"],
)
def test_processes_with_shares_of_a_minibatch_do_what_one_with_the_whole_does(
    tmp_path: Path, count: int, dense: bool, plain: bool, batch_size: int
) -> None:
    spawn(member, (str(tmp_path), count, dense, plain, batch_size), nprocs=count)
    shared = torch.load(tmp_path / "made.pt", weights_only=True)
    alone = train_twice(make_trainer(dense, plain), batch_size)
    torch.testing.assert_close(shared, alone, rtol=1e-9, atol=1e-11)


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    with pytest.raises(InvalidInputError, match="minibatches of 3 cannot be shared by 4 processes"):
        Leader(make_trainer(), 3)
    with pytest.raises(InvalidInputError, match=r"backend='compiled'.*use 'fast'"):
        Leader(make_trainer(compiler="eager"), 4)
