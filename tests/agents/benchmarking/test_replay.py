"""Replaying result lines: what was written comes out again, and what was changed is found."""

from __future__ import annotations

import copy
import json
from dataclasses import replace as changed
from typing import Any

import pytest
import torch
from ssdkd_agents.benchmarking.experiments import run_episode
from ssdkd_agents.benchmarking.replay import check_replayable, first_difference, is_baseline, replay

from ssdkd_env.errors import InvalidInputError
from tests.agents.benchmarking.test_experiments import CONFIG


@pytest.fixture(scope="module")
def played() -> dict[str, Any]:
    """A line as a file holds it; the random sampler's actions differ from round to round."""
    line: dict[str, Any] = json.loads(json.dumps(run_episode(changed(CONFIG, sampler="random"))))
    return line


def without(line: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """A copy in which one value is another."""
    made = copy.deepcopy(line)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


@pytest.mark.parametrize("source", ["trace", "sampler"])
def test_line_replays_bit_for_bit(source: str, played: dict[str, Any]) -> None:
    replayed = replay(played, source, 0.0)
    assert (replayed.difference, replayed.exact, replayed.reasons) == ("", True, ())
    assert replayed.value == played["return"]


@pytest.mark.parametrize(
    ("path", "match"),
    [
        (("return",), "return: "),
        (("final", "bn_loss"), "final.bn_loss: "),
        (("curve", "probe_agreement", 2), "curve.probe_agreement[2]: "),
        (("distributions", "difficulty", 3), "distributions.difficulty[3]: "),
        (("held_out_accuracy",), "held_out_accuracy: "),
    ],
    ids=str,
)
def test_smallest_change_of_a_number_is_found_and_named(
    path: tuple[Any, ...], match: str, played: dict[str, Any]
) -> None:
    value: Any = played
    for key in path:
        value = value[key]
    told = replay(without(played, *path, value=value + 1e-9), "trace", 0.5).difference
    assert told.startswith(match), "a tolerance does not count where bit-identity is promised"
    assert repr(value) in told


def test_another_action_gives_another_episode(played: dict[str, Any]) -> None:
    """From the first round on whose action is another, which the trace follows and the sampler does not."""
    line = without(played, "actions", 1, value=[-1.0, 1.0, -1.0, 1.0, -1.0])
    assert replay(line, "trace", 0.0).difference
    assert replay(line, "sampler", 0.0).difference.startswith("actions[1][0]: -1.0 in the line, ")


def test_trace_of_other_length_is_found(played: dict[str, Any]) -> None:
    shorter = without(played, "actions", value=played["actions"][:-1])
    assert replay(shorter, "trace", 0.0).difference == "the episode goes on after the 2 steps of the line"
    longer = without(played, "actions", value=played["actions"] * 2)
    assert replay(longer, "trace", 0.0).difference == "actions: a list of 6 in the line, a list of 3 here"


def test_where_identity_is_not_promised_the_tolerance_counts(played: dict[str, Any]) -> None:
    elsewhere = without(without(played, "machine", "cpu", value="Another CPU"), "versions", "torch", value="1.0")
    near = without(elsewhere, "return", value=played["return"] + 0.01)
    replayed = replay(near, "trace", 0.02)
    assert (replayed.difference, replayed.exact) == ("", False)
    assert replayed.reasons[0].startswith("cpu 'Another CPU', here ")
    assert replayed.reasons[1].startswith("torch 1.0, here ")
    assert replay(near, "trace", 0.001).difference.startswith("return: ")
    assert replay(near, "trace", 0.0).difference.startswith("return: ")


def test_episode_of_a_group_asks_for_a_tolerance(played: dict[str, Any]) -> None:
    grouped = without(played, "vectorization", value="grouped")
    with pytest.raises(InvalidInputError, match=r"x was stepped in a group.*give --tolerance"):
        check_replayable(grouped, "x", 0.0)
    check_replayable(grouped, "x", 0.01)
    check_replayable(played, "x", 0.0)
    assert replay(grouped, "trace", 0.01).exact is False


def test_replay_uses_as_many_threads_as_the_line_and_gives_them_back(
    played: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    replay(without(played, "machine", "torch_threads", value=3), "trace", 1.0)
    assert asked == [3, before]


def test_lines_of_early_versions_replay_without_what_they_lack(played: dict[str, Any]) -> None:
    early = {key: played[key] for key in ("env_id", "sampler", "seed", "env_kwargs", "return", "final", "actions")}
    replayed = replay(early, "trace", 1e-12)
    assert replayed.difference == ""
    assert replayed.exact is False


def test_not_a_number_equals_itself() -> None:
    line = {"final": {"loss": float("nan"), "diverged": True}}
    assert first_difference(line, copy.deepcopy(line), 0.0) == ""
    assert (
        first_difference(line, {"final": {"loss": 1.0, "diverged": True}}, 1e9)
        == "final.loss: nan in the line, 1.0 here"
    )
    assert (
        first_difference({"final": {"diverged": True}}, {"final": {}}, 0.0)
        == "final.diverged: True in the line, None here"
    )


@pytest.mark.parametrize(
    ("line", "baseline"),
    [
        ({"sampler": "paper"}, True),
        ({"sampler": "constant:[0, 0, 0, 0, 0]"}, True),
        ({"sampler": "runs/ppo"}, False),
        ({"sampler": "ppo"}, False),
        ({"sampler": "a baseline to come", "sampler_digest": None}, True),
        ({"sampler": "made_of:runs/ppo", "sampler_digest": None}, False),
        ({"sampler": "ppo", "sampler_digest": "0f"}, False),
    ],
    ids=str,
)
def test_baselines_are_told_from_trained_samplers(line: dict[str, Any], baseline: bool) -> None:
    assert is_baseline(line) is baseline
