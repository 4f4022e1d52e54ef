"""A leaderboard made of result files: equal files give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssdkd_agents.analysis.comparison import (
    interquartile_mean,
    paired_probability_of_improvement,
    probability_of_improvement,
)
from ssdkd_agents.analysis.markdown import EMPTY, Markup, escaped, markdown_table
from ssdkd_agents.analysis.results import (
    ACCURACIES,
    SCORES,
    Result,
    common_score,
    instance_of,
    is_paper,
    row_name,
    runs_of,
    score_of,
    wall_seconds,
)
from ssdkd_agents.analysis.statistics import IN_PLACE, METHOD
from ssdkd_agents.inputs import SHOWN
from ssdkd_env.envs.settings import FACE
from ssdkd_env.errors import InvalidInputError

HEAD = f"""# Leaderboard

Made by `ssdkd results rank` from the result files that the rows name; do not edit it by hand. Episodes are
comparable within a section only: one environment with one budget and one teacher. Files (of teachers, their cards, and
images) stand in titles by the SHA-256 of what is in them, not by their names. The action scheme is what a sampler can
say, so that samplers of several meet in a section. Rows stand in the order of the interquartile mean (IQM) of the
accuracy. P is the probability of scoring above the paper's sampler in accuracy (a tie counts half; above 0.5 is
better): on the same seeds, and of all pairs. It was played in the same file where possible. Where several files have
the same episodes of a sampler, the first one has the row. Intervals are {METHOD},
over seeds, and over training runs where a row has several; {IN_PLACE}. Seconds are the median wall time of an
episode on whatever machine it ran.
"""
COLUMNS = ("P, same seeds", "P, all pairs", "return, IQM", "seeds", "s/episode", "made with", "file")
#: Arguments that change neither what an episode's scores mean nor how they compare, and those with a column.
NEUTRAL = (
    "method",
    "method_options",
    *FACE,
    "device",
    "backend",
    "clock",
    "render_mode",
    "data_root",
    "evaluate_every_rounds",
)
#: Versions that a row names.
VERSIONS = ("ssdkd-env", "source", "torch")


@dataclass(frozen=True)
class _Row:
    """Episodes of one sampler with one method in one file."""

    file: str
    name: str
    action: str
    method: str
    lines: tuple[Result, ...]


def make_leaderboard(files: Mapping[str, Sequence[Result]]) -> str:
    """The leaderboard as Markdown.

    Args:
        files: name, as a link from the leaderboard → result lines.
    """
    sections: dict[tuple[str, str], dict[tuple[str, str, str, str], list[Result]]] = {}
    for file in sorted(files):
        for line in files[file]:
            rows = sections.setdefault((environment_of(line), settings_of(line)), {})
            rows.setdefault((file, row_name(line), _action(line), method_of(line)), []).append(line)
    parts = [HEAD]
    for (environment, settings), rows in sorted(sections.items(), key=_defaults_first):
        made = _different([_Row(*key, tuple(sorted(lines, key=_order))) for key, lines in sorted(rows.items())])
        paper = {
            file: [line for line in files[file] if _is_reference(line, environment, settings)] for file in sorted(files)
        }
        title = f"## {escaped(environment)}" + (f", `{escaped(settings)}`" if settings != "{}" else "")
        parts.append(f"{title}\n\n{_table(made, paper)}\n")
    return "\n".join(parts)


def _different(rows: Sequence[_Row]) -> list[_Row]:
    """Rows without those whose episodes an earlier one has already: baselines are played again and again."""
    first: dict[tuple[object, ...], _Row] = {}
    for row in rows:
        played = tuple((line["sampler"], line["seed"], line["return"], json.dumps(line["final"])) for line in row.lines)
        first.setdefault((row.name, row.method, played), row)
    return list(first.values())


def _defaults_first(section: tuple[tuple[str, str], Any]) -> tuple[str, bool, str]:
    (environment, settings), _ = section
    return environment, settings != "{}", settings


def _is_reference(line: Result, environment: str, settings: str) -> bool:
    """Whether a line is of the paper's sampler in SSD-KD as it is, in this environment with this budget."""
    plain = environment_of(line) == environment and method_of(line) == "ssdkd" and is_paper(line)
    return plain and settings_of(line) == settings


