"""What tables take of result lines."""

from __future__ import annotations

import math
from typing import Any

from ssdkd_agents.analysis.results import common_score, runs_of, wall_seconds

from tests.agents.benchmarking.test_sampler_report import line
from tests.agents.test_schemas import LINE


def with_final(**final: Any) -> dict[str, Any]:
    return LINE | {"final": final}


def test_score_is_common_where_every_line_has_a_number_of_it() -> None:
    lines = [with_final(accuracy=0.5, probe_agreement=0.25), with_final(accuracy=0.5, probe_agreement=0.5)]
    assert common_score(lines) == "accuracy"
    assert common_score([*lines, with_final(accuracy=None, probe_agreement=0.5)]) == "probe_agreement"
    assert common_score([*lines, with_final()]) is None
    assert common_score([line | {"held_out_accuracy": 0.5} for line in lines]) == "held_out_accuracy"
    assert common_score([lines[0] | {"held_out_accuracy": None}, lines[1] | {"held_out_accuracy": 0.5}]) == "accuracy"


def test_seconds_are_those_on_the_wall_of_whatever_version() -> None:
    assert wall_seconds(LINE) == 1.0
    assert wall_seconds(LINE | {"seconds": 2}) == 2.0
    assert math.isnan(wall_seconds(LINE | {"seconds": {}}))


def test_training_is_one_run_under_any_name_of_its_file() -> None:
    """By the digest where there is one; a name alone is a run, as in lines of earlier versions."""

    def runs(*named: tuple[str, str | None]) -> int:
        return len(runs_of([line(name, seed, sampler_digest=of) for seed, (name, of) in enumerate(named)], "return"))

    assert runs(("runs/a", "d"), ("./runs/a/", "d"), ("/home/me/runs/a", "d")) == 1
    assert runs(("runs/a", "d"), ("runs/b", "e")) == 2
    assert runs(("runs/a", None), ("runs/b", None), ("runs/a", None)) == 2
    assert runs(("oracle", "d"), ("oracle", "e")) == 1, "one row of many plans"
    assert runs(("runs/a", "d"), ("random_at_rate:runs/a", "d")) == 2
