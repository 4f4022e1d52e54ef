"""Names: ours, registered ones, import paths that the user has typed, and those that come out of a file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.environments import make_env
from ssdkd_agents.policies.storage import load_sampler
from ssdkd_agents.samplers import SAMPLERS, ConstantSampler

from ssdkd_env import registry
from ssdkd_env.distillation import METHODS
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.actions import ACTION_SCHEMES
from ssdkd_env.envs.exponent_actions import Exponents
from ssdkd_env.envs.observations import ENTRIES, OBSERVATIONS, Entry, Observation
from ssdkd_env.envs.rewards import REWARDS, Reward
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks import NETWORKS
from ssdkd_env.registry import Registry, is_import_path, refuse_imports, resolve_import_path, trust, trusted
from ssdkd_env.tasks import INSTANCE_SETS, TASKS
from tests.envs.episodes import actions_of, episode, make

PLUGIN = """
from dataclasses import replace
from ssdkd_env.distillation import METHODS
from ssdkd_env.envs.rewards import REWARDS, Reward

half = Reward(lambda snapshot: snapshot.probe.agreement / 2)
method = replace(METHODS["ssdkd"], name="mine", gamma=2.0)
REWARDS.register("half", half)
number = 7
"""
REGISTRIES: dict[str, Any] = {
    "network": NETWORKS,
    "task": TASKS,
    "instances": INSTANCE_SETS,
    "method": METHODS,
    "action": ACTION_SCHEMES,
    "observation": OBSERVATIONS,
    "reward": REWARDS,
    "sampler": SAMPLERS,
}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What a test registers or names is forgotten after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_trusted", set())
        for each in REGISTRIES.values():
            patch.setattr(each, "_entries", dict(each))
        yield


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a module that nobody has imported yet."""
    (tmp_path / "users_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_plugin"
    sys.modules.pop("users_plugin", None)


# --- registries ---


@pytest.mark.parametrize("name", REGISTRIES)
def test_unknown_names_get_the_choices(name: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"{name}='no_such' is unknown; choose one of: .*import path"):
        REGISTRIES[name].find("no_such")


@pytest.mark.parametrize("name", REGISTRIES)
def test_an_entry_is_found_by_its_registered_name_and_ours_are_not_replaced(name: str) -> None:
    known = REGISTRIES[name]
    ours = next(iter(known))
    entry = known.register("users_own", known[ours])
    assert known.find("users_own") is entry is known["users_own"]
    assert known.register("users_own", known[ours]) is entry, "a notebook's cell may run twice"
    with pytest.raises(InvalidInputError, match="is one of ours"):
        known.register(ours, entry)


@pytest.mark.parametrize("name", ["", "two words", "a:b", "a/b", 3])
def test_odd_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected a name of letters"):
        REWARDS.register(name, Reward(lambda snapshot: 0.0))


def test_other_kinds_are_refused() -> None:
    wrong: Any = lambda snapshot: 0.0  # noqa: E731
    with pytest.raises(InvalidInputError, match=r"reward='mine' is a function, expected an instance of Reward"):
        REWARDS.register("mine", wrong)
    with pytest.raises(InvalidInputError, match="action='mine' is a int, expected something to call"):
        ACTION_SCHEMES.register("mine", 3)  # type: ignore[arg-type]


def test_import_paths_are_found_and_checked(plugin: str) -> None:
    known: Registry[Reward] = Registry("reward", Reward, {})
    assert known.find(f"{plugin}:half").score is not None
    with pytest.raises(InvalidInputError, match="is a int, expected"):
        known.find(f"{plugin}:number")
    with pytest.raises(InvalidInputError, match="could not be imported"):
        known.find(f"{plugin}:nothing")
    with pytest.raises(InvalidInputError, match="could not be imported"):
        known.find("no_such_module:thing")


def test_what_is_wrong_with_an_imported_part_itself_is_said_and_not_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        "from dataclasses import replace",
        "from ssdkd_env.tasks.digits import DIGITS",
        "TASK = replace(DIGITS, std=(0.0,))",
    )
    (tmp_path / "users_task.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    known: Registry[Reward] = Registry("task", Reward, {})
    with pytest.raises(InvalidInputError) as caught:
        known.find("users_task:TASK")
    assert re.fullmatch(r"task='users_task:TASK': task 'digits': std=\(0\.0,\): expected [^;]*", str(caught.value))


# --- what is registered serves ---


def test_a_users_own_parts_play_an_episode() -> None:
    scheme = ACTION_SCHEMES.register("ours_again", lambda budget, method, classes: Exponents(budget))
    assert scheme is ACTION_SCHEMES["ours_again"]
    loss = Entry(0.0, 100.0, 1.0, 1.0, lambda at: at.now.report.student_loss)
    short = Observation({"progress": ENTRIES["progress"], "student_loss": loss}, scaled=False)
    OBSERVATIONS.register("short", short)
    REWARDS.register("half", Reward(lambda snapshot: snapshot.probe.agreement / 2))
    SAMPLERS.register("zeros", lambda env, seed: ConstantSampler(np.zeros(5, dtype=np.float32)))
    own = make(action="ours_again", observation="short", reward="half")
    assert own.observation_names[:2] == ("progress", "student_loss")
    moments = episode(own, 3, actions_of(4))
    expected = episode(make(), 3, actions_of(4))
    assert sum(m.reward for m in moments) == pytest.approx(sum(m.reward for m in expected) / 2)
    assert moments[-1].observation[0] == 1.0
    assert moments[-1].observation[1] == pytest.approx(moments[-1].info["student_loss"], rel=1e-6)
    action, _ = load_sampler("zeros", own).predict(moments[-1].observation)
    assert (action == 0).all()


def test_a_users_own_parts_are_found_by_import_paths(plugin: str) -> None:
    env = SSDKDEnv(method=f"{plugin}:method", reward=f"{plugin}:half")
    assert (env.method.name, env.method.gamma) == ("mine", 2.0)


# --- names out of files ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pkg.module:thing", True),
        ("os:system", True),
        ("hub:owner/name", False),
        ("constant:[0, 1]", False),
        ("C:\\data", False),
        ("digits", False),
        ("a b:c", False),
    ],
)
def test_what_an_import_path_is(text: str, expected: bool) -> None:
    assert is_import_path(text) is expected


