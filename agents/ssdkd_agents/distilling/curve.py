"""The learning curve of a distillation in TensorBoard, and a warning where its images are of few classes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssdkd_agents.curves import BUFFER_CATEGORY, BUFFER_TAGS, PICTURE_TAG, RESULTS, STUDENT_TAGS, Curves, layout_of
from ssdkd_agents.distilling.recent import Recent
from ssdkd_env.envs import SSDKDEnv

#: Tag → key of info, of what inversion did in a round.
INVERSION_TAGS = {
    "inversion/bn_loss": "bn_loss",
    "inversion/one_hot_loss": "one_hot_loss",
    "inversion/adversarial_loss": "adversarial_loss",
    "inversion/confidence": "candidate_confidence",
}
#: exp(entropy) of the teacher's classes of the last synthesised images.
CLASSES_TAG = "inversion/effective_classes"
#: Tags that mean nothing before the student has learned.
_OF_ROUNDS = ("student/loss", "student/learning_rate", "buffer/replaced", "buffer/effective_sample_size")
_TAGS = STUDENT_TAGS | {"student/learning_rate": "learning_rate"} | INVERSION_TAGS | BUFFER_TAGS
#: Effective classes below which images are of few, as a share of the way from one class to all. Ours: chosen
#: after a look at one seed of each method on digits. The pixels of real scenes are of few classes, too.
FEW, FEW_DENSE = 0.5, 0.05
#: Pictures of the buffer in a run.
_PICTURES = 10


class LearningCurve:
    """Writes a point of each curve after every step, and warns once where the images are of few classes.

    Args:
        folder: of the run.
        env: that plays it, after its warm-up or as its checkpoint left it.
        recent: that looks at it.
        settings: of the run, for the table *HParams*.
        info: of the step before. Where it is of a round, its points were written by an earlier process.
    """

    def __init__(
        self, folder: Path, env: SSDKDEnv, recent: Recent, settings: Mapping[str, Any], info: dict[str, Any]
    ) -> None:
        self._env, self._recent, self._last, self._warned = env, recent, info, False
        self._few = 1.0 + (FEW_DENSE if env.task.dense else FEW) * (env.task.spec.num_classes - 1)
        begins = info["round"] == 0
        self._curves = Curves(folder, 0 if begins else info["round"] + 1)
        others = {
            "Losses of the distillation": ["student/loss", *[tag for tag in INVERSION_TAGS if tag.endswith("loss")]],
            "Synthesised images": [CLASSES_TAG, "inversion/confidence", "student/candidate_agreement"],
            BUFFER_CATEGORY: BUFFER_TAGS,
        }
        results = [tag for tag in RESULTS if STUDENT_TAGS.get(tag) in info]
        self._curves.describe(layout_of(results, others), settings)
        if begins:
            tags = {tag: key for tag, key in _TAGS.items() if tag not in _OF_ROUNDS}
            self._write(tags, info)
            self._curves.image(PICTURE_TAG, env.buffer_picture(), 0)

    def see(self, info: dict[str, Any]) -> None:
        """Write what is known after a step, once `recent` has seen it."""
        last, self._last = self._last, info
        every, ends = self._env.settings.evaluate_every_rounds, info["progress"] >= 1.0 or info["diverged"]
        is_measured = ends or info["round"] // every > last["round"] // every
        stale = () if is_measured else ("accuracy", "mean_iou")
        self._write({tag: key for tag, key in _TAGS.items() if key not in stale}, info)
        if int(info["progress"] * _PICTURES) > int(last["progress"] * _PICTURES):
            self._curves.image(PICTURE_TAG, self._env.buffer_picture(), info["round"])

    def _write(self, tags: Mapping[str, str], info: dict[str, Any]) -> None:
        classes = self._recent.effective_classes
        points = {tag: info.get(key) for tag, key in tags.items()}
        self._curves.scalars(points | {CLASSES_TAG: classes}, info["round"])
        if (
            classes is not None
            and classes < self._few
            and self._recent.is_enough
            and info["round"]
            and not self._warned
        ):
            self._warned = True
            with tqdm.external_write_mode(sys.stderr):
                warnings.warn(self._complaint(info["round"], classes), stacklevel=2)

    def _complaint(self, round_number: int, classes: float) -> str:
        return (
            f"round {round_number}: the images are of few classes, effectively {classes:.1f} of "
            f"{self._env.task.spec.num_classes} (exp of the entropy of what the teacher sees in the last ones), and "
            f"{self._few:.1f} or more are expected: the generator may have collapsed, and the student learns nothing "
            "of the other classes; try another --method"
        )
