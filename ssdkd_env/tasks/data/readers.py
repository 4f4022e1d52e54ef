"""Reading the data of a task from whatever the user names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.registry import HUB_PREFIX
from ssdkd_env.tasks.data.camvid import CAMVID_CLASSES, load_camvid
from ssdkd_env.tasks.data.images import to_channels
from ssdkd_env.tasks.data.label_maps import load_maps
from ssdkd_env.tasks.data.locate import npz_splits
from ssdkd_env.tasks.data.map_forms import Layout, MapForm
from ssdkd_env.tasks.data.nyuv2 import load_nyuv2
from ssdkd_env.tasks.data.splits import load_split
from ssdkd_env.tasks.task import LabelledImages, TaskSpec
from ssdkd_env.tasks.void import VOID, to_classes

#: Where images and label maps of the user's own lie.
_LAYOUTS = (("{split}/images", "{split}/labels"), ("images", "labels"))


def read_split(argument: str, source: str | Path, split: Literal["train", "test"], spec: TaskSpec) -> LabelledImages:
    """Read one split for a task: images with a class each, or with label maps where the task is `dense`.

    Label maps are resized to the task's images. They lie in one of the forms of `load_camvid` and `load_nyuv2`, for
    tasks of these data sets, whose own number for no class holds where the task has none; else as PNGs of class numbers
    in `{split}/images` and `{split}/labels`, or in `images` and `labels` with files `{split}.txt`; or in an `.npz`,
    where the number of both data sets is 255.

    Args:
        argument: name of the user's argument, for error messages.
        source: see `load_split`.
        split: which.
        spec: of the task.

    Raises:
        InvalidInputError: as `load_split`, `load_maps` and `to_classes`; also when the task has other classes than its
            data set.
    """
    path, size = os.fspath(source), spec.image_shape[1:]
    arrays = path.endswith(".npz") or npz_splits(Path(path)) or path.startswith(HUB_PREFIX)
    if not spec.dense or arrays:
        fits = (None, None) if spec.dense else (spec.num_classes, size)
        images, labels = load_split(argument, source, split, spec.image_shape[0], *fits)
        void = VOID if spec.void is None and spec.dataset in _OF_DATASETS else spec.void
        return images, to_classes(argument, labels, spec.num_classes, void) if labels.dim() == 3 else labels
    images, labels = _OF_DATASETS.get(spec.dataset, _own_maps)(argument, source, split, spec)
    return to_channels(f"{argument}={path!r}", images, spec.image_shape[0]), labels


def _camvid_maps(argument: str, source: str | Path, split: str, spec: TaskSpec) -> LabelledImages:
    if spec.num_classes != len(CAMVID_CLASSES):
        raise InvalidInputError(
            f"task {spec.name!r} has {spec.num_classes} classes, CamVid's label maps are read with its "
            f"{len(CAMVID_CLASSES)}; leave dataset out of the task, for data of your own"
        )
    return load_camvid(argument, source, split, spec.image_shape[1:], spec.void)


def _nyuv2_maps(argument: str, source: str | Path, split: str, spec: TaskSpec) -> LabelledImages:
    return load_nyuv2(argument, source, split, spec.image_shape[1:], spec.num_classes, spec.void)


def _own_maps(argument: str, source: str | Path, split: str, spec: TaskSpec) -> LabelledImages:
    layouts = tuple(Layout(images, labels, spec.void) for images, labels in _LAYOUTS)
    form = MapForm(spec.name, spec.num_classes, {"train": 0, "test": 0}, layouts)
    return load_maps(argument, source, split, form, spec.image_shape[1:], spec.void)


#: How the label maps of a known data set are read.
_OF_DATASETS = {"camvid": _camvid_maps, "nyuv2": _nyuv2_maps}


def read_both(
    argument: str, source: str | Path, spec: TaskSpec, remedy: str = ""
) -> tuple[LabelledImages, LabelledImages]:
    """Both splits of a source.

    Args:
        argument: name of the user's argument, for error messages.
        source: see `read_split`.
        spec: of the task.
        remedy: what else than a source with splits may be given, likewise.

    Raises:
        InvalidInputError: as `read_split`; also when the source has no splits, so that one would be measured on what
            was learnt.
    """
    train, test = read_split(argument, source, "train", spec), read_split(argument, source, "test", spec)
    if train[0].equal(test[0]):
        raise InvalidInputError(
            f"{argument}={os.fspath(source)!r} has no splits: its images to learn from are those to measure on; give "
            f"train and test apart {remedy}".rstrip()
        )
    return train, test
