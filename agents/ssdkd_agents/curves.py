"""What TensorBoard shows of a run: curves as they grow, one page of what matters, and a row of settings and results."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard import summary

from ssdkd_agents.runs import RETURN_TAG
from ssdkd_env.files import unwritable

#: Of what a training or a search is selected by.
VALIDATION_TAG = "eval/mean_reward"
#: What is measured on real images, by its name in info → the same in a line of `evaluations.jsonl`, and its curve.
REAL_SCORES = {"accuracy": ("accuracies", "eval/mean_accuracy"), "mean_iou": ("mean_ious", "eval/mean_iou")}
#: Mean return of what a search would recommend.
SEARCH_TAG = "search/best"
#: Tag → key of info after a round, of the student.
STUDENT_TAGS = {
    "student/accuracy": "accuracy",
    "student/mean_iou": "mean_iou",
    "student/probe_agreement": "probe_agreement",
    "student/probe_discrepancy": "probe_discrepancy",
    "student/candidate_agreement": "candidate_agreement",
    "student/loss": "student_loss",
    "student/diverged": "diverged",
}
#: Likewise, of the buffer.
BUFFER_TAGS = {
    "buffer/class_imbalance": "buffer_class_imbalance",
    "buffer/difficulty": "buffer_difficulty",
    "buffer/discrepancy": "buffer_discrepancy",
    "buffer/mean_age": "buffer_mean_age",
    "buffer/effective_sample_size": "effective_sample_size",
    "buffer/replaced": "replaced",
}
PICTURE_TAG = "buffer/images"
#: Title of the charts of `BUFFER_TAGS`, in every command.
BUFFER_CATEGORY = "Buffer (mean over the steps)"
#: Tag → title, of the charts that the page *Custom scalars* begins with, in every command.
RESULTS = {
    VALIDATION_TAG: "Validation: mean return",
    "eval/mean_accuracy": "Validation: accuracy on real data",
    "eval/mean_iou": "Validation: mean IoU on real data",
    SEARCH_TAG: "Search: mean return of the best so far",
    RETURN_TAG: "Return, mean of the last episodes",
    "student/accuracy": "Student: accuracy on real data",
    "student/mean_iou": "Student: mean IoU on real data",
    "student/probe_agreement": "Student: agreement on the probe set",
    "test/top1": "Teacher: top-1 on test images",
    "test/mean_iou": "Teacher: mean IoU on test images",
}
#: What the table of hyper-parameters compares; it shows the first five unasked.
METRICS = (
    *(VALIDATION_TAG, "eval/mean_accuracy", RETURN_TAG, "student/accuracy", "student/probe_agreement"),
    *("eval/mean_iou", "student/mean_iou", SEARCH_TAG, "test/top1", "test/mean_iou"),
)
#: The settings that it shows unasked; it has room for five.
SHOWN = ("algorithm", "env_id", "env_kwargs", "hyperparameters", "seed")


class Curves:
    """The event files of a run, in `tensorboard/` of its folder.

    What is given is in the file when a call returns, a record a call, so that a process that is killed leaves whole
    steps, and a full disk is met where it can be said. PyTorch's `SummaryWriter` writes later, in a thread.

    Args:
        run: the run's folder.
        first_step: that will be written. TensorBoard hides what a process that was killed has written from it on.

    Raises:
        InvalidInputError: here and in all methods, when the file cannot be written.
    """

    def __init__(self, run: Path, first_step: int = 0) -> None:
        # Fixed width: TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = run / "tensorboard" / name
        self._append(Event(file_version="brain.Event:2"))
        self._append(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Write a point of each curve.

        Args:
            values: by tag; None where there is none.
            step: of all of them.
        """
        known = {tag: float(value) for tag, value in values.items() if value is not None}
        if known:
            points = [Summary.Value(tag=tag, simple_value=value) for tag, value in known.items()]
            self._write(Summary(value=points), step)

    def image(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write a picture (H, W, 3)."""
        self._write(summary.image(tag, picture, dataformats="HWC"), step)

    def describe(self, layout: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Write the page *Custom scalars* and the run's row of the table *HParams*; see `layout_of` and `table_row`."""
        for part in (summary.custom_scalars(layout), *table_row(settings)):
            self._write(part, 0)

    def _write(self, content: Summary, step: int) -> None:
        self._append(Event(summary=content, step=step))

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        record = BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab") as file:
                file.write(record.getvalue())
        except OSError as error:
            raise unwritable(self._path, error) from error


def result_tags(scores: Iterable[str], validated: bool) -> list[str]:
    """What the page *Custom scalars* of a training or a search begins with.

    Args:
        scores: names of what is measured on real images; see `SSDKDEnv.real_scores`.
        validated: whether there are validations.
    """
    scores = list(scores)
    validation = [VALIDATION_TAG, *(REAL_SCORES[score][1] for score in scores)] if validated else []
    return [*validation, RETURN_TAG, *(f"student/{score}" for score in scores), "student/probe_agreement"]


def validation_points(line: Mapping[str, Any]) -> dict[str, float]:
    """Tag → value of the curves of a validation, out of its line in `evaluations.jsonl`."""
    means = {tag: mean_known(line.get(name, ())) for name, tag in REAL_SCORES.values()}
    return {VALIDATION_TAG: line["mean_return"]} | {tag: mean for tag, mean in means.items() if mean is not None}


def mean_known(values: Iterable[Any]) -> float | None:
    """Mean of those that are numbers; None without any."""
    known = [value for value in values if isinstance(value, int | float)]
    return float(np.mean(known)) if known else None


def layout_of(results: Iterable[str], others: Mapping[str, Iterable[str]]) -> dict[str, dict[str, list[Any]]]:
    """Charts of the page *Custom scalars*: category → title → its kind and tags.

    One tag a chart, because TensorBoard's colours tell runs apart, not tags. It merges the pages of all runs by the
    titles of categories, the first run's first, and mends none but the first run's afterwards: so all commands begin
    with the same category, and others of one title must have the same charts.

    Args:
        results: tags of the first category, keys of `RESULTS`.
        others: tags of each further one, by its title.
    """
    wanted = set(results)
    charts = {"Results": {title: tag for tag, title in RESULTS.items() if tag in wanted}}
    for category, tags in others.items():
        charts[category] = {_title(tag): tag for tag in tags}
    return {
        category: {title: ["Multiline", [tag]] for title, tag in titles.items()}
        for category, titles in charts.items()
        if titles
    }


def table_row(settings: Mapping[str, Any]) -> list[Summary]:
    """What TensorBoard needs for a row of the table *HParams*. Metrics have the last values of the curves.

    Args:
        settings: of the run, whatever they are; those of `SHOWN` are shown unasked.
    """
    _, start, end = summary.hparams({name: _plain(value) for name, value in settings.items()}, {})
    # TensorBoard takes the columns from the first run that it finds: each has to name those of all.
    names = dict.fromkeys([*SHOWN, *settings, *_hyperparameter_names()])
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(
                name=name,
                type=api_pb2.DATA_TYPE_FLOAT64 if _is_number(settings.get(name)) else api_pb2.DATA_TYPE_STRING,
                differs=name in SHOWN,  # which it shows first
            )
            for name in names
        ],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in METRICS],
    )
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(experiment=experiment))
    return [Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=described)]), start, end]


@cache
def _hyperparameter_names() -> tuple[str, ...]:
    """Of all algorithms, as their files have them."""
    tables = [yaml.safe_load(file.read_text()) for file in (Path(__file__).parent / "hyperparameters").glob("*.yml")]
    return tuple(sorted({name for table in tables for entry in table.values() for name in entry}))


def _plain(value: Any) -> str | float:
    """Make a value one that the table can show; None keeps its column so, and true is not shown as 1."""
    return value if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _title(tag: str) -> str:
    """A tag in words, without its first part where the category says it."""
    part, _, name = tag.partition("/")
    return (name if part in ("action", "buffer", "train") else f"{part} {name}").replace("_", " ").capitalize()
