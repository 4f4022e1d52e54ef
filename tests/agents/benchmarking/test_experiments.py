"""Experiments are pure functions: a config in, a line out, the same in every process."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ssdkd_agents.benchmarking.experiments import (
    EpisodeConfig,
    ResumableEpisode,
    forget,
    play,
    run_episode,
    run_episodes,
    validate,
)
from ssdkd_agents.environments import make_env
from ssdkd_agents.lines import read_checked, write_checked
from ssdkd_agents.machine import machine
from ssdkd_agents.runs import versions
from ssdkd_agents.samplers import SAMPLERS, RandomSampler, Sampler, make_sampler
from ssdkd_agents.seeds import HELD_OUT_SEED

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.episode import Episode
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.processes import Processes
from tests.envs.episodes import BUDGET, ROUNDS

CONFIG = EpisodeConfig("SSDKD/Digits-v2", "paper", HELD_OUT_SEED, {"budget": BUDGET})


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what differs between equal episodes: clock values and memory."""
    kept = {key: value for key, value in line.items() if key not in ("seconds", "curve") and "memory" not in key}
    return kept | {"curve": {key: values for key, values in line["curve"].items() if "seconds" not in key}}


# --- one episode ---


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_config_gives_the_same_line(sampler: str) -> None:
    config = replace(CONFIG, sampler=sampler)
    first, second = run_episode(config), run_episode(config)
    assert timeless(first) == timeless(second)
    assert all(value > 0 for value in first["seconds"].values())


def test_line_is_json_and_holds_its_config() -> None:
    line = run_episode(CONFIG)
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert {key: line[key] for key in asdict(CONFIG)} == asdict(CONFIG)
    assert line["versions"] == versions()
    assert line["machine"] == machine(torch.device("cpu"))
    assert set(line) == {
        *asdict(CONFIG), "sampler_digest", "return", "final", "held_out_accuracy", "actions", "curve", "seconds",
        "distributions", "buffer_images", "buffer_bytes", "peak_memory_mib", "peak_device_memory_mib",
        "vectorization", "machine", "precision", "versions",
    }  # fmt: skip


@pytest.mark.parametrize("reward", ["probe_agreement", "probe_discrepancy"])
def test_line_agrees_with_the_episode_played_by_hand(reward: str) -> None:
    kwargs = {"budget": BUDGET, "reward": reward}
    line = run_episode(replace(CONFIG, sampler="random", env_kwargs=kwargs))
    env = SSDKDEnv(**kwargs)  # type: ignore[arg-type]
    sampler = RandomSampler(spaces.Box(-1.0, 1.0, (5,)), CONFIG.seed)
    observation, first = env.reset(seed=CONFIG.seed)
    actions, rewards = [], []
    for _ in range(BUDGET["rounds"]):
        actions.append(sampler.predict(observation)[0].tolist())
        observation, reward_now, _, _, last = env.step(np.array(actions[-1], dtype=np.float32))
        rewards.append(reward_now)
    assert line["actions"] == actions
    assert line["final"] == last
    assert line["return"] == sum(rewards)
    assert line["return"] == pytest.approx(last["score"] - first["score"], abs=1e-12)
    assert any(rewards), "an episode without any reward would show nothing"


def test_curve_is_what_the_environment_said_after_each_round() -> None:
    line = run_episode(CONFIG)
    env = SSDKDEnv(budget=BUDGET)
    infos = [env.reset(seed=CONFIG.seed)[1]]
    infos += [env.step(np.array(action, dtype=np.float32))[4] for action in line["actions"]]
    for name in ("probe_agreement", "accuracy"):
        assert line["curve"][name] == [info[name] for info in infos]
    seconds = line["curve"]["seconds"]
    assert len(seconds) == len(infos)
    assert sorted(set(seconds)) == seconds
    assert seconds[-1] == line["seconds"]["wall"]
    processor = line["curve"]["processor_seconds"]
    assert len(processor) == len(infos)
    assert sorted(set(processor)) == processor
    assert processor[-1] == line["seconds"]["processor"]


