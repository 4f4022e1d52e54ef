"""Whether a line is a result of an episode, under the names of whatever version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssdkd_agents.schemas import ResultLine
from ssdkd_env.reading import conform
from ssdkd_env.renamed import with_new_names

Result = Mapping[str, Any]


def under_new_names(line: Result) -> Result:
    """A line under today's names, as far as it is a result at all."""
    kwargs = line.get("env_kwargs")
    return with_new_names(line) | ({"env_kwargs": with_new_names(kwargs)} if isinstance(kwargs, Mapping) else {})


def check_result(line: Mapping[str, Any], where: str) -> None:
    """Check that a line describes an episode.

    Raises:
        InvalidInputError: when it does not.
    """
    conform(
        line, ResultLine, f"{where} is no result of an episode", "give the results.jsonl of ssdkd evaluate or benchmark"
    )
