"""Which samplers a benchmark plays: groups of training runs, baselines, and the action schemes that they need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ssdkd_agents.benchmarking.experiments import run_episode
from ssdkd_agents.benchmarking.suites import DEFAULT_ENV, Entry, control_entries, grid, sampler_runs, with_face
from ssdkd_agents.policies.storage import face_of, load_sampler
from ssdkd_agents.samplers import SAMPLERS, RandomReplacement

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_json
from tests.agents.benchmarking.test_suites import BUDGET, config

# --- groups ---


def test_training_runs_of_a_group_share_a_row_and_have_names_of_their_own() -> None:
    entries = grid((), ["ppo=runs/a,runs/b", "paper", "constant:[0, 0.5, 0, 0, 0]"])
    assert [(e.label, e.sampler, e.group) for e in entries] == [
        ("ssdkd, ppo: runs/a", "runs/a", "ppo"),
        ("ssdkd, ppo: runs/b", "runs/b", "ppo"),
        ("ssdkd, paper", "paper", "paper"),
        ("ssdkd, constant:[0, 0.5, 0, 0, 0]", "constant:[0, 0.5, 0, 0, 0]", "constant:[0, 0.5, 0, 0, 0]"),
    ]
    assert {entry.group for entry in grid(["dfq"], ())} == {""}, "methods are compared, not samplers"


def test_path_with_an_equals_sign_is_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").touch()
    assert sampler_runs(["lr=1", "runs/lr=2"]) == {"lr=1": ("lr=1",), "runs/lr=2": ("runs/lr=2",)}


def test_numbers_of_a_member_are_not_torn_apart() -> None:
    members = ("schedule:[0,0,1,1]", "constant:[0.5, -1]", "runs/a")
    assert sampler_runs([f"plans={','.join(members)}", "constant:[1,2]"]) == {
        "plans": members,
        "constant:[1,2]": ("constant:[1,2]",),
    }


@pytest.mark.parametrize(
    ("samplers", "match"),
    [
        (["ppo="], "'ppo=' names no run; give such as ppo=runs"),
        (["ppo=a", "ppo=b"], "'ppo' is given twice"),
        (["ppo=a,a"], "'a' is given twice"),
        (["paper", "x=paper"], "'paper' is given twice"),
        (["my ppo=a"], "samplers: 'my ppo' names no group; take letters"),
        (["a|b=paper"], "samplers: 'a|b' names no group; take letters"),
    ],
    ids=str,
)
def test_odd_groups_are_refused(samplers: list[str], match: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(match)):
        sampler_runs(samplers)


# --- baselines, and what a sampler is used to ---


def test_baselines_are_those_of_the_samplers_module() -> None:
    entries = control_entries(DEFAULT_ENV, {"budget": BUDGET})
    assert entries[0] == Entry("paper", sampler="paper", group="paper"), "the others are compared with the first"
    assert {entry.sampler for entry in entries} == set(SAMPLERS) - {"own"}
    assert all(entry.label == entry.sampler == entry.group for entry in entries)


def test_constant_of_a_search_brings_its_action_scheme(tmp_path: Path) -> None:
    env = SSDKDEnv(action="bins", budget=BUDGET)
    plan = {"action": env.paper_action.tolist(), "action_names": env.action_names, "env_kwargs": {"action": "bins"}}
    write_json(tmp_path / "constant.json", plan)
    assert face_of(str(tmp_path)) == {"action": "bins"}
    entry = with_face(Entry("x", sampler=str(tmp_path)), {"budget": BUDGET})
    assert entry.env_kwargs == {"action": "bins"}
    assert run_episode(config(entry))["env_kwargs"]["action"] == "bins"
    assert with_face(entry, {"action": "bins"}) == entry
    with pytest.raises(InvalidInputError, match="made with action='bins', this environment has action='exponents'"):
        load_sampler(str(tmp_path), SSDKDEnv(budget=BUDGET))


def test_baselines_need_no_scheme_of_their_own() -> None:
    assert [face_of(name) for name in (*SAMPLERS, "constant:3", "random_at_rate:paper", "no such thing")] == [{}] * (
        len(SAMPLERS) + 3
    )


def test_replacement_by_chance_is_named_after_its_sampler() -> None:
    assert isinstance(load_sampler("random_at_rate:paper", SSDKDEnv(budget=BUDGET)), RandomReplacement)