def test_seconds_are_the_sums_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up included; the clock values of the environment are replaced by known ones."""
    infos = iter({"synthesis": 2.0**index, "distillation": 3.0**index} for index in range(1 + BUDGET["rounds"]))
    original = SSDKDEnv._info
    monkeypatch.setattr(Episode, "_curve_point", lambda self: {})
    monkeypatch.setattr(SSDKDEnv, "_info", lambda self: original(self) | {"seconds": next(infos)})
    seconds = run_episode(CONFIG)["seconds"]
    assert seconds["synthesis"] == sum(2.0**index for index in range(1 + BUDGET["rounds"]))
    assert seconds["distillation"] == sum(3.0**index for index in range(1 + BUDGET["rounds"]))


def test_parts_take_no_longer_than_all() -> None:
    seconds = run_episode(CONFIG)["seconds"]
    assert 0 < seconds["synthesis"] + seconds["distillation"] <= seconds["wall"]


def test_processor_seconds_are_of_this_process_alone_and_do_not_count_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = SSDKDEnv.step

    def slow(self: SSDKDEnv, action: Any) -> Any:
        time.sleep(1.0)
        return wait(self, action)

    monkeypatch.setattr(SSDKDEnv, "step", slow)
    before = time.process_time()
    seconds = run_episode(CONFIG)["seconds"]
    assert 0 < seconds["processor"] <= time.process_time() - before
    assert seconds["processor"] < BUDGET["rounds"] <= seconds["wall"]


def test_environments_own_clock_changes_nothing() -> None:
    line = run_episode(replace(CONFIG, env_kwargs={"budget": BUDGET, "clock": False}))
    assert "seconds" not in line["final"]
    assert line["final"] == run_episode(CONFIG)["final"]
    assert line["env_kwargs"] == {"budget": BUDGET, "clock": False}


def test_held_out_accuracy_is_that_of_the_last_student() -> None:
    line = run_episode(CONFIG)
    env = SSDKDEnv(budget=BUDGET)
    env.reset(seed=CONFIG.seed)
    for action in line["actions"]:
        env.step(np.array(action, dtype=np.float32))
    assert line["held_out_accuracy"] == env.held_out_accuracy()


def test_distributions_count_everything_synthesised() -> None:
    line = run_episode(CONFIG)
    count = BUDGET["candidates"] * (BUDGET["warmup_rounds"] + BUDGET["rounds"])
    assert line["final"]["synthesized"] == count
    assert {name: (len(values), sum(values)) for name, values in line["distributions"].items()} == {
        "class_counts": (10, count),
        "difficulty": (10, count),
    }
    assert line["buffer_images"] == BUDGET["buffer_capacity"]
    assert line["buffer_bytes"] >= line["buffer_images"] * 64
    assert 50 < line["peak_memory_mib"] < 10_000


def test_action_trace_replays_the_episode() -> None:
    line = run_episode(replace(CONFIG, sampler="random"))
    assert len(line["actions"]) == BUDGET["rounds"] == line["final"]["round"]
    assert {len(action) for action in line["actions"]} == {5}
    env = make_env(line["env_id"], line["env_kwargs"])
    env.reset(seed=line["seed"])
    for action in line["actions"]:
        *_, info = env.step(np.array(action, dtype=np.float32))
    assert info == line["final"]


def test_seeds_and_samplers_give_other_episodes() -> None:
    configs = [CONFIG, replace(CONFIG, seed=CONFIG.seed + 1), replace(CONFIG, sampler="uniform")]
    finals = [json.dumps(run_episode(config)["final"]) for config in configs]
    assert len(set(finals)) == 3


def test_episode_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    run_episode(CONFIG)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]


def test_diverged_episode_is_a_line_too() -> None:
    line = run_episode(replace(CONFIG, env_kwargs={"budget": BUDGET, "student": {"lr": 1e30}}))
    assert line["final"]["diverged"] is True
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert len(line["actions"]) < BUDGET["rounds"] + 1


# --- putting an episode down and picking it up ---


def stop_after(rounds: int) -> Any:
    asked = iter(range(1000))
    return lambda: next(asked) >= rounds


@pytest.mark.parametrize("sampler", ["paper", "random"])
@pytest.mark.parametrize("rounds", range(BUDGET["rounds"]))
def test_stopped_episode_ends_as_an_uninterrupted_one(rounds: int, sampler: str, tmp_path: Path) -> None:
    """From every round on; the random sampler has a generator of its own to bring along."""
    config, path = replace(CONFIG, sampler=sampler), tmp_path / "kept" / "0.json"
    assert play(config, path, stop_after(rounds)) is None
    assert {file.name for file in path.parent.iterdir()} == {"0.json", f"0.{rounds}.safetensors"}
    line = play(config, path, lambda: False)
    assert line is not None
    assert timeless(line) == timeless(run_episode(config))
    assert json.loads(json.dumps(line)) == line


def test_episode_with_several_rounds_a_step_goes_on_too(tmp_path: Path) -> None:
    config = replace(CONFIG, sampler="random", env_kwargs=CONFIG.env_kwargs | {"rounds_per_step": 2})
    path = kept_episode(tmp_path / "episode", config)
    episode = ResumableEpisode(config)
    episode.load(path)  # where `play` would begin anew with what does not fit
    assert len(episode.trace.actions) == 1
    episode.advance()
    assert episode.finished
    resumed = episode.result()
    assert timeless(resumed) == timeless(run_episode(config))
    assert len(resumed["actions"]) == 2
    assert resumed["final"]["round"] == ROUNDS


def test_stopped_twice_is_no_different(tmp_path: Path) -> None:
    path = tmp_path / "0.json"
    for _ in range(2):
        assert play(CONFIG, path, stop_after(1)) is None
    line = play(CONFIG, path, lambda: False)
    assert line is not None
    assert timeless(line) == timeless(run_episode(CONFIG))


def test_seconds_and_memory_go_on_from_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "0.json"
    play(CONFIG, path, stop_after(1))
    kept = read_checked(path)
    kept["trace"]["seconds"] = {"synthesis": 1e3, "distillation": 2e3, "wall": 4e3, "processor": 5e3}
    kept["trace"]["peak_memory_mib"] = 1e6
    write_checked(path, kept)
    line = play(CONFIG, path, lambda: False)
    assert line is not None
    for part, before in (("synthesis", 1000), ("distillation", 2000), ("wall", 4000), ("processor", 5000)):
        assert before < line["seconds"][part] < before + 100
    assert line["curve"]["seconds"][1] < 100 < 4000 < line["curve"]["seconds"][2]
    assert line["peak_memory_mib"] == 1e6


def test_trace_of_a_version_with_fewer_clocks_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "0.json"
    play(CONFIG, path, stop_after(1))
    kept = read_checked(path)
    del kept["trace"]["seconds"]["processor"]
    write_checked(path, kept)
    with pytest.raises(InvalidInputError, match="another version"):
        ResumableEpisode(CONFIG).load(path)
    with pytest.warns(UserWarning, match="another version.*the episode starts over"):
        line = play(CONFIG, path, lambda: False)
    assert line is not None
    assert timeless(line) == timeless(run_episode(CONFIG))


def test_recurrent_sampler_has_its_state_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers depend on what it has seen, and on where an episode begins."""

    class Counting:
        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, **_: Any) -> Any:
            assert episode_start.tolist() == [state is None]
            memory = observation[:5] if state is None else 0.5 * state[0] + observation[:5]
            return np.tanh(memory).astype(np.float32), (memory,)

    monkeypatch.setattr("ssdkd_agents.benchmarking.experiments.load_sampler", lambda name, env, seed: Counting())
    path = tmp_path / "0.json"
    play(CONFIG, path, stop_after(2))
    line = play(CONFIG, path, lambda: False)
    assert line is not None
    assert timeless(line) == timeless(run_episode(CONFIG))
    assert len({tuple(action) for action in line["actions"]}) == BUDGET["rounds"]