@pytest.mark.parametrize("content", ["os:system", ["a", {"b": "os:system"}], {"x": [("os:system",)]}], ids=str)
def test_names_out_of_files_import_nothing(content: Any, plugin: str) -> None:
    with pytest.raises(InvalidInputError, match=r"a\.json names 'os:system'.*--plugins os"):
        refuse_imports("a.json", content)
    with pytest.raises(InvalidInputError, match="names out of files import nothing"):
        refuse_imports("a.json", {"method": f"{plugin}:method"})
    assert plugin not in sys.modules


@pytest.mark.parametrize("name", ["os:SSDKD/Digits-v2", "os:Env-v0", "os.path:x/y.z"])
def test_ids_out_of_files_import_no_module_before_them(name: str) -> None:
    with pytest.raises(InvalidInputError, match="names out of files import nothing"):
        refuse_imports("a.json", {"env_id": name})


@pytest.mark.parametrize("name", ["os:", "os:1", "os:path\n", "os:a b", "ös:x", "o-s:x", "os:ñ", ":x", "os"])
def test_what_is_spelt_otherwise_is_imported_by_nothing(name: str) -> None:
    """One spelling for the one that refuses and the one that imports."""
    with pytest.raises(InvalidInputError, match=r"expected 'package.module:attribute'"):
        resolve_import_path("method", name)
    with pytest.raises(InvalidInputError, match="is unknown"):
        METHODS.find(name)


@pytest.mark.parametrize("env_id", ["antigravity:1Env-v0", "antigravity:", "antigravity:Env-v0\n", "antigravity:-x"])
def test_ids_spelt_otherwise_are_not_made(env_id: str) -> None:
    with pytest.raises(InvalidInputError, match="expected 'module:NAMESPACE/Name-v0'"):
        make_env(env_id, {})
    assert "antigravity" not in sys.modules


def test_data_sets_in_any_spelling_are_not_fetched() -> None:
    for name in ("hub:1owner/name", "hub:", "hub:a b", "hub:ñ"):
        with pytest.raises(InvalidInputError, match="fetch nothing"):
            refuse_imports("a.json", {"evaluation": name})


def test_our_own_module_may_stand_before_an_id() -> None:
    refuse_imports("a.json", {"env_id": "ssdkd_env:SSDKD/Digits-v2"})


@pytest.mark.parametrize("text", ["cuda:0", "C:\\data", "constant:[0.5, 1]", "a b:c", "note: text", "x-y:z", "2:3"])
def test_other_text_with_a_colon_is_no_name(text: str) -> None:
    refuse_imports("a.json", {"text": text})


def test_data_sets_out_of_files_are_not_fetched_unless_the_user_names_them() -> None:
    name = "hub:owner/images"
    with pytest.raises(InvalidInputError, match=r"names out of files fetch nothing; .*add --plugins hub:owner/images "):
        refuse_imports("a.json", {"evaluation": name})
    trust([name])  # imports nothing
    refuse_imports("a.json", {"evaluation": name})
    assert trusted() == (name,)
    with pytest.raises(InvalidInputError, match="fetch nothing"):
        refuse_imports("a.json", {"evaluation": "hub:owner/others"})


def test_a_prefix_of_names_is_no_module_and_hides_none() -> None:
    """`random_at_rate:` says how the sampler behind it is used."""
    refuse_imports("a.json", ["random_at_rate:uniform", "random_at_rate:runs/ppo"])
    for name in ("random_at_rate:os:system", "random_at_rate:random_at_rate:os:system"):
        with pytest.raises(InvalidInputError, match="add --plugins os "):
            refuse_imports("a.json", {"sampler": name})


def test_modules_that_the_user_names_are_imported_and_trusted(plugin: str) -> None:
    trust([plugin])
    assert plugin in sys.modules and trusted() == (plugin,)
    assert REWARDS.find("half") is sys.modules[plugin].half
    refuse_imports("a.json", {"method": f"{plugin}:method", "reward": "half", "seed": 3, "budget": None})
    with pytest.raises(InvalidInputError, match="plugins='no_such' could not be imported"):
        trust(["no_such"])


def test_an_import_path_that_the_user_has_typed_may_stand_in_a_file(plugin: str) -> None:
    METHODS.find(f"{plugin}:method")
    refuse_imports("a.json", {"method": f"{plugin}:method"})


def test_a_constant_plan_from_a_stranger_imports_nothing(plugin: str, tmp_path: Path) -> None:
    path = tmp_path / "constant.json"
    plan = {"action": [0.0] * 5, "action_names": [], "env_kwargs": {"method": f"{plugin}:method"}}
    path.write_text(json.dumps(plan))
    with pytest.raises(InvalidInputError, match="names out of files import nothing"):
        load_sampler(str(path), make())
    assert plugin not in sys.modules
