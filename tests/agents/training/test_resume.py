"""A run that was killed or interrupted, and resumed, is the run that was not, number for number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from ssdkd_agents.lines import read_lines
from ssdkd_agents.manifests import write_manifest
from ssdkd_agents.policies.algorithms import ALGORITHMS
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import read_sampler

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import save_state
from tests.agents.trainings import PPO, SAC, checkpoints, curves, go_on, interrupt_after, run

OFF_POLICY = {"learning_starts": 4, "batch_size": 4, "buffer_size": 15}
#: Rollouts of four steps end in the middle of episodes of three.
SHORT = {"n_envs": 1, "n_steps": 4, "batch_size": 4, "n_epochs": 2}
CASES = {
    "ppo": replace(
        PPO,
        timesteps=20,
        hyperparameters=SHORT,
        checkpoint_every_steps=8,
        evaluate_every_steps=8,
        evaluation_episodes=1,
    ),
    "ppo on two": replace(
        PPO, vectorization="loop", timesteps=24, hyperparameters=SHORT | {"n_envs": 2}, checkpoint_every_steps=8
    ),
    "ppo with gSDE": replace(
        PPO,
        timesteps=16,
        hyperparameters=SHORT | {"normalize": False, "use_sde": True, "sde_sample_freq": 2},
        checkpoint_every_steps=8,
    ),
    "sac": replace(SAC, timesteps=20, checkpoint_every_steps=8, evaluate_every_steps=7, evaluation_episodes=1),
    "sac, still at random": replace(
        SAC, timesteps=16, hyperparameters=SAC.hyperparameters | {"learning_starts": 12}, checkpoint_every_steps=8
    ),
    "sac on two": replace(
        SAC,
        vectorization="loop",
        timesteps=24,
        hyperparameters=SAC.hyperparameters | {"n_envs": 2},
        checkpoint_every_steps=8,
    ),
}
TINY: dict[str, dict[str, Any]] = {
    "a2c": {"n_steps": 4},
    "ars": {"n_delta": 1, "n_top": 1, "n_envs": 2, "normalize": True},
    "cma_es": {"population": 4, "n_envs": 2, "normalize": True},
    "crossq": OFF_POLICY | {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [8]}}},
    "dqn": OFF_POLICY | {"target_update_interval": 5, "exploration_fraction": 0.9},
    "grpo": {"n_envs": 2, "groups": 1, "batch_size": 4, "n_epochs": 2},
    "recurrent_ppo": {"n_steps": 4, "batch_size": 4, "n_epochs": 2},
    "td3": OFF_POLICY | {"noise_type": "ornstein-uhlenbeck", "noise_std": 0.3},
    "tqc": OFF_POLICY,
    "trpo": {"n_steps": 4, "batch_size": 4},
}
CASES |= {
    algorithm: replace(
        PPO,
        algorithm=algorithm,
        timesteps=20,
        env_kwargs=PPO.env_kwargs | ({"action": "plans"} if algorithm == "dqn" else {}),
        hyperparameters={"n_envs": 1} | ({} if algorithm == "cma_es" else {"learning_rate": "lin_0.01"}) | options,
        checkpoint_every_steps=8,
        vectorization="loop",
    )
    for algorithm, options in TINY.items()
}
assert {case.algorithm for case in CASES.values()} == set(ALGORITHMS)
#: What differs between equal runs.
CLOCKS = ("seconds",)


class Killed(BaseException):
    """Stands for the end of the process: nothing is written after it."""


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """Kill the process in an environment's next step of training."""
    original, done = SSDKDEnv.step, []

    def step(self: SSDKDEnv, action: Any) -> Any:
        done.append(1)
        if len(done) == steps + 1:
            raise Killed
        return original(self, action)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SSDKDEnv, "step", step)
        with pytest.raises(Killed):
            yield


def lines(path: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        file.name: [{key: value for key, value in line.items() if key not in CLOCKS} for line in read_lines(file)]
        for file in sorted(path.glob("*.jsonl"))
    }