def kept_episode(path: Path, config: EpisodeConfig = CONFIG) -> Path:
    episode = ResumableEpisode(config)
    episode.start()
    episode.advance()
    episode.save(path)
    return path


def test_episode_of_another_config_is_refused(tmp_path: Path) -> None:
    path = kept_episode(tmp_path / "0.json")
    for other in (replace(CONFIG, seed=CONFIG.seed + 1), replace(CONFIG, sampler="uniform")):
        with pytest.raises(InvalidInputError, match="belongs to another episode"):
            ResumableEpisode(other).load(path)


def test_state_of_another_round_is_refused(tmp_path: Path) -> None:
    path = kept_episode(tmp_path / "0.json")
    older = (tmp_path / "0.1.safetensors").read_bytes()
    play(CONFIG, path, stop_after(1))  # one round further
    assert not (tmp_path / "0.1.safetensors").exists()
    (tmp_path / "0.2.safetensors").write_bytes(older)
    with pytest.raises(InvalidInputError, match=r"0\.2\.safetensors is missing or was changed"):
        ResumableEpisode(CONFIG).load(path)


def test_process_killed_between_state_and_trace_has_the_checkpoint_before(tmp_path: Path) -> None:
    path = kept_episode(tmp_path / "0.json")
    (tmp_path / "0.2.safetensors").write_bytes(b"of the next round, whose trace was not written")
    episode = ResumableEpisode(CONFIG)
    episode.load(path)
    assert len(episode.trace.actions) == 1
    episode.save(path)
    assert {file.name for file in tmp_path.iterdir()} == {"0.json", "0.1.safetensors"}
    forget(path)
    assert not [*tmp_path.iterdir()]


