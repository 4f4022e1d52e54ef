"""The losses of inversion and distillation. Logits are (N, C) or (N, C, H, W); values are per image, (N,)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from ssdkd_env.distillation.priority import kl_divergence, per_image


def one_hot_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with the target class, per image (DAFL, Chen et al. 2019).

    Args:
        logits: teacher's logits.
        targets: (N,) int64, or (N, H, W) for dense prediction.

    Returns:
        (N,) float.
    """
    return per_image(F.cross_entropy(logits, targets, reduction="none"))


def l1_distance(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Mean absolute difference of the logits (DFAD, Fang et al. 2019), per prediction: (N,) or (N, H, W)."""
    return (teacher_logits - student_logits).abs().mean(dim=1)


def jensen_shannon(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """Jensen-Shannon divergence of the softened answers (DeepInversion, Yin et al. 2020, eq. 7), per prediction."""
    teacher = (teacher_logits / temperature).softmax(dim=1)
    student = (student_logits / temperature).softmax(dim=1)
    middle = (0.5 * (teacher + student)).clamp_min(1e-12).log()
    to_middle = [(p * (p.clamp_min(1e-12).log() - middle)).sum(dim=1) for p in (teacher, student)]
    return 0.5 * (to_middle[0] + to_middle[1])


#: Distances of two answers, per prediction: what the student may minimise.
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": kl_divergence,
    "l1": l1_distance,
    "js": jensen_shannon,
}
#: What stands before a distance whose logarithm the adversarial loss maximises.
LOGARITHM = "log_"
#: What it may maximise: a distance, or log(1 + distance) of an image, with which DFAD segments.
ADVERSARIAL_DISTANCES = (*DISTANCES, f"{LOGARITHM}l1")


def adversarial_loss(
    teacher_logits: Tensor, student_logits: Tensor, masked: bool = True, distance: str = "kl"
) -> Tensor:
    """−distance(f_T, f_S), per image; *masked*: only where both arg-maxes agree (CMI, Fang et al. 2021).

    `"log_l1"` is −log(1 + L1), with L1 of the image where DFAD takes the batch's.

    Minimising it seeks images on which the student still differs from the teacher; the mask keeps the images
    among those that the student already recognises, so that the search does not drift into noise.

    Returns:
        (N,) float ≤ 0.
    """
    values = DISTANCES[distance.removeprefix(LOGARITHM)](teacher_logits, student_logits)
    if masked:
        values = values * (teacher_logits.argmax(dim=1) == student_logits.argmax(dim=1))
    of_images = per_image(values)
    return -of_images.log1p() if distance.startswith(LOGARITHM) else -of_images


def distillation_loss(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float, distance: str = "kl"
) -> Tensor:
    """What the student minimises, per image, (N,) float ≥ 0.

    T² · KL(softmax(f_T/T) ‖ softmax(f_S/T)) (Hinton et al. 2015), or the distance `"l1"` of the logits (DFAD).
    """
    if distance == "l1":
        return per_image(l1_distance(teacher_logits, student_logits))
    return temperature**2 * per_image(kl_divergence(teacher_logits, student_logits, temperature))


def class_balance(logits: Tensor) -> Tensor:
    """Σ p̄ log p̄ of the batch's mean softmax p̄, a scalar in [−log C, 0] (DAFL, Chen et al. 2019).

    Its minimum is a batch in which every class appears equally often.
    """
    mean = logits.softmax(dim=1).transpose(0, 1).flatten(1).mean(dim=1)
    return (mean * mean.clamp_min(1e-12).log()).sum()


def activation_loss(features: Tensor) -> Tensor:
    """−mean |feature| of the teacher's last features, a scalar (DAFL, Chen et al. 2019): real images excite them."""
    return -features.abs().mean()


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, per image (N, C, H, W) → (N,). An image prior."""
    vertical = (images[:, :, 1:] - images[:, :, :-1]).abs().flatten(1).mean(dim=1)
    horizontal = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().flatten(1).mean(dim=1)
    return vertical + horizontal


def squared_norm(images: Tensor) -> Tensor:
    """Mean squared pixel value, per image (N, C, H, W) → (N,). An image prior."""
    return images.square().flatten(1).mean(dim=1)
