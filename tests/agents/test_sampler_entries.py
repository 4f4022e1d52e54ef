"""Which samplers a benchmark plays: groups of training runs, controls, and the action schemes that they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agents.experiments import run_episode
from agents.samplers import SAMPLERS, ConstantSampler, Sampler
from agents.suites import DEFAULT_ENV, Entry, control_entries, fitting_kwargs, grid, sampler_runs
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.actions import ACTION_SCHEMES, Exponents
from ssdkd_env.errors import InvalidInputError
from tests.agents.test_suites import BUDGET, config, labelled

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


@pytest.mark.parametrize(
    ("samplers", "match"),
    [
        (["ppo="], "'ppo=' names no run; give such as ppo=runs"),
        (["ppo=a", "ppo=b"], "'ppo' is given twice"),
        (["ppo=a,a"], "'a' is given twice"),
        (["paper", "x=paper"], "'paper' is given twice"),
    ],
    ids=str,
)
def test_odd_groups_are_refused(samplers: list[str], match: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(match)):
        sampler_runs(samplers)


# --- controls and their action schemes ---


class OtherScheme(Exponents):
    """The same action under other names, as a sampler that was made for them sees it."""

    def __init__(self, budget: Any) -> None:
        super().__init__(budget)
        self.names = tuple(f"other {name}" for name in self.names)


def needs_other_scheme(env: SSDKDEnv, seed: int = 0) -> Sampler:
    if not isinstance(env.action_scheme, OtherScheme):
        raise InvalidInputError("sampler='odd' needs action='other'")
    return ConstantSampler(env.paper_action)


def test_controls_are_those_of_the_samplers_module() -> None:
    entries = control_entries(DEFAULT_ENV, {"budget": BUDGET})
    assert entries[0] == Entry("paper", sampler="paper", group="paper"), "the others are compared with the first"
    assert {entry.sampler for entry in entries} == set(SAMPLERS) - {"own"}
    assert all(entry.label == entry.sampler == entry.group for entry in entries)


def test_new_control_appears_by_itself_in_the_scheme_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "odd", needs_other_scheme)
    monkeypatch.setitem(ACTION_SCHEMES, "other", OtherScheme)
    found = labelled(control_entries(DEFAULT_ENV, {"budget": BUDGET}))
    assert found["odd"].env_kwargs == {"action": "other"}
    assert found["uniform"].env_kwargs == {}
    assert run_episode(config(found["odd"]))["env_kwargs"]["action"] == "other"
    assert "odd" not in labelled(control_entries(DEFAULT_ENV, {"budget": BUDGET, "action": "exponents"}))
    assert "odd" in labelled(control_entries(DEFAULT_ENV, {"budget": BUDGET, "action": "other"}))


def test_scheme_is_chosen_for_a_sampler_that_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "odd", needs_other_scheme)
    assert fitting_kwargs("odd", DEFAULT_ENV, {"budget": BUDGET}) is None
    monkeypatch.setitem(ACTION_SCHEMES, "other", OtherScheme)
    given = {"budget": BUDGET}
    assert fitting_kwargs("odd", DEFAULT_ENV, given) == {"budget": BUDGET, "action": "other"}
    assert fitting_kwargs("paper", DEFAULT_ENV, given) == given == {"budget": BUDGET}
    assert fitting_kwargs("odd", DEFAULT_ENV, {"action": "exponents"}) is None
    assert fitting_kwargs("papr", DEFAULT_ENV, given) is None