def assert_same_run(first: Path, second: Path) -> None:
    """Episodes, validations, curves, weights, optimisers, statistics and replay buffers are equal to the last bit."""
    assert lines(first) == lines(second)
    one, other = (
        {tag: curve for tag, curve in curves(path).items() if not tag.startswith("time/")} for path in (first, second)
    )
    assert one == other
    files = [find_sampler_file(path) for path in (first, second)]
    assert files[0].name == files[1].name
    assert (first / "best.safetensors").exists() == (second / "best.safetensors").exists()
    if (first / "best.safetensors").exists():
        files += [path / "best.safetensors" for path in (first, second)]
    for mine, theirs in zip(files[::2], files[1::2], strict=True):
        tensors, expected = load_file(mine), load_file(theirs)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
        assert read_sampler(mine)["counters"] == read_sampler(theirs)["counters"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of whole runs, by name of the case."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / "run"
            run(made[name], CASES[name])
        return made[name]

    return of


@pytest.mark.parametrize("name", CASES)
def test_killed_run_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path, uninterrupted: Any) -> None:
    with killed_after(14):
        run(tmp_path / "run", CASES[name])
    assert 0 < max(checkpoints(tmp_path / "run")) < 14
    assert go_on(tmp_path / "run", CASES[name]) == "finished"
    assert_same_run(tmp_path / "run", uninterrupted(name))


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_interrupted_run_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path, uninterrupted: Any) -> None:
    with interrupt_after(6):
        _, outcome = run(tmp_path / "run", CASES[name])
    assert outcome == "interrupted"
    assert go_on(tmp_path / "run", CASES[name]) == "finished"
    assert_same_run(tmp_path / "run", uninterrupted(name))


def test_run_can_be_killed_again_and_again(tmp_path: Path, uninterrupted: Any) -> None:
    """In the middle of the first rollout, of a validation, and of the rollout after it."""
    with killed_after(2):
        run(tmp_path / "run", CASES["ppo"])
    for steps in (9, 12, 7):
        with killed_after(steps):
            go_on(tmp_path / "run", CASES["ppo"])
    go_on(tmp_path / "run", CASES["ppo"])
    assert_same_run(tmp_path / "run", uninterrupted("ppo"))


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_longer_run_continues_a_finished_one(name: str, tmp_path: Path, uninterrupted: Any) -> None:
    """Exactly, where no schedule depends on the number of steps."""
    run(tmp_path / "run", replace(CASES[name], timesteps=12))
    go_on(tmp_path / "run", CASES[name])
    longer, whole = lines(tmp_path / "run"), lines(uninterrupted(name))
    # It was validated where it first ended, too.
    longer["evaluations.jsonl"] = [line for line in longer["evaluations.jsonl"] if line["timesteps"] != 12]
    assert longer == whole
    counters = [read_sampler(find_sampler_file(path))["counters"] for path in (tmp_path / "run", uninterrupted(name))]
    assert counters[0] == counters[1]


def test_grouped_environments_in_processes_go_on_exactly(tmp_path: Path) -> None:
    config = replace(
        PPO,
        timesteps=32,
        hyperparameters=SHORT | {"n_envs": 4},
        vectorization="grouped",
        checkpoint_every_steps=16,
    )
    run(tmp_path / "whole", config)
    run(tmp_path / "run", replace(config, timesteps=16))
    machine = json.loads((tmp_path / "run" / "machine.json").read_text())
    assert (machine["backend"], machine["processes"]) == ("grouped", 1)
    # Whatever the machine would choose now, the run goes on as it began.
    assert go_on(tmp_path / "run", replace(config, vectorization="auto")) == "finished"
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_resumed_run_repeats_no_line_and_hides_no_event(tmp_path: Path) -> None:
    with killed_after(11):
        run(tmp_path / "run", replace(CASES["ppo"], evaluate_every_steps=0))
    before = [line["timesteps"] for line in read_lines(tmp_path / "run" / "episodes.jsonl")]
    assert before == [3, 6, 9]
    assert max(checkpoints(tmp_path / "run")) == 8
    go_on(tmp_path / "run", replace(CASES["ppo"], evaluate_every_steps=0))
    episodes = read_lines(tmp_path / "run" / "episodes.jsonl")
    assert [line["timesteps"] for line in episodes] == [3, 6, 9, 12, 15, 18]
    seconds = [line["seconds"] for line in episodes]
    assert sorted(seconds) == seconds, "the clock goes on"
    assert [step for step, _ in curves(tmp_path / "run")["rollout/ep_rew_mean"]] == [4, 8, 12, 16, 20]


