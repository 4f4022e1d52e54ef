"""Schemas of lines, samplers and settings: what is written conforms, what a stranger changes does not."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.analysis.checking import check_result, under_new_names
from ssdkd_agents.benchmarking.benchmark import Plan, Settings, make_plan
from ssdkd_agents.schemas import ResultLine, check_settings_of, config_of
from ssdkd_agents.searching.search import SearchConfig
from ssdkd_agents.training.config import TrainingConfig
from ssdkd_agents.tuning.study import StudyConfig

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import conform

RESULTS = Path(__file__).parents[2] / "results"
LINE: dict[str, Any] = {
    "env_id": "SSDKD/Digits-v2",
    "sampler": "paper",
    "seed": 3,
    "env_kwargs": {"method": "ssdkd", "budget": {"rounds": 2}},
    "return": 0.25,
    "final": {"probe_agreement": 0.5, "accuracy": None, "round": 2, "diverged": False, "more": "text"},
    "actions": [[0.5, 0], 3, {"action": [1.0], "scored": True}],
    "curve": {"accuracy": [0.1, 0.2]},
    "seconds": {"wall": 1.0},
    "machine": {"torch_threads": 1, "cpu": "x"},
    "whatever": [1],
}
TRAINING = TrainingConfig("SSDKD/Digits-v2", "ppo", env_kwargs={"budget": {"rounds": 3}}, start=[0.5])


def put(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**value, head: put(value.get(head, {}), rest, new) if rest else new}


def test_line_that_is_a_result_is_one() -> None:
    check_result(LINE, "x.jsonl, line 1")


def test_every_kept_result_is_one() -> None:
    count = 0
    for path in sorted(RESULTS.glob("*.jsonl*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for text in content.splitlines():
            line = json.loads(text)
            if {"env_kwargs", "actions", "return"} <= line.keys():
                conform(under_new_names(line), ResultLine, path.name, "")
                count += 1
    assert count > 1_000


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("seed", 2**80, "seed: expected int <="),
        ("seed", -1, "seed: expected int >= 0"),
        ("return", "much", "return: expected float, got str"),
        ("final", "good", "final: expected object, got str"),
        ("final.probe_agreement", "high", "final.probe_agreement: expected float | null, got str"),
        ("actions", ["left"], "actions[0]: expected int | object | array, got str"),
        ("actions", [[0.5, "x"]], "actions[0][1]: expected float, got str"),
        ("actions", [{"action": [0.5]}], "actions[0]: it lacks scored"),
        ("curve", "up", "curve: expected object, got str"),
        ("curve", {"accuracy": ["up"]}, "expected float | null, got str - at"),
        ("machine.torch_threads", 10**9, "machine.torch_threads: expected int <= 4096"),
        ("machine.torch_threads", 0, "machine.torch_threads: expected int >= 1"),
        ("env_kwargs", [1], "env_kwargs: expected object, got array"),
        ("env_kwargs.history", "long", "env_kwargs.history: expected int, got str"),
        ("env_id", "os\x1b[2J:x", "env_id: expected str matching regex"),
        ("group", "red\x1b[31m", "group: expected str matching regex"),
        ("label", "back\u202ewards", "label: expected str matching regex"),
        ("sampler", "x" * 1_001, "sampler: expected str of length <= 1000"),
    ],
)
def test_line_with_something_else_in_it_is_refused(path: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_result(put(LINE, path, value), "x.jsonl, line 1")
    message = str(caught.value)
    assert message.startswith("x.jsonl, line 1 is no result of an episode: ") and message.endswith("benchmark")
    assert said.replace(" - at", "") in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "config",
    [
        TRAINING,
        SearchConfig("SSDKD/Digits-v2", "cma", env_kwargs={"action": "full"}, start=[0.1] * 8),
        StudyConfig(TRAINING),
        Settings(methods=("ssdkd", "fast2"), env_kwargs={"budget": {"rounds": 3}}),
        make_plan(Settings(suite="ablation", seeds=3)),
    ],
    ids=lambda config: type(config).__name__,
)
def test_settings_of_a_run_are_those_that_it_was_made_with(config: Any) -> None:
    written = json.loads(json.dumps(asdict(config))) | {"versions": {"python": "3"}}
    assert config_of(written, type(config), "run", "its command") == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"timesteps": "many"}, "timesteps: expected int, got str"),
        ({"hyperparameters": [1]}, "hyperparameters: expected object, got array"),
        ({"seed": 5_000}, "seed=5000: expected a number from 0 to 999"),
        ({"hyperparameters": {"net_arch": [1] * 10_001}}, "'net_arch' has more in it"),
        ({"searcher": "cma"}, "was not made by ssdkd train"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        config_of(asdict(TRAINING) | changes, TrainingConfig, "run", "ssdkd train")


def test_plan_of_a_billion_episodes_is_refused_before_they_are_listed() -> None:
    with pytest.raises(InvalidInputError, match="seeds=1000000000: expected 1 to 100,000"):
        Plan("", "SSDKD/Digits-v2", {}, (), seeds=10**9)


def test_settings_out_of_a_file_import_nothing_and_are_of_some_size() -> None:
    check_settings_of({"env_id": "SSDKD/Digits-v2", "env_kwargs": {"history": 3}}, "x.json")
    with pytest.raises(InvalidInputError, match="import nothing"):
        check_settings_of({"env_id": "os:x"}, "x.json")
    with pytest.raises(InvalidInputError, match="'student' has more in it"):
        check_settings_of({"env_kwargs": {"student": "x" * 10_001}}, "x.json")