def test_sampler_that_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept_episode(tmp_path / "0.json")
    monkeypatch.setattr(
        "ssdkd_agents.benchmarking.experiments.load_sampler",
        lambda name, env, seed: RandomSampler(spaces.Box(-1.0, 1.0, (5,)), seed),
    )
    with pytest.raises(InvalidInputError, match="no longer the one that began"):
        ResumableEpisode(CONFIG).load(path)


@pytest.mark.parametrize(
    "damage", ["state cut short", "trace cut short", "no state", "one bit", "other trace", "other round"]
)
def test_checkpoint_that_cannot_be_used_starts_the_episode_over(damage: str, tmp_path: Path) -> None:
    path = kept_episode(tmp_path / "0.json")
    state = tmp_path / "0.1.safetensors"
    if damage == "state cut short":
        state.write_bytes(state.read_bytes()[:-50])
    elif damage == "trace cut short":
        path.write_text(path.read_text()[:-50])
    elif damage == "one bit":
        path.write_text(path.read_text().replace("0.", "1.", 1))
    elif damage == "no state":
        state.unlink()
    elif damage == "other trace":
        write_checked(path, read_checked(path) | {"trace": {"bogus": 1}})
    else:
        kept = read_checked(path)
        kept["trace"]["actions"] *= 2
        write_checked(path, kept)
    with pytest.warns(UserWarning, match="the episode starts over"):
        line = play(CONFIG, path, lambda: False)
    assert line is not None
    assert timeless(line) == timeless(run_episode(CONFIG))


# --- many ---


def test_two_processes_give_the_lines_of_one() -> None:
    configs = [replace(CONFIG, seed=CONFIG.seed + i, sampler=s) for i in range(2) for s in ("paper", "random")]
    alone = [timeless(line) for line in run_episodes(configs, Processes(1))]
    side_by_side = [timeless(line) for line in run_episodes(configs, Processes(2))]
    assert side_by_side == alone
    assert [(line["seed"], line["sampler"]) for line in alone] == [(c.seed, c.sampler) for c in configs]


