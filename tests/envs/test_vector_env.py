"""`SSDKDVectorEnv` gives what single environments give, whatever does the work."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import DictInfoToList, NormalizeObservation, RecordEpisodeStatistics

from ssdkd_env import processes
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv, sub_environments, tuning
from ssdkd_env.envs.members import LocalMembers, Members, RemoteMembers
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Executor, WorkerDied
from ssdkd_env.processes import ProcessWorker
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, FloatArray, actions_of, assert_same, make
from tests.parents import outliving

ID = "SSDKD/Digits-v2"
MODES = list(AutoresetMode)
#: The environment that `play` begins one step later than the others, so that episodes do not end together.
LATE = 1
#: One step through the end of the first episodes and two into the second.
STEPS = ROUNDS + 4


class Results(NamedTuple):
    """What a reset (with rewards 0 and no ends) or a step of a vector environment returned."""

    observations: FloatArray
    rewards: Any
    terminations: Any
    truncations: Any
    infos: dict[str, Any]


class Shown(NamedTuple):
    """One environment's part of it. `final` is the last observation and info of an episode that ended and was reset."""

    observation: FloatArray
    reward: float
    terminated: bool
    info: dict[str, Any]
    final: tuple[FloatArray, dict[str, Any]] | None = None


def make_vec(num_envs: int = 2, **arguments: Any) -> SSDKDVectorEnv:
    """Small environments, of digits and one by one if nothing else is asked for."""
    arguments = {"vectorization": "loop", "budget": BUDGET, "probe": SMALL_PROBE} | arguments
    envs = gym.make_vec(f"ssdkd_env:{ID}", num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments)
    assert isinstance(envs, SSDKDVectorEnv)
    return envs


def step_actions(index: int, count: int) -> FloatArray:
    """Actions of one step, (count, 5); those of environment i are the same for every count."""
    return actions_of(100 + index, count=8)[:count]


def reset(envs: VectorEnv[Any, Any, Any], seed: Any = None, only: Sequence[int] | None = None) -> Results:
    """Reset all environments, or only some."""
    options = None if only is None else {"reset_mask": np.isin(np.arange(envs.num_envs), only)}
    observations, infos = envs.reset(seed=seed, options=options)
    none = np.zeros(envs.num_envs, dtype=np.bool_)
    return Results(observations, np.zeros(envs.num_envs), none, none, infos)


def step(envs: VectorEnv[Any, Any, Any], index: int) -> Results:
    return Results(*envs.step(step_actions(index, envs.num_envs)))


def play(envs: VectorEnv[Any, Any, Any], mode: AutoresetMode) -> list[Results]:
    """Two episodes of each environment, with the resets that the mode leaves to the user."""
    shown = [reset(envs, 11)]
    for index in range(STEPS):
        if index == 1 and envs.num_envs > LATE:
            shown.append(reset(envs, [33] * envs.num_envs, only=[LATE]))
        if mode == AutoresetMode.DISABLED and shown[-1].terminations.any():
            shown.append(reset(envs, only=np.flatnonzero(shown[-1].terminations).tolist()))
        shown.append(step(envs, index))
    return shown


def play_alone(number: int, mode: AutoresetMode, arguments: dict[str, Any]) -> list[Shown]:
    """What environment `number` of those in `play` has to show."""
    env = make(**arguments)

    def begin(seed: int | None = None) -> Shown:
        observation, info = env.reset(seed=seed)
        return Shown(observation, 0.0, False, info)

    shown = [begin(11 + number)]
    for index in range(STEPS):
        ended = shown[-1].terminated and mode != AutoresetMode.SAME_STEP
        if index == 1 and number == LATE:
            shown.append(begin(33))
        if ended:
            shown.append(begin())
        if ended and mode == AutoresetMode.NEXT_STEP:
            continue
        observation, reward, terminated, _, info = env.step(step_actions(index, 8)[number])
        if terminated and mode == AutoresetMode.SAME_STEP:
            fresh = begin()
            shown.append(Shown(fresh.observation, reward, True, fresh.info, (observation, info)))
        else:
            shown.append(Shown(observation, reward, terminated, info))
    return shown


