"""Names of earlier versions: an argument gets an error that says the new one, a file is read by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.analysis.results import read_results

from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from ssdkd_env.errors import InvalidInputError

LINE = {
    "env_id": "SSDKD/Digits-v2",
    "sampler": "paper",
    "seed": 1,
    "env_kwargs": {"evaluate_every": 3, "action": "strategies", "observation": "statistics"},
    "return": 0.5,
    "final": {},
    "actions": [],
    "vector_backend": "loop",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evaluate_every": 3}, "evaluate_every=3 is called evaluate_every_rounds now"),
        ({"vector_backend": "loop"}, "vector_backend='loop' is called vectorization now"),
        ({"action": "strategies"}, "action='strategies' is called 'plans' now"),
        ({"observation": "statistics"}, "observation='statistics' is called 'unscaled' now"),
    ],
)
@pytest.mark.parametrize("kind", [SSDKDEnv, SSDKDVectorEnv])
def test_old_names_get_an_error_that_says_the_new_one(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        kind(**arguments)


def test_unknown_arguments_are_refused_as_python_does() -> None:
    with pytest.raises(TypeError, match="'colour'"):
        SSDKDEnv(colour="red")


def test_result_lines_of_earlier_versions_are_read_under_todays_names(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(LINE) + "\n")
    (line,) = read_results(path)
    assert line["vectorization"] == "loop"
    assert line["env_kwargs"] == {"evaluate_every_rounds": 3, "action": "plans", "observation": "unscaled"}