def _table(rows: Sequence[_Row], paper: Mapping[str, Sequence[Result]]) -> str:
    lines = [line for row in rows for line in row.lines]
    score = common_score(lines, ACCURACIES)
    ranked = sorted(rows, key=lambda row: -interquartile_mean(runs_of(row.lines, score or "return")).mean)
    columns = ("#", "sampler", "action", "method", f"{SCORES[score] if score else 'accuracy'}, IQM", *COLUMNS)
    return markdown_table(
        columns, [(str(rank), *_cells(row, score, paper)) for rank, row in enumerate(ranked, start=1)]
    )


def _cells(row: _Row, score: str | None, paper: Mapping[str, Sequence[Result]]) -> tuple[str, ...]:
    runs = runs_of(row.lines, score or "return")
    reference = paper[row.file] or [line for lines in paper.values() for line in lines]
    probabilities = (EMPTY, EMPTY)
    comparable = score is not None and all(score in line or score in line["final"] for line in reference)
    if reference and comparable and not _is_paper_row(row):
        against = [{line["seed"]: score_of(line, score or "return") for line in reference}]
        of = {line["seed"]: instance_of(line) for line in reference}
        if any(instance_of(line) != of.get(line["seed"], instance_of(line)) for line in row.lines):
            raise InvalidInputError(
                f"{row.name}: an episode is of another instance than the paper's sampler's of the same seed, by "
                "another version; play one of them anew"
            )
        paired = paired_probability_of_improvement(runs, against)
        probabilities = (str(paired) if paired else EMPTY, str(probability_of_improvement(runs, against)))
    training_runs = f" × {len(runs)} runs" if len(runs) > 1 else ""
    return (
        row.name,
        row.action,
        row.method,
        str(interquartile_mean(runs)) if score else EMPTY,
        *probabilities,
        str(interquartile_mean(runs_of(row.lines, "return"))),
        f"{len({line['seed'] for line in row.lines})}{training_runs}",
        f"{np.median([wall_seconds(line) for line in row.lines]):.1f}",
        "; ".join(sorted({_versions(line) for line in row.lines})),
        Markup(f"[{escaped(row.file)}]({escaped(row.file)})"),
    )


def _is_paper_row(row: _Row) -> bool:
    """Whether a row is the reference itself."""
    return row.method == "ssdkd" and is_paper(row.lines[0])


def environment_of(line: Result) -> str:
    """The environment's id."""
    return str(line["env_id"]).rpartition(":")[2]  # without the module that registers it


def settings_of(line: Result) -> str:
    """What makes episodes comparable, as JSON; files are named by what is in them, as far as the line knows it."""
    kept = {name: value for name, value in line["env_kwargs"].items() if name not in NEUTRAL}
    files = {path: f"sha256:{digest[:SHOWN]}" for path, digest in line.get("inputs", {}).items()}
    kept |= {name: files.pop(value) for name, value in kept.items() if isinstance(value, str) and value in files}
    return json.dumps(kept | ({"files": sorted(files.values())} if files else {}), sort_keys=True)


def _action(line: Result) -> str:
    return str(line["env_kwargs"].get("action", "default"))


def method_of(line: Result) -> str:
    """The method, and its options where there are any."""
    method, options = line["env_kwargs"].get("method", "ssdkd"), line["env_kwargs"].get("method_options", {})
    return f"{method} {json.dumps(options, sort_keys=True)}" if options else str(method)


def _versions(line: Result) -> str:
    known = line.get("versions", {}) | ({"commit": line["commit"]} if "commit" in line else {})
    return ", ".join(f"{name} {known[name]}" for name in ("commit", *VERSIONS) if name in known) or "unknown"


def _order(line: Result) -> tuple[str, int]:
    return str(line["sampler"]), line["seed"]
