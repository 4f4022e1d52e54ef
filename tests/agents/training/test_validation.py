"""Validation of agents in training: on seeds of its own, without a trace in the training, by return alone."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sb3_contrib import RecurrentPPO
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import TrainedSampler, read_sampler
from ssdkd_agents.seeds import HELD_OUT_SEED, VALIDATION_SEED, shared_out
from ssdkd_agents.training.loop import Progress
from ssdkd_agents.training.loop_state import random_state
from ssdkd_agents.training.validation import Evaluation, Validation
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.instance_draw import InstanceDraw
from ssdkd_env.envs.tuning import Choice
from ssdkd_env.errors import InvalidInputError
from tests.agents.trainings import PPO, SAC, checkpoints, go_on, interrupt_after, run, scalars
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, WORK_BUDGET, make

KWARGS = {"budget": BUDGET, "probe": SMALL_PROBE}
EVALUATED = replace(PPO, timesteps=18, evaluate_every_steps=6, evaluation_episodes=2)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was validated three times. Tests leave it as it is."""
    path = tmp_path_factory.mktemp("runs") / "ppo"
    run(path, EVALUATED)
    return path


def validation(count: int, backend: str = "loop") -> Validation:
    return Validation(KWARGS, count, Choice(backend, 1, "for a test"))


def never() -> bool:
    return False


def test_every_validation_is_a_line_and_a_point_of_two_curves(evaluated: Path) -> None:
    lines = read_lines(evaluated / "evaluations.jsonl")
    assert [line["timesteps"] for line in lines] == [6, 12, 18]
    for line in lines:
        assert set(line) == {"timesteps", "seeds", "returns", "accuracies", "mean_return", "seconds"}
        assert line["seeds"] == [VALIDATION_SEED, VALIDATION_SEED + 1]
        assert line["mean_return"] == pytest.approx(sum(line["returns"]) / 2)
        assert all(0 <= accuracy <= 1 for accuracy in line["accuracies"])
    for tag, values in (
        ("eval/mean_reward", [line["mean_return"] for line in lines]),
        ("eval/mean_accuracy", [np.mean(line["accuracies"]) for line in lines]),
    ):
        curve = scalars(evaluated, tag)
        assert [step for step, _ in curve] == [6, 12, 18]
        assert [value for _, value in curve] == pytest.approx(values, abs=1e-6)


def test_a_line_says_what_the_checkpoint_does_alone_on_these_seeds(evaluated: Path) -> None:
    """So weights, normalisation statistics and episodes are those that the file has."""
    last = read_lines(evaluated / "evaluations.jsonl")[-1]
    env = make()
    sampler = TrainedSampler(find_sampler_file(evaluated), env)
    for index, seed in enumerate(last["seeds"]):
        observation, info = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            observation, reward, done, _, info = env.step(sampler.predict(observation, deterministic=True)[0])
            total += reward
        assert last["returns"][index] == total
        assert last["accuracies"][index] == info["accuracy"]