def info_of(infos: dict[str, Any], number: int) -> dict[str, Any]:
    """The info of one environment: what the masks say that it has."""
    return {
        key: info_of(value, number) if isinstance(value, dict) else value[number]
        for key, value in infos.items()
        if not key.startswith("_") and infos[f"_{key}"][number]
    }


def part_of(results: Results, number: int) -> Shown:
    """What one environment shows in the results of all."""
    info = info_of(results.infos, number)
    final = (info.pop("final_obs"), info.pop("final_info")) if "final_obs" in info else None
    assert not results.truncations[number]
    return Shown(results.observations[number], results.rewards[number], bool(results.terminations[number]), info, final)


def assert_shows(results: list[Results], number: int, expected: list[Shown], tolerance: float = 0.0) -> None:
    """Environment `number` shows what is expected, to the last bit if no tolerance is given."""

    def assert_near(observation: FloatArray, info: dict[str, Any], wanted: tuple[FloatArray, dict[str, Any]]) -> None:
        # Observations are float32, in which the smallest difference shows as 6e-8.
        np.testing.assert_allclose(observation, wanted[0], rtol=0, atol=1e-6 if tolerance else 0)
        assert observation.dtype == np.float32
        assert info.keys() == wanted[1].keys()
        for key, value in wanted[1].items():
            assert info[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key

    before = None
    shown = []
    for each in results:
        if each.infos["_round"][number]:
            shown.append(part_of(each, number))
        else:  # only others were reset
            assert info_of(each.infos, number) == {}
            assert before is not None
            np.testing.assert_array_equal(each.observations[number], before)
        before = each.observations[number]
    assert len(shown) == len(expected)
    for one, other in zip(shown, expected, strict=True):
        assert_near(one.observation, one.info, (other.observation, other.info))
        assert one.reward == pytest.approx(other.reward, rel=tolerance, abs=tolerance)
        assert one.terminated == other.terminated
        assert (one.final is None) == (other.final is None)
        if one.final is not None and other.final is not None:
            assert_near(*one.final, other.final)


@pytest.fixture(scope="module")
def arguments(tiny_teacher: str) -> dict[str, Any]:
    """A task that costs worker processes little."""
    return {"task": "tests.envs.own_networks:TINY", "teacher": tiny_teacher, "budget": BUDGET, "probe": SMALL_PROBE}


@pytest.fixture(scope="module")
def three_in_two_processes(arguments: dict[str, Any]) -> Iterator[SSDKDVectorEnv]:
    """Starting processes takes seconds; what the tests do to these environments, a reset undoes."""
    envs = make_vec(3, vectorization="process", processes=2, **arguments)
    yield envs
    envs.close()


MakeVec = Callable[[AutoresetMode], SSDKDVectorEnv]


@pytest.fixture(params=["loop", "process"])
def make_three(request: pytest.FixtureRequest, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> MakeVec:
    """Makes three environments with an autoreset mode."""
    if request.param == "loop":
        return lambda mode: make_vec(3, autoreset_mode=mode, **arguments)
    envs: SSDKDVectorEnv = request.getfixturevalue("three_in_two_processes")

    def with_mode(mode: AutoresetMode) -> SSDKDVectorEnv:
        monkeypatch.setattr(envs, "autoreset_mode", mode)
        return envs

    return with_mode


# --- the same as single environments, and as Gymnasium's ---


class Reference(NamedTuple):
    """What must come out: of each environment alone, and of Gymnasium's own vector environment."""

    alone: list[list[Shown]]
    together: list[Results]


@pytest.fixture(scope="module")
def references(arguments: dict[str, Any]) -> dict[AutoresetMode, Reference]:
    return {
        mode: Reference(
            alone=[play_alone(number, mode, arguments) for number in range(3)],
            together=play(SyncVectorEnv([lambda: make(**arguments)] * 3, autoreset_mode=mode), mode),
        )
        for mode in MODES
    }


@pytest.mark.parametrize("mode", MODES)
def test_each_environment_gives_what_it_gives_alone_in_gymnasiums_form(
    mode: AutoresetMode, make_three: MakeVec, references: dict[AutoresetMode, Reference]
) -> None:
    """To the last bit, with the same keys, types and masks of the infos."""
    results = play(make_three(mode), mode)
    for number in range(3):
        assert_shows(results, number, references[mode].alone[number])
    assert_same(results, references[mode].together)


@pytest.fixture
def double(empty_caches: None, float64: None) -> None:
    """Every network, the teacher too, in float64."""


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_group_gives_what_its_members_give_alone(mode: AutoresetMode, double: None, arguments: dict[str, Any]) -> None:
    """In float64, in which rounding does not grow to something that can be seen."""
    settings = arguments | {"reward": "probe_discrepancy"}
    expected = [play_alone(number, mode, settings) for number in range(5)]
    for count in (1, 2, 5):
        results = play(make_vec(count, vectorization="grouped", autoreset_mode=mode, **settings), mode)
        for number in range(count):
            assert_shows(results, number, expected[number], tolerance=1e-9)


def test_group_of_digits_gives_what_its_members_give_alone(double: None) -> None:
    mode = AutoresetMode.SAME_STEP
    results = play(make_vec(2, vectorization="grouped", autoreset_mode=mode), mode)
    for number in range(2):
        assert_shows(results, number, play_alone(number, mode, {}), tolerance=1e-9)


def test_group_of_one_is_bit_identical_in_float32(references: dict[AutoresetMode, Reference], arguments: Any) -> None:
    mode = AutoresetMode.NEXT_STEP
    results = play(make_vec(1, vectorization="grouped", **arguments), mode)
    assert_shows(results, 0, references[mode].alone[0])


def test_group_in_float32_gives_sound_numbers_and_the_same_ones_again() -> None:
    mode = AutoresetMode.SAME_STEP
    envs = make_vec(3, vectorization="grouped", autoreset_mode=mode)
    results = play(envs, mode)
    for each in results:
        assert each.observations in envs.observation_space
        assert np.isfinite(each.rewards).all()
        assert not each.infos["diverged"].any()
        assert all(np.isfinite(each.infos["final_info"][key]).all() for key in each.infos.get("final_info", ()))
    assert_same(play(envs, mode), results)


def test_group_does_equal_work_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = GroupedRuns.play

    def play(self: GroupedRuns, calls: Sequence[Any]) -> Any:
        seen.append(len(calls))
        return original(self, calls)

    monkeypatch.setattr(GroupedRuns, "play", play)
    envs = make_vec(3, vectorization="grouped")
    reset(envs, 0)
    step(envs, 0)
    reset(envs, only=[0, 2])
    assert seen == [3, 3, 2]


@pytest.mark.parametrize(
    ("count", "processes", "sizes"), [(3, 2, [2, 1]), (5, 3, [2, 2, 1]), (4, 4, [1, 1, 1, 1])], ids=str
)
@pytest.mark.parametrize("backend", ["process", "grouped"])
def test_members_are_divided_among_processes_evenly(
    backend: str, count: int, processes: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, bool]] = []

    def part(kwargs: dict[str, Any], size: int, grouped: bool, executor: Executor) -> Members:
        assert executor.count == processes
        made.append((size, grouped))
        return LocalMembers(kwargs, size, grouped)

    monkeypatch.setattr(sub_environments, "RemoteMembers", part)
    envs = make_vec(count, vectorization=backend, processes=processes)
    assert made == [(size, backend == "grouped") for size in sizes]
    envs.set_attr("number", list(range(count)))
    assert envs.get_attr("number") == tuple(range(count))


# --- seeds and masks ---


def test_seeds_are_a_number_or_one_each_or_none(make_three: MakeVec) -> None:
    envs = make_three(AutoresetMode.NEXT_STEP)
    first = reset(envs, 5)
    goes_on = reset(envs)
    assert_same(reset(envs, [5, 6, 7]), first)
    assert_same(reset(envs, None), goes_on)
    assert not (goes_on.observations == first.observations).all(axis=1).any()
    mixed = reset(envs, [6, None, 5])
    assert_same(mixed.observations[0], first.observations[1])
    assert_same(mixed.observations[2], reset(envs, (5, 5, 5)).observations[2])
    assert not np.array_equal(mixed.observations[1], first.observations[1])


@pytest.mark.parametrize("seed", [[1], [1, 2, 3], (), "one"], ids=repr)
def test_other_number_of_seeds_is_refused(seed: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"seed=.*: expected 2 values, one for each environment"):
        make_vec().reset(seed=seed)


def test_environments_can_be_reset_one_after_the_other() -> None:
    envs, options = make_vec(), {"reset_mask": np.array([True, False])}
    observations, infos = envs.reset(seed=[5, 5], options=options)
    assert options["reset_mask"].tolist() == [True, False], "left as it was, for the next call"
    assert infos["_round"].tolist() == [True, False]
    assert not observations[1].any()
    with pytest.raises(gym.error.ResetNeeded, match="Cannot call step"):
        envs.step(step_actions(0, 2))
    together, _ = envs.reset(seed=[5, 5], options={"reset_mask": [False, True]})
    np.testing.assert_array_equal(together[0], together[1])
    np.testing.assert_array_equal(together[0], observations[0])
    envs.step(step_actions(0, 2))


@pytest.mark.parametrize(
    "mask", [np.zeros(2, np.bool_), np.ones(3, np.bool_), np.ones((2, 1), np.bool_), [1, 0], True, "all"], ids=repr
)
def test_mask_of_another_form_is_refused(mask: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"options\['reset_mask'\].*: expected 2 booleans") as caught:
        make_vec().reset(options={"reset_mask": mask})
    assert "\n" not in str(caught.value)


def test_results_are_not_overwritten_by_later_ones() -> None:
    envs = make_vec()
    first = reset(envs, 1)
    kept = first.observations.copy()
    second = step(envs, 0)
    np.testing.assert_array_equal(first.observations, kept)
    for index in range(1, ROUNDS):
        second = step(envs, index)
    kept = second.observations.copy()
    reset(envs, 1)
    step(envs, 1)
    np.testing.assert_array_equal(second.observations, kept)
    assert second.terminations.all()
    assert second.infos["round"].tolist() == [ROUNDS, ROUNDS]


def test_writing_into_results_changes_nothing() -> None:
    envs = make_vec()
    reset(envs, 1)
    for index in range(ROUNDS):
        results = step(envs, index)
    results.observations[:], results.terminations[:] = 0.0, False
    assert step(envs, ROUNDS).infos["round"].tolist() == [0, 0], "the episodes had ended"
    last = step(envs, ROUNDS)
    last.observations[:] = 0.0
    again = reset(envs, 5, only=[0])
    assert again.observations[1].any()


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"vectorization": "threads"}, "vectorization='threads' is unknown; choose one of: auto, by_size, grouped,"),
        ({"autoreset_mode": "Never"}, "autoreset_mode='Never' is unknown; choose one of: 'NextStep', 'SameStep', 'Dis"),
        ({"num_envs": 0}, "num_envs=0: expected a whole number of at least 1"),
        ({"num_envs": 1.5}, "num_envs=1.5: expected a whole number of at least 1"),
        ({"num_envs": "two"}, "num_envs='two': expected a whole number of at least 1"),
        ({"processes": 0}, "processes=0: expected a whole number from 1 to num_envs=2"),
        ({"processes": 3}, "processes=3: expected a whole number from 1 to num_envs=2"),
        ({"processes": 1.5}, "processes=1.5: expected a whole number from 1 to num_envs=2"),
        ({"task": "no-such-task"}, "task='no-such-task' is unknown"),
    ],
    ids=str,
)
def test_unusable_argument_is_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_vec(**arguments)
    assert match in str(caught.value)


