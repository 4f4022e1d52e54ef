"""Whether networks are fit for what is to be done with them, found out before the hours rather than in them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.tasks.answers import PASS_ERRORS
from ssdkd_env.tasks.task import TaskSpec

#: Images that a network is asked about.
_ASKED = 16
#: Inputs whose deviation is so many times what it should be were normalised otherwise.
_LEAST, _MOST = 0.5, 2.0
#: How far sums of probabilities may be from 1.
_ROUNDING = 1e-3


def check_trains(role: str, network: nn.Module, spec: TaskSpec, batch: int) -> None:
    """Refuse a network that cannot be trained, by one pass of a copy in training mode.

    Args:
        role: `"teacher"` or `"student"`, for the error message.
        network: on the CPU; it stays as it is.
        spec: of the task.
        batch: images of its smallest minibatch.

    Raises:
        InvalidInputError: when it answers with something else than logits in training mode, as networks with auxiliary
            classifiers do, or needs more images, as BatchNorm does behind global pooling.
    """
    arch = spec.teacher_arch if role == "teacher" else spec.student_arch
    images = torch.zeros(batch, *spec.image_shape).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            logits = copy.deepcopy(network).train()(images)
        except PASS_ERRORS as error:
            remedy = "give a larger batch size" if batch == 1 else "give a network that trains on them"
            raise InvalidInputError(
                f"{role}_arch={arch!r} cannot be trained on {batch} image{'s' * (batch > 1)} at once "
                f"({one_line(error)}); {remedy}"
            ) from error
    if not isinstance(logits, Tensor):
        raise InvalidInputError(
            f"{role}_arch={arch!r} answers with a {type(logits).__name__} in training mode, expected logits as a "
            "tensor; switch its auxiliary outputs off"
        )


def spread_seen(teacher: nn.Module) -> float | None:
    """Standard deviation of the inputs that a teacher was trained on, as its first layer has seen them; ours.

    In natural images neighbouring pixels and channels are nearly equal, so that the output of a filter w has nearly the
    variance (Σw)² σ². BatchNorm behind the first convolution keeps that variance; σ² is fitted to it by least squares
    over the filters.

    Args:
        teacher: with its weights.

    Returns:
        σ, or None where the first convolution has no BatchNorm with statistics behind it.
    """
    layers = [layer for layer in teacher.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)][:2]
    if len(layers) < 2:
        return None
    first, second = layers
    if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.BatchNorm2d) or second.running_var is None:
        return None
    if first.out_channels != second.num_features or first.groups != 1:
        return None
    gains = first.weight.detach().double().sum(dim=(1, 2, 3)).square()
    variance = (gains * second.running_var.double()).sum() / gains.square().sum()
    return float(variance.sqrt()) if variance.isfinite() and variance >= 0 else None


def oddities(teacher: nn.Module, spec: TaskSpec, data_std: Sequence[float]) -> list[str]:
    """What is odd about a teacher, in sentences; no real image is needed for it.

    Args:
        teacher: in evaluation mode, on the CPU.
        spec: of the task, with what the teacher's inputs are said to have been normalised with.
        data_std: standard deviation of the task's images in each channel, as the task has it.
    """
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_ASKED, *spec.image_shape), generator=random, dtype=torch.uint8)
    with torch.no_grad():
        logits = teacher(Normalize(spec.mean, spec.std, torch.device("cpu"))(images)).float()
    found: list[str] = []
    if ((logits >= 0) & (logits <= 1 + _ROUNDING)).all():
        end = "softmax" if (logits.sum(dim=1) - 1).abs().max() < _ROUNDING else "sigmoid"
        found.append(
            f"its outputs are probabilities, so that it ends in a {end}; distillation needs the logits before it: "
            f"leave the {end} out of the network"
        )
    elif logits.logsumexp(dim=1).abs().max() < _ROUNDING:
        found.append("its outputs are logarithms of probabilities (log_softmax); they do, as logits would")
    if any(isinstance(layer, _BatchNorm) and layer.running_mean is None for layer in teacher.modules()):
        found.append(
            "its BatchNorm keeps no running statistics: its answer to an image depends on the others of the batch, and "
            "inversion has nothing to match; train it with track_running_stats=True"
        )
    seen, expected = spread_seen(teacher), sum(data_std) / sum(spec.std)
    if seen is not None and not _LEAST * expected < seen < _MOST * expected:
        found.append(
            f"its first BatchNorm has seen inputs of standard deviation {seen:.2g}, with this normalisation they have "
            f"{expected:.2g}: it seems to have been trained with another; --mean and --std say which"
        )
    return found