def test_training_is_the_same_with_and_without_validation(evaluated: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", replace(EVALUATED, evaluate_every_steps=0))
    first, second = (load_file(find_sampler_file(path)) for path in (evaluated, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert scalars(evaluated, "train/loss") == scalars(tmp_path / "run", "train/loss")
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_best_sampler_is_kept_with_its_statistics(evaluated: Path) -> None:
    lines = read_lines(evaluated / "evaluations.jsonl")
    best = max(lines, key=lambda line: line["mean_return"])  # the first of equal ones
    state = read_sampler(evaluated / "best.safetensors")
    assert state["counters"]["num_timesteps"] == best["timesteps"]
    assert state["normalization"]["observation"]["count"] == pytest.approx(best["timesteps"] + 1, abs=0.01)
    assert state["replay"] is None
    outcome = json.loads((evaluated / "outcome.json").read_text())
    assert outcome["best_return"] == best["mean_return"]
    assert outcome["best_timesteps"] == best["timesteps"]
    assert find_sampler_file(evaluated).name == "18.safetensors", "a run's folder still means the last"


def returns_of(monkeypatch: pytest.MonkeyPatch, means: Sequence[float]) -> None:
    """Validations give these mean returns; accuracies fall and rise the other way round."""
    given = iter(means)

    def play(self: Validation, model: BaseAlgorithm, stop: Any) -> Evaluation:
        value = next(given)
        return Evaluation(model.num_timesteps, [VALIDATION_SEED], [value], [1 - value], 0.0)

    monkeypatch.setattr(Validation, "play", play)


@pytest.mark.parametrize(
    ("patience", "ended", "outcome"), [(0, 36, "finished"), (1, 18, "stopped early"), (2, 24, "stopped early")]
)
def test_patience_ends_the_training(
    patience: int, ended: int, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A return that is only as high as the best is no improvement, whatever the accuracy."""
    returns_of(monkeypatch, [0.1, 0.3, 0.3, 0.2, 0.3, 0.2])
    config = replace(PPO, timesteps=36, evaluate_every_steps=6, patience=patience)
    assert run(tmp_path / "run", config)[1] == outcome
    assert max(checkpoints(tmp_path / "run")) == ended == max(s for s, _ in scalars(tmp_path / "run", "time/fps"))
    assert read_sampler(tmp_path / "run" / "best.safetensors")["counters"]["num_timesteps"] == 12
    recorded = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert recorded == {"outcome": outcome, "timesteps": ended, "best_return": 0.3, "best_timesteps": 12}


def test_patience_that_had_ended_before_a_kill_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoint was written, and what ended the training was not; a later validation would improve."""
    returns_of(monkeypatch, [0.3, 0.2, 0.9, 0.9, 0.9])
    config = replace(PPO, timesteps=36, evaluate_every_steps=6, patience=1)
    assert run(tmp_path / "run", config)[1] == "stopped early"
    (tmp_path / "run" / "outcome.json").unlink()
    assert go_on(tmp_path / "run", config) == "stopped early"
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["best_return"] == 0.3


def test_patience_begins_anew_with_an_improvement() -> None:
    progress = Progress()
    improved = [
        progress.improves(Evaluation(steps, [0], [value], [None], 0.0), learnt=True)
        for steps, value in ((1, -0.5), (2, -0.6), (3, -0.4), (4, -0.4))
    ]
    assert improved == [True, False, True, False]
    assert (progress.without_improvement, progress.best_timesteps, progress.evaluated) == (1, 3, 4)


def test_seeds_lie_between_those_of_training_and_of_the_final_comparison() -> None:
    assert 1000 * 500 <= VALIDATION_SEED < VALIDATION_SEED + 500_000 <= HELD_OUT_SEED


# --- playing ---


def _normalized() -> VecNormalize:
    env = VecNormalize(DummyVecEnv([make]))
    env.reset()
    return env


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.float32]]:
    """Every action that an environment in this process receives."""
    seen: list[NDArray[np.float32]] = []
    original = SSDKDEnv.step

    def step(self: SSDKDEnv, action: Any) -> Any:
        seen.append(np.array(action))
        return original(self, action)

    monkeypatch.setattr(SSDKDEnv, "step", step)
    return seen


@pytest.mark.parametrize(("algorithm", "policy"), [(SB3PPO, "MlpPolicy"), (RecurrentPPO, "MlpLstmPolicy")])
def test_side_by_side_each_episode_is_played_as_alone(
    algorithm: type[SB3PPO | RecurrentPPO], policy: str, actions: list[NDArray[np.float32]]
) -> None:
    """With observations normalised by the training's statistics, and a memory of its own."""
    model = algorithm(policy, _normalized(), n_steps=6, batch_size=6, seed=0, device="cpu")
    normalize = model.get_vec_normalize_env()
    assert normalize is not None
    result = validation(2).play(model, never)
    assert result is not None
    given = np.array(actions).reshape(ROUNDS, 2, -1)
    env = make()
    for index, seed in enumerate(result.seeds):
        observation, _ = env.reset(seed=seed)
        state, start, total = None, np.ones(1, dtype=bool), 0.0
        for round_ in range(ROUNDS):
            seen: Any = normalize.normalize_obs(observation[None])
            answer, state = model.predict(seen, state, start, deterministic=True)
            np.testing.assert_allclose(given[round_, index], answer[0], atol=1e-6)
            start[:] = False
            observation, reward, _, _, _ = env.step(given[round_, index])
            total += reward
        assert result.returns[index] == total


def test_random_streams_and_statistics_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    env = _normalized()
    model = SB3PPO("MlpPolicy", env, n_steps=6, batch_size=6, seed=0, device="cpu")
    statistics = env.obs_rms
    assert isinstance(statistics, RunningMeanStd)
    original = model.predict

    def predict(*arguments: Any, **keywords: Any) -> Any:
        """Draws from every global stream, as a network of the user's may."""
        torch.rand(1), random.random(), np.random.random()
        return original(*arguments, **keywords)

    monkeypatch.setattr(model, "predict", predict)
    before = random_state(), statistics.mean.copy(), statistics.count
    validation(1).play(model, never)
    after = random_state(), statistics.mean.copy(), statistics.count
    assert before[0].keys() == after[0].keys()
    assert all(np.array_equal(before[0][key], after[0][key]) for key in ("numpy", "torch"))
    assert before[0]["python"] == after[0]["python"]
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_episode_that_ends_early_is_not_played_on(actions: list[NDArray[np.float32]]) -> None:
    """A student that diverges ends its episode."""
    kwargs = KWARGS | {"student": {"lr": 1e9}}
    model = SB3PPO("MlpPolicy", DummyVecEnv([make]), n_steps=6, batch_size=6, seed=0, device="cpu")
    result = Validation(kwargs, 2, Choice("loop", 1, "")).play(model, never)
    assert result is not None
    assert len(actions) == 2
    assert all(value <= 0 for value in result.returns)


def test_instances_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int | None] = []
    original = InstanceDraw.choose

    def choose(self: InstanceDraw, random: Any, options: Any) -> int:
        begun.append(original(self, random, options))
        return begun[-1]  # type: ignore[return-value]

    monkeypatch.setattr(InstanceDraw, "choose", choose)
    kwargs: dict[str, Any] = {
        "instances": "tests.envs.own_networks:SMALL_SET",
        "probe": SMALL_PROBE,
        "budget": WORK_BUDGET,
    }
    env = DummyVecEnv([lambda: SSDKDEnv(**kwargs)])
    model = SB3PPO("MlpPolicy", env, n_steps=6, batch_size=6, seed=0, device="cpu")
    Validation(kwargs, 9, Choice("loop", 1, ""), instances=8).play(model, never)
    assert sorted(begun[:8]) == [*range(8)]  # type: ignore[type-var]
    assert begun == shared_out(9, 8)


def test_validation_that_is_stopped_gives_nothing() -> None:
    model = SB3PPO("MlpPolicy", DummyVecEnv([make]), n_steps=6, batch_size=6, seed=0, device="cpu")
    asked = iter([False, True])
    assert validation(1).play(model, lambda: next(asked)) is None


def test_grouped_validation_gives_the_same_but_for_rounding() -> None:
    model = SB3PPO("MlpPolicy", DummyVecEnv([make]), n_steps=6, batch_size=6, seed=0, device="cpu")
    alone, grouped = (validation(2, backend).play(model, never) for backend in ("loop", "grouped"))
    assert alone is not None
    assert grouped is not None
    assert grouped.returns == pytest.approx(alone.returns, abs=4 / 64)


def test_off_policy_agents_are_validated_too(tmp_path: Path) -> None:
    run(tmp_path / "run", replace(SAC, timesteps=9, evaluate_every_steps=4, evaluation_episodes=1))
    assert [line["timesteps"] for line in read_lines(tmp_path / "run" / "evaluations.jsonl")] == [4, 8, 9]
    assert (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize(("every", "expected"), [(5, [6, 12]), (7, [12]), (1280, [12]), (0, [])])
def test_last_agent_is_validated(every: int, expected: list[int], tmp_path: Path) -> None:
    """Also where the interval is longer than the training; it can then be the best."""
    _, outcome = run(tmp_path / "run", replace(PPO, evaluate_every_steps=every, evaluation_episodes=1))
    assert outcome == "finished"
    path = tmp_path / "run" / "evaluations.jsonl"
    assert [line["timesteps"] for line in (read_lines(path) if path.exists() else [])] == expected
    assert (tmp_path / "run" / "best.safetensors").exists() == bool(expected)
    if len(expected) == 1:
        last, best = find_sampler_file(tmp_path / "run"), tmp_path / "run" / "best.safetensors"
        assert all(torch.equal(tensor, load_file(last)[name]) for name, tensor in load_file(best).items())
        assert json.loads((tmp_path / "run" / "outcome.json").read_text())["best_timesteps"] == 12


@pytest.mark.parametrize("steps", [11, 13])
def test_interrupted_validation_of_the_last_agent_is_made_up_for(steps: int, tmp_path: Path) -> None:
    """Ctrl-C in the last step of training, or in the validation after it: nothing is left but to validate."""
    config = replace(PPO, evaluate_every_steps=100, evaluation_episodes=1)
    with interrupt_after(steps):
        _, outcome = run(tmp_path / "run", config)
    assert outcome == "interrupted"
    assert max(checkpoints(tmp_path / "run")) == 12
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
    assert go_on(tmp_path / "run", config) == "finished"
    run(tmp_path / "whole", config)
    made = [read_lines(tmp_path / name / "evaluations.jsonl")[0] for name in ("run", "whole")]
    assert made[0]["returns"] == made[1]["returns"] and made[0]["timesteps"] == 12
    files = [load_file(find_sampler_file(tmp_path / name)) for name in ("run", "whole")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[1])
    with pytest.raises(InvalidInputError, match="has already done 12; ask for more"):
        go_on(tmp_path / "run", config)


def test_agent_without_an_update_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an off-policy training that is validated before it learns, however high the return is there."""
    returns_of(monkeypatch, [9.0, 1.0, 2.0])
    config = replace(SAC, timesteps=9, evaluate_every_steps=4, evaluation_episodes=1)
    run(tmp_path / "run", replace(config, hyperparameters=SAC.hyperparameters | {"learning_starts": 6}))
    state = read_sampler(tmp_path / "run" / "best.safetensors")
    assert state["counters"]["num_timesteps"] == 9 and state["counters"]["n_updates"] > 0
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["best_return"] == 2.0