BAD_ACTIONS = {
    "too few": np.zeros((2, 5)),
    "too many": np.zeros((4, 5)),
    "one for all": np.zeros(5),
    "none": None,
    "a number": 0.5,
    "an array of no dimension": np.array(0.5),
    "too short": np.zeros((3, 4)),
    "not finite in the last": np.array([[0.0] * 5, [0.0] * 5, [np.nan] * 5]),
    "words": "abc",
}


@pytest.mark.parametrize("actions", BAD_ACTIONS.values(), ids=BAD_ACTIONS)
def test_unusable_action_is_refused_before_any_environment_has_moved(actions: Any, make_three: MakeVec) -> None:
    envs = make_three(AutoresetMode.NEXT_STEP)
    reset(envs, 11)
    expected = step(envs, 0)
    reset(envs, 11)
    with pytest.raises(InvalidInputError, match="expected") as caught:
        envs.step(actions)
    assert "\n" not in str(caught.value)
    assert_same(step(envs, 0), expected)


def test_action_of_an_environment_that_is_reset_is_ignored() -> None:
    envs = make_vec(1)
    reset(envs, 1)
    for index in range(ROUNDS):
        step(envs, index)
    _, rewards, terminations, _, infos = envs.step(np.full((1, 5), np.nan, dtype=np.float32))
    assert (rewards[0], terminations[0], infos["round"][0]) == (0.0, False, 0)