def test_validation_after_the_checkpoint_is_written_once(tmp_path: Path) -> None:
    config = replace(SAC, checkpoint_every_steps=10, evaluate_every_steps=6, evaluation_episodes=1)
    with killed_after(11):
        run(tmp_path / "run", config)
    assert checkpoints(tmp_path / "run") == [0]
    assert [line["timesteps"] for line in read_lines(tmp_path / "run" / "evaluations.jsonl")] == [6]
    go_on(tmp_path / "run", config)
    assert [line["timesteps"] for line in read_lines(tmp_path / "run" / "evaluations.jsonl")] == [6, 12]


# --- what cannot go on ---


def test_run_that_is_done_is_not_resumed(uninterrupted: Any) -> None:
    whole = uninterrupted("ppo")
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    for timesteps in (20, 3):
        with pytest.raises(
            InvalidInputError, match=rf"timesteps={timesteps}: the run in .* has already done 20; ask for"
        ):
            go_on(whole, replace(CASES["ppo"], timesteps=timesteps))
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_run_that_was_killed_after_its_last_checkpoint_is_done(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "run")
    outcome = folder.path / "outcome.json"
    said = outcome.read_bytes()
    outcome.unlink()
    left_over = folder.path / "checkpoints" / "3.safetensors"  # of a checkpoint that was being forgotten
    left_over.touch()
    assert go_on(folder.path, PPO) == "finished"
    assert outcome.read_bytes() == said
    assert not left_over.exists()


def test_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    """Whatever it has written before it was killed, also into TensorBoard."""
    run(tmp_path / "whole")
    folder, _ = run(tmp_path / "run")
    shutil.rmtree(folder.path / "checkpoints")
    (folder.path / "best.safetensors").touch()
    assert go_on(folder.path, PPO) == "finished"
    assert_same_run(folder.path, tmp_path / "whole")
    assert not (folder.path / "best.safetensors").exists()


@pytest.mark.parametrize(("part", "how"), [("12.state.safetensors", "one bit"), ("12.episodes/0.safetensors", "older")])
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(part: str, how: str, tmp_path: Path) -> None:
    run(tmp_path / "run")
    assert checkpoints(tmp_path / "run") == [6, 12]
    file = tmp_path / "run" / "checkpoints" / part
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if how == "one bit" else Path(str(file).replace("/12.", "/6.")).read_bytes())
    with pytest.warns(UserWarning, match=r"12\..*going on from the checkpoint of 6 steps"):
        assert go_on(tmp_path / "run", PPO) == "finished"
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_run_without_a_sound_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path / "run", replace(PPO, timesteps=6))
    for steps in checkpoints(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints" / f"{steps}.state.safetensors").write_bytes(b"half")
    with pytest.raises(InvalidInputError, match=r"6\.state\.safetensors .*no other checkpoint is sound; start anew"):
        go_on(tmp_path / "run", PPO)


def test_state_of_something_else_is_refused(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "run", replace(PPO, timesteps=6))
    save_state(folder.path / "checkpoints" / "6.state.safetensors", {"format": "other"})
    write_manifest(folder.path / "checkpoints", 6, folder.identity)
    with pytest.raises(InvalidInputError, match="holds no state of a training"):
        go_on(tmp_path / "run", PPO)


def test_damaged_record_of_the_machine_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", replace(PPO, timesteps=6))
    (tmp_path / "run" / "machine.json").write_text("[]")
    with pytest.raises(InvalidInputError, match=r"machine\.json is damaged"):
        go_on(tmp_path / "run", PPO)
