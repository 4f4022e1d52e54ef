"""What result lines say of samplers: a table in the manner of rliable, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssdkd_agents.analysis.comparison import (
    Runs,
    interquartile_mean,
    mean_score,
    paired_probability_of_improvement,
    probability_of_improvement,
)
from ssdkd_agents.analysis.markdown import EMPTY, markdown_table
from ssdkd_agents.analysis.results import (
    ACCURACIES,
    SCORES,
    Result,
    common_score,
    paper_lines,
    row_name,
    rows_of,
    runs_of,
    trainings_of,
    wall_seconds,
)
from ssdkd_agents.analysis.statistics import IN_PLACE, METHOD
from ssdkd_agents.plotting.comparison_plots import plot_improvement, plot_profiles
from ssdkd_env.errors import InvalidInputError, check_choice


@dataclass(frozen=True)
class Unit:
    """What the rows of a table have many of, and what intervals are over.

    Attributes:
        one: what scores.
        many: of them.
        same: what pairs them in two rows.
        pairs: how they meet in a probability of improvement.
    """

    one: str
    many: str
    same: str
    pairs: str


#: Every line is one.
EPISODES = Unit(
    "an episode", "episodes", "seeds", "on the same seeds, and of all pairs as in rliable (Agarwal et al. 2021)"
)
#: A line is a mean over episodes; see `analysis.instances`.
INSTANCES = Unit(
    "the mean of an instance's episodes",
    "instances",
    "instances",
    "on the same instances, which are the tasks of rliable (Agarwal et al. 2021), and of all pairs",
)

NOTE = (
    "IQM: interquartile mean. {intervals} P: probability that {unit.one} of the row scores above one "
    "of {reference}, a tie counting half: {unit.pairs}; above 0.5 is better. The difference is the mean on the same "
    "{unit.same}. The return is the gain of the reward's score, made without real data unless an oracle was asked for. "
    "Seconds are medians of the wall time. "
    "Intervals are not corrected for the number of rows. Held-out accuracy is on real images that neither the task's "
    "own teacher nor a student was trained on."
)
#: How the note and the columns call the row that the others are compared with, if none is asked for.
PAPER_NAME, PAPER_COLUMN = "the paper's sampler", "paper's"


def write_sampler_pictures(results: Sequence[Result], folder: Path) -> None:
    """Write `profiles.png` and, where the paper's sampler was played beside others, `improvement.png`."""
    rows, scores = rows_of(results), scores_of(results)
    paper = paper_lines(results)
    name_of_paper = row_name(paper[0]) if paper else None
    runs = {name: {row: runs_of(lines, key) for row, lines in rows.items()} for key, name in scores.items()}
    plot_profiles(runs, folder / "profiles.png", name_of_paper)
    others = {score: {row: of for row, of in made.items() if row != name_of_paper} for score, made in runs.items()}
    if paper and others["return"]:
        references = {name: runs_of(paper, key) for key, name in scores.items()}
        plot_improvement(others, references, folder / "improvement.png")


def scores_of(results: Sequence[Result]) -> dict[str, str]:
    """The accuracy that all lines have, where there is one, and the return: key → name."""
    accuracy = common_score(results, ACCURACIES)
    return ({accuracy: SCORES[accuracy]} if accuracy else {}) | {"return": "return"}


def make_sampler_table(
    results: Sequence[Result], against: str | None = None, score: str | None = None, unit: Unit = EPISODES
) -> str:
    """A Markdown table for each score, a row for each sampler or group of training runs in the order of the lines.

    Args:
        results: lines of one environment with one budget.
        against: row that the others are compared with; None takes the paper's sampler, where it was played.
        score: which every line has; None takes those of `scores_of`.
        unit: what a line is.

    Raises:
        InvalidInputError: when there is no such row, or it has several training runs.
    """
    rows = rows_of(results)
    if against is None:
        reference = paper_lines(results)
    else:
        check_choice("against", against, rows)
        reference = rows[against]
        if len(runs_of(reference, "return")) > 1:
            raise InvalidInputError(f"against={against!r} is several training runs; give a row of one sampler")
    title = f"− {PAPER_COLUMN if against is None else against}"
    scores = scores_of(results) if score is None else {score: SCORES.get(score, score)}
    return "\n\n".join(_table(rows, reference, title, key, name, unit) for key, name in scores.items())


def intervals(unit: Unit = EPISODES) -> str:
    """What the intervals of the table are; a command says it below it."""
    return (
        f"Intervals: {METHOD}, over the {unit.same}, and in a row of several training runs over these and the "
        f"{unit.same}, so that they cover the noise of training; {IN_PLACE} (of each run where these are few, else of "
        f"each {unit.same.removesuffix('s')})."
    )


def note(against: str | None = None, unit: Unit = EPISODES) -> str:
    """What the columns of the table mean."""
    return NOTE.format(reference=PAPER_NAME if against is None else against, intervals=intervals(unit), unit=unit)


def _table(
    rows: Mapping[str, Sequence[Result]],
    reference: Sequence[Result],
    difference: str,
    score: str,
    name: str,
    unit: Unit,
) -> str:
    paired = f"P, same {unit.same}"
    columns = ("sampler", unit.many, f"{name}, IQM", "mean", difference, paired, "P, all pairs", "s/episode")
    made = [
        (row, _episodes(lines), *_score_cells(lines, score, reference), _seconds(lines)) for row, lines in rows.items()
    ]
    return markdown_table(columns, made)


def _score_cells(lines: Sequence[Result], score: str, reference: Sequence[Result]) -> tuple[str, ...]:
    """Interquartile mean, mean, and how a row compares with the reference, with intervals."""
    runs = runs_of(lines, score)
    compared: tuple[str, ...] = (EMPTY,) * 3
    if reference and row_name(reference[0]) != row_name(lines[0]):
        compared = _compare(runs, runs_of(reference, score))
    return str(interquartile_mean(runs)), str(mean_score(runs)), *compared


def _episodes(lines: Sequence[Result]) -> str:
    runs = len(set(trainings_of(lines)))
    diverged = sum(bool(line["final"].get("diverged")) for line in lines)
    odd = ([f"{runs} training runs"] if runs > 1 else []) + ([f"{diverged} diverged"] if diverged else [])
    return f"{len(lines)}" + (f" ({', '.join(odd)})" if odd else "")


def _compare(runs: Runs, reference: Runs) -> tuple[str, ...]:
    """Paired difference, paired and unpaired probability; what has no seed in common stays empty."""
    differences = paired_runs(runs, reference[0])
    paired = paired_probability_of_improvement(runs, reference)
    return (
        str(mean_score(differences)) if any(differences) else EMPTY,
        str(paired) if paired else EMPTY,
        str(probability_of_improvement(runs, reference)),
    )


def paired_runs(runs: Runs, reference: Mapping[int, float]) -> list[dict[int, float]]:
    """Each run less `reference`, seed by seed, over the seeds that both have."""
    return [{seed: value - reference[seed] for seed, value in run.items() if seed in reference} for run in runs]


def _seconds(lines: Sequence[Result]) -> str:
    return f"{np.median([wall_seconds(line) for line in lines]):.1f}"