def test_step_needs_a_reset(make_three: MakeVec) -> None:
    with pytest.raises(gym.error.ResetNeeded, match="Cannot call step"):
        make_vec().step(step_actions(0, 2))
    envs = make_three(AutoresetMode.DISABLED)
    reset(envs, 3)
    step(envs, 0)
    reset(envs, only=[0, 2])
    step(envs, 1)
    assert step(envs, 2).terminations.tolist() == [False, True, False]
    with pytest.raises(gym.error.ResetNeeded, match=r"environments \[1\] have ended; reset them with reset_mask"):
        step(envs, 3)
    reset(envs, only=[1])
    assert step(envs, 3).terminations.tolist() == [True, False, True]


# --- processes ---


def test_error_in_a_process_is_raised_here_and_the_others_go_on(three_in_two_processes: SSDKDVectorEnv) -> None:
    envs = three_in_two_processes
    expected = reset(envs, 11)
    with pytest.raises(InvalidInputError, match="no_such_folder") as caught:
        envs.call("load", "no_such_folder/episode.safetensors")
    assert "in load_state" in str(caught.value.__cause__), "the other process's traceback"
    with pytest.raises(AttributeError, match="no_such_attribute"):
        envs.get_attr("no_such_attribute")
    assert_same(reset(envs, 11), expected)