def test_lines_come_as_they_are_made() -> None:
    lines = run_episodes([CONFIG, replace(CONFIG, sampler="no such sampler")], Processes(1))
    assert next(lines)["sampler"] == "paper"
    with pytest.raises(InvalidInputError, match="no such sampler"):
        next(lines)


def deadly(env: SSDKDEnv, seed: int) -> Sampler:
    """The paper's sampler, but that one seed kills the process."""
    if seed == HELD_OUT_SEED + 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_sampler("paper", env, seed)


def test_process_that_dies_costs_its_episode_and_one_line() -> None:
    name = f"{deadly.__module__}:{deadly.__name__}"
    configs = [replace(CONFIG, seed=HELD_OUT_SEED + index, sampler=name) for index in range(4)]
    lines = run_episodes(configs, Processes(2))
    assert [next(lines)["seed"] for _ in range(3)] == [HELD_OUT_SEED, HELD_OUT_SEED + 2, HELD_OUT_SEED + 3]
    expected = (
        f"^1 of 4 episodes failed, the others are done; the first is sampler '{name}', seed {HELD_OUT_SEED + 1}: after "
        r"2 tries: process \d+ of a job has died \(exit code -9: Killed\)\. Was there enough memory\? Use "
        "fewer processes$"
    )
    with pytest.raises(InvalidInputError, match=expected):
        next(lines)


# --- what is refused ---


def test_usable_configs_pass() -> None:
    validate([replace(CONFIG, sampler=sampler, seed=seed) for sampler in SAMPLERS for seed in range(3)])
    validate([replace(CONFIG, env_id="ssdkd_env:SSDKD/Digits-v2")])


def test_no_samplers_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="none given"):
        validate([])


def test_validation_looks_at_every_config() -> None:
    with pytest.raises(InvalidInputError, match="papr"):
        validate([CONFIG, CONFIG, replace(CONFIG, sampler="papr")])


@pytest.mark.parametrize(
    "env_id", ["SSDKD/Digitz-v2", "SSDKD/Digits-v9", "Nothing-v0", "", "no_such_module:SSDKD/Digits-v2", "a::b", "/x/"]
)
def test_unknown_environment_is_refused_with_the_known_ones(env_id: str) -> None:
    with pytest.raises(InvalidInputError, match=r"env_id='.*is unknown.*choose one of: .*SSDKD/Digits-v2") as caught:
        validate([replace(CONFIG, env_id=env_id)])
    assert "\n" not in str(caught.value)


def test_foreign_environment_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="env_id='CartPole-v1' is no distillation environment"):
        validate([EpisodeConfig("CartPole-v1", "paper", 0)])


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"bogus": 1}, "bogus"),
        ({"budget": {"rounds": 0}}, r"budget\['rounds'\]=0"),
        ({"budget": {"bogus": 1}}, "budget has no setting 'bogus'"),
        ({"budget": {"rounds": "many"}}, "rounds"),
        ({"budget": 3}, "budget"),
        ({"budget": "rounds=3"}, "budget"),
        ({"reward": "accuracy"}, "reward='accuracy' is unknown"),
        ({"reward": 3}, "reward"),
        ({"action": "none"}, "action='none' is unknown"),
        ({"method": "nope"}, "method"),
        ({"task": "nope"}, "task"),
        ({"task": 3}, "task"),
        ({"device": "abacus"}, "device='abacus' is not usable here"),
        ({"teacher": "missing.safetensors"}, "teacher='missing.safetensors'"),
        ({"render_mode": "ascii"}, "render_mode"),
    ],
    ids=str,
)
def test_bad_argument_of_the_environment_is_refused(kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        validate([replace(CONFIG, env_kwargs=kwargs)])
    assert "\n" not in str(caught.value)


def test_unknown_sampler_is_refused(tmp_path: Path) -> None:
    for sampler in ("papr", str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(InvalidInputError, match=r"sampler|checkpoint"):
            validate([replace(CONFIG, sampler=sampler)])
