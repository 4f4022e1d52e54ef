"""Result lines, as `ssdkd evaluate` and `ssdkd benchmark` write them: reading them, and what a table takes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssdkd_agents.analysis.checking import Result as Result
from ssdkd_agents.analysis.checking import check_result, under_new_names
from ssdkd_agents.analysis.store import is_store, read_store, read_whole
from ssdkd_agents.lines import numbered_lines
from ssdkd_agents.samplers import RANDOM_REPLACEMENT_PREFIX
from ssdkd_env.errors import InvalidInputError

#: Scores from the most telling on: key of a result line or of its `final`, and its name in tables and pictures.
SCORES = {
    "mean_iou": "mean IoU",  # of dense predictions, on the task's evaluation images
    "held_out_accuracy": "held-out accuracy",
    "accuracy": "accuracy on real images",
    "probe_agreement": "probe agreement",
}
#: Those that are measured on real images.
ACCURACIES = ("mean_iou", "held_out_accuracy", "accuracy")


def read_results(path: str | Path, whole: bool = False) -> list[Result]:
    """Result lines of a file.

    Args:
        path: of JSON lines, plain or compressed, or a store.
        whole: wants of a store the lines as they were, and not only what tables read; see `store.read_store`.

    Raises:
        InvalidInputError: when it is missing, or a line is no result of an episode.
    """
    lines = []
    stored = is_store(path)
    read = read_whole if whole else read_store
    for number, line in enumerate(read(path), start=1) if stored else numbered_lines(path):
        lines.append(line if stored and not whole else under_new_names(line))  # columns have their new names
        check_result(lines[-1], f"{path}, line {number}")
    if not lines:
        raise InvalidInputError(f"{path} is empty; give the results.jsonl of ssdkd evaluate or ssdkd benchmark")
    return lines


def score_of(line: Result, name: str) -> float:
    """A score of a line, the line's own or that of the last round."""
    return float(line[name] if name in line else line["final"][name])


def common_score(results: Sequence[Result], names: Iterable[str] = SCORES) -> str | None:
    """The first of these scores that every line has."""
    return next((name for name in names if all(_has(line, name) for line in results)), None)


def _has(line: Result, name: str) -> bool:
    """Whether a line has a score, and neither null nor something else in its place."""
    value = line.get(name, line["final"].get(name))
    return isinstance(value, int | float) and not isinstance(value, bool)


def instance_of(line: Result) -> int | None:
    """Number of the instance that an episode played; None where there was no choice, or nobody wrote it down."""
    number = line.get("instance", line["final"].get("instance"))
    return None if number is None else int(number)


def wall_seconds(line: Result) -> float:
    """Wall time of an episode; early versions wrote nothing else."""
    seconds = line.get("seconds", float("nan"))
    return float(seconds.get("wall", float("nan")) if isinstance(seconds, Mapping) else seconds)


def row_name(line: Result) -> str:
    """What a line belongs to in a comparison of samplers: its group, or else its label, or else its sampler."""
    return str(line.get("group") or line.get("label") or line["sampler"])


def rows_of(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Lines by `row_name`, in the order of their first."""
    rows: dict[str, list[Result]] = {}
    for line in results:
        rows.setdefault(row_name(line), []).append(line)
    return rows


def runs_of(lines: Iterable[Result], score: str) -> list[dict[int, float]]:
    """Evaluation seed → score, for each training run among the lines of a row; a baseline is one run."""
    runs: dict[str, dict[int, float]] = {}
    lines = list(lines)
    for run, line in zip(trainings_of(lines), lines, strict=True):
        runs.setdefault(run, {})[line["seed"]] = score_of(line, score)
    return list(runs.values())


def trainings_of(lines: Iterable[Result]) -> list[str]:
    """The training run of each line, by the name of its sampler; two names of one file's content are one run."""
    first: dict[str, str] = {}
    runs = []
    for line in lines:
        name, digest = str(line["sampler"]), line.get("sampler_digest")
        # A baseline that is made of a sampler has that one's digest.
        made = name.startswith(RANDOM_REPLACEMENT_PREFIX)
        runs.append(first.setdefault(f"{made} {digest}", name) if digest else name)
    return runs


def is_paper(line: Result) -> bool:
    """Whether a line is of the paper's sampler, under this name or as SSD-KD's own."""
    method = line["env_kwargs"].get("method", "ssdkd")
    return line["sampler"] == "paper" or (line["sampler"] == "own" and bool(method == "ssdkd"))


def paper_lines(results: Iterable[Result]) -> list[Result]:
    """The lines of the paper's sampler; where it was played twice, under the first name only."""
    lines = [line for line in results if is_paper(line)]
    return [line for line in lines if line["sampler"] == lines[0]["sampler"]]