def test_what_cannot_be_sent_between_processes_is_an_error_that_leaves_them_well(
    three_in_two_processes: SSDKDVectorEnv,
) -> None:
    envs = three_in_two_processes
    expected = reset(envs, 11)
    with pytest.raises((TypeError, AttributeError)):  # a run has random streams
        envs.get_attr("run")
    with pytest.raises(Exception, match="lambda"):
        envs.set_attr("note", ["sent", lambda: "not sent", "sent"])
    assert [budget.rounds for budget in envs.get_attr("budget")] == [ROUNDS] * 3
    assert_same(reset(envs, 11), expected)


@pytest.mark.parametrize("interrupted", [0, 1])
def test_interrupted_step_leaves_no_answer_behind(
    interrupted: int, three_in_two_processes: SSDKDVectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the answers of a step are taken; the next reset must not take them for its own."""
    envs = three_in_two_processes
    expected = [reset(envs, 11), step(envs, 0)]

    def end() -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(envs._environments._parts[interrupted], "end", end)
        with pytest.raises(KeyboardInterrupt):
            step(envs, 1)
    assert_same([reset(envs, 11), step(envs, 0)], expected)


def processes_of(envs: SSDKDVectorEnv) -> list[Any]:
    workers = [part._worker for part in envs._environments._parts if isinstance(part, RemoteMembers)]
    return [worker._process for worker in workers if isinstance(worker, ProcessWorker)]


@pytest.mark.parametrize("when", ["idle", "computing"])
def test_death_of_a_process_is_reported_and_the_rest_can_be_closed(
    when: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 60.0)
    longer = {"budget": BUDGET | {"inversion_steps": 10**8}} if when == "computing" else {}
    envs = make_vec(2, vectorization="process", processes=2, **arguments | longer)
    first, second = processes_of(envs)
    assert {first, second} <= set(multiprocessing.active_children())
    assert envs.get_attr("clock") == (False, False)
    assert first.pid
    if when == "idle":
        os.kill(first.pid, signal.SIGKILL)
    else:
        threading.Timer(1.0, os.kill, (first.pid, signal.SIGKILL)).start()
    for _ in range(2):
        with pytest.raises(WorkerDied) as caught:
            envs.reset(seed=0, options={"reset_mask": np.array([True, False])})
        assert str(caught.value) == (
            f"process {first.pid} of one environment has died (exit code -9: Killed). Was there enough memory? Go on "
            "from what was saved (commands: --resume), or use fewer environments or vectorization='loop'"
        )
    assert envs._environments.get([1], "clock") == [False]
    envs.close()
    assert not first.is_alive() and not second.is_alive()
    assert second.exitcode == 0, "it ended by itself"
    envs.close()
    envs._environments.close()
    with pytest.raises(gym.error.ClosedEnvironmentError, match="have been closed; make them again"):
        envs.reset()


@pytest.mark.parametrize("doing", ["envs.close", "envs.reset(seed=0)"], ids=["idle", "computing"])
def test_processes_end_soon_after_their_parent_was_killed(doing: str, arguments: dict[str, Any]) -> None:
    longer = {"budget": BUDGET | {"inversion_steps": 10**8}}
    code = (
        "import time; from ssdkd_env.envs import SSDKDVectorEnv\n"
        f"envs = SSDKDVectorEnv(2, vectorization='process', processes=2, **{arguments | longer})\n"
        f"envs.get_attr('clock'); print('there', flush=True); {doing}; time.sleep(600)"
    )
    assert outliving(code, processes=2, computing_for=1.0) == []


def test_processes_leave_ctrl_c_to_their_parent(
    three_in_two_processes: SSDKDVectorEnv,
) -> None:
    envs = three_in_two_processes
    expected = reset(envs, 11)
    for process in processes_of(envs):
        assert process.daemon
        assert process.pid
        os.kill(process.pid, signal.SIGINT)
    assert_same(reset(envs, 11), expected)


# --- how it is done, and what else it offers ---


@pytest.mark.parametrize(
    ("arguments", "cores", "expected"),
    [
        ({"vectorization": "loop"}, 4, "loop: as asked for"),
        ({"vectorization": "grouped"}, 4, "grouped: as asked for"),
        ({"vectorization": "process"}, 4, "process in 3 processes: as asked for"),
        ({"vectorization": "process"}, 2, "process in 2 processes: as asked for"),
        ({"vectorization": "grouped", "processes": 2}, 4, "grouped in 2 processes: as asked for"),
        ({"vectorization": "auto"}, 1, "grouped: 3 short rounds took 0.900 s one by one, 0.300 s grouped"),
        ({"vectorization": "auto", "processes": 2}, 9, "grouped in 2 processes: 2 short rounds took 0.900 s one by "
         "one, 0.300 s grouped"),
        ({"vectorization": "auto"}, 3, "process in 3 processes: a group needs two environments in a process"),
        ({}, 3, "process in 3 processes: a group needs two environments in a process"),
        ({}, 2, "grouped in 2 processes: images of 8×8 leave a core idle one by one"),
        ({}, 1, "grouped: images of 8×8 leave a core idle one by one"),
        ({"vectorization": "by_size", "processes": 1}, 9, "grouped: images of 8×8 leave a core idle one by one"),
    ],
    ids=str,
)  # fmt: skip
def test_choice_says_what_does_the_work_and_why(
    arguments: dict[str, Any], cores: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sub_environments, "usable_cores", lambda: cores)
    monkeypatch.setattr(sub_environments, "RemoteMembers", lambda *arguments: LocalMembers(*arguments[:3]))
    monkeypatch.setattr(tuning, "_race", lambda env, count: (count, 0.9, 0.3))
    envs = gym.make_vec(f"ssdkd_env:{ID}", num_envs=3, budget=BUDGET, probe=SMALL_PROBE, **arguments)
    assert isinstance(envs, SSDKDVectorEnv)
    assert str(envs.choice) == expected


@pytest.mark.parametrize(
    ("size", "cores", "expected"),
    [
        (12, 2, "grouped in 2 processes: images of 12×12 leave a core idle one by one"),
        (13, 2, "process in 2 processes: images of 13×12 fill a core one by one"),
        (13, 1, "loop: images of 13×12 fill a core one by one"),
    ],
)
def test_the_size_of_the_images_alone_decides_and_no_clock(size: int, cores: int, expected: str) -> None:
    env = make()
    env.task = copy.copy(env.task)
    env.task.spec = replace(env.task.spec, image_shape=(1, size, 12))
    assert str(tuning.choose_by_size(env, 4, cores, None)) == expected
    env.device = torch.device("cuda")
    assert str(tuning.choose_by_size(env, 4, cores, None)).startswith("grouped: ")


def test_it_is_the_vector_entry_point_of_every_id() -> None:
    ids = [name for name in gym.registry if name.startswith("SSDKD/")]
    assert {gym.registry[name].vector_entry_point for name in ids} == {"ssdkd_env.envs.vector:SSDKDVectorEnv"}
    envs = make_vec(2)
    assert envs.spec is not None
    assert envs.spec.id == ID
    assert repr(envs) == f"SSDKDVectorEnv({ID}, num_envs=2)"


@pytest.mark.parametrize("mode", MODES)
def test_spaces_and_metadata_describe_it(mode: AutoresetMode) -> None:
    envs = make_vec(3, autoreset_mode=mode.value)
    env = make()
    assert envs.metadata == SSDKDEnv.metadata | {"autoreset_mode": mode}
    assert "autoreset_mode" not in SSDKDEnv.metadata
    assert (envs.num_envs, envs.render_mode) == (3, None)
    assert envs.observation_names == env.observation_names
    assert envs.action_names == env.action_names
    assert envs.observation_space == batch_space(env.observation_space, 3)
    assert envs.action_space == batch_space(env.action_space, 3)
    assert reset(envs, 1).observations in envs.observation_space


def test_infos_are_plain_arrays(arguments: dict[str, Any]) -> None:
    envs = make_vec(clock=True, autoreset_mode="SameStep", **arguments)

    def assert_plain(infos: dict[str, Any]) -> None:
        for key, value in infos.items():
            if isinstance(value, dict):
                assert_plain(value)
            else:
                assert isinstance(value, np.ndarray)
                assert value.shape == (2,)
                assert value.dtype.kind in ("b" if key.startswith("_") else "bif") or key == "final_obs"
            assert key.startswith("_") or infos[f"_{key}"].dtype == np.bool_

    results = play(envs, AutoresetMode.SAME_STEP)
    for each in results:
        assert_plain(each.infos)
    assert {"synthesis", "distillation"} <= results[1].infos["seconds"].keys()
    assert any("final_info" in each.infos for each in results)


def test_rendering_gives_a_picture_of_every_run(arguments: dict[str, Any]) -> None:
    envs = make_vec(render_mode="rgb_array", **arguments)
    assert envs.render_mode == "rgb_array"
    reset(envs, 1)
    step(envs, 0)
    pictures = envs.render()
    assert pictures is not None
    assert len(pictures) == 2
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in pictures)
    assert not np.array_equal(*pictures)
    assert make_vec().render() is None


def test_methods_and_attributes_of_every_environment_are_reached(make_three: MakeVec) -> None:
    envs = make_three(AutoresetMode.NEXT_STEP)
    reset(envs, 11)
    envs.set_attr("note", ["a", "b", "c"])
    assert envs.get_attr("note") == envs.call("note") == ("a", "b", "c")
    envs.set_attr("note", 7)
    assert envs.get_attr("note") == (7, 7, 7)
    with pytest.raises(InvalidInputError, match="expected 3 values"):
        envs.set_attr("note", [1, 2])
    assert [len(curve) for curve in envs.call("curve")] == [1, 1, 1], "an attribute that a reset gives"
    np.testing.assert_array_equal(envs.call("paper_action"), [make().paper_action] * 3)
    pictures = envs.call("buffer_picture")
    assert len(pictures) == 3
    assert not np.array_equal(pictures[0], pictures[1])


def test_calls_take_arguments(make_three: MakeVec, tmp_path: Any) -> None:
    envs = make_three(AutoresetMode.NEXT_STEP)
    reset(envs, 11)
    saved = step(envs, 0)
    envs.set_attr("where", [str(tmp_path / f"{number}.safetensors") for number in range(3)])
    envs._environments.call([1], "save", path=str(tmp_path / "1.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["1.safetensors"]
    step(envs, 1)
    loaded = envs.call("load", tmp_path / "1.safetensors")
    for observation, info in loaded:
        np.testing.assert_array_equal(observation, saved.observations[1])
        assert info == info_of(saved.infos, 1)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_gymnasiums_statistics_of_episodes_are_right(mode: AutoresetMode, arguments: dict[str, Any]) -> None:
    envs = RecordEpisodeStatistics(make_vec(3, autoreset_mode=mode, **arguments))
    results = play(envs, mode)
    ends = 0
    for number in range(3):
        rewards: list[float] = []
        for each in results:
            rewards = [] if each.infos["round"][number] == 0 and not each.terminations[number] else rewards
            rewards.append(each.rewards[number])
            if each.terminations[number]:
                ends += 1
                assert each.infos["episode"]["l"][number] == ROUNDS
                assert each.infos["episode"]["r"][number] == pytest.approx(sum(rewards), abs=1e-12)
                rewards = []
    assert ends == (6 if mode == AutoresetMode.SAME_STEP else 5)
    assert envs.episode_count == ends


def test_gymnasiums_wrappers_work_on_it(arguments: dict[str, Any]) -> None:
    both = [make_vec(3, **arguments), SyncVectorEnv([lambda: make(**arguments)] * 3)]
    mine, theirs = (
        [reset(envs, 11), *(step(envs, index) for index in range(STEPS))]
        for envs in (NormalizeObservation(each) for each in both)
    )
    assert_same(mine, theirs)
    assert max(np.abs(each.observations).max() for each in mine) > 1
    listed = DictInfoToList(make_vec(3, **arguments))
    _, infos = listed.reset(seed=11)
    assert infos[2] == make(**arguments).reset(seed=13)[1]


def test_pool_counts_the_cores_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= sub_environments.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert sub_environments.usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert sub_environments.usable_cores() == 1


def test_pool_steps_some_of_its_members() -> None:
    some = SubEnvironments(3, {"budget": BUDGET, "probe": SMALL_PROBE}, "loop", None)
    assert set(some.reset({2: 5, 0: 5})) == {0, 2}
    assert set(some.step({2: step_actions(0, 1)[0]})) == {2}
    assert [len(curve) for curve in some.get([2, 0], "curve")] == [2, 1]
    assert some.has([0, 2], "curve")
    assert not some.has([0, 1], "curve")
