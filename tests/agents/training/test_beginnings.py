"""What a training begins with: the first action, and the environments' random numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.seeds import VALIDATION_SEED, Beginning, in_turn
from ssdkd_agents.training.config import check_settings
from ssdkd_agents.vec_env import DistillationVecEnv, is_resting

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from tests.agents.trainings import PPO, curves, go_on, run
from tests.envs.episodes import SMALL_PROBE, WORK_BUDGET, make

PAIR = replace(
    PPO, timesteps=24, hyperparameters=PPO.hyperparameters | {"n_envs": 2, "n_steps": 3}, vectorization="loop"
)
DIVIDED: dict[str, Any] = {
    "instances": "tests.envs.own_networks:SMALL_WORK_SET",
    "action": "division",
    "budget": {name: value for name, value in WORK_BUDGET.items() if name != "buffer_capacity"},
    "probe": SMALL_PROBE,
}


def returns(path: Path) -> list[float]:
    return [line["return"] for line in read_lines(path / "episodes.jsonl")]


def test_training_begins_with_the_action() -> None:
    with pytest.raises(InvalidInputError, match="expected 5 numbers"):
        check_settings(replace(PPO, start=[0.5]))
    check_settings(replace(PPO, start=[0.5, 0.0, 0.0, 0.0, 1.0]))


def test_first_rollout_is_around_the_action(tmp_path: Path) -> None:
    narrow = PPO.hyperparameters | {"policy_kwargs": {"log_std_init": -9.0}}
    begun = replace(PPO, hyperparameters=narrow, start=[-0.8, 0.6, 0.0, 0.0, 1.0], timesteps=6)
    run(tmp_path / "begun", begun)
    shown = curves(tmp_path / "begun")
    for name, expected in zip(make().action_names, begun.start or (), strict=True):
        ((_, value),) = shown[f"action/{name}"]
        assert value == pytest.approx(expected, abs=1e-2)


def test_environments_play_alike_in_blocks() -> None:
    """As many episodes as there are environments have one seed and one instance, whoever is the first to end."""
    env = DistillationVecEnv(3, DIVIDED, "loop")
    actions = np.array([[1.0, 1.0], [-0.5, -0.5], [0.0, 0.0]], np.float32)
    try:
        env.seed_each(4, alike=True)
        first = env.reset()
        assert all(np.array_equal(first[0], other) for other in first[1:])
        expected = [in_turn(4, number // 3, env.instances).instance for number in range(20)]
        assert len(set(expected)) > 1
        begun = [info["instance"] for info in env.reset_infos]
        ends = []
        while len(begun) < len(expected):
            dones = env.step(actions)[2]
            ends += np.flatnonzero(dones).tolist()
            begun += [env.reset_infos[index]["instance"] for index in np.flatnonzero(dones)]
        assert len(set(ends[:6])) < 3, "one has to end twice before another does once"
        assert begun[:20] == expected
        env.seed_each(4, alike=True, ended=1)  # in a training that goes on: the next to begin is the fifth
        assert [each.instance for each in env._next_in_common(range(2)).values()] == expected[4:6]
        env.seed_each(4, alike=False)
        assert not np.array_equal(*env.reset()[:2])
    finally:
        env.close()


def test_environments_rest_where_each_plays_one_episode() -> None:
    """The first to end waits for the last, and nothing of another episode is played in between."""
    env = DistillationVecEnv(3, DIVIDED, "loop")
    alone = SSDKDEnv(**DIVIDED)
    try:
        for beginnings in ([Beginning(7, 1), Beginning(7, 1)], [Beginning(3, 0), Beginning(4, 1)]):
            env.play_once(beginnings)
            env.reset()
            assert [info["instance"] for info in env.reset_infos[:2]] == [each.instance for each in beginnings]
            actions = np.array([[1.0, 1.0], [-0.5, -0.5], [0.0, 0.0]], np.float32)
            totals, lengths = np.zeros(3), np.zeros(3, int)
            ended = np.array([False, False, True])
            while not ended.all():
                seen, rewards, dones, infos = env.step(actions)
                assert [is_resting(info) for info in infos] == ended.tolist()
                totals, lengths = totals + rewards, lengths + ~ended
                ended = ended | dones
            assert lengths[0] < lengths[1]
            assert lengths[2] == totals[2] == 0
            for place, beginning in enumerate(beginnings):
                alone.reset(seed=beginning.seed, options={"instance": beginning.instance})
                expected, over = 0.0, False
                while not over:
                    last, reward, over, _, _ = alone.step(actions[place])
                    expected += reward
                assert totals[place] == pytest.approx(expected, abs=1e-6)
                assert np.array_equal(np.asarray(seen)[place], last)
        env.play_once(None)
        env.reset()
        assert not any(is_resting(info) for info in env.step(actions)[3])
    finally:
        env.close()


def test_turns_go_through_all_instances_and_no_seed_is_kept_for_others() -> None:
    turns = [in_turn(3, number, 5) for number in range(50)]
    assert Counter(turn.instance for turn in turns) == dict.fromkeys(range(5), 10)
    assert len({tuple(turn.instance for turn in turns[first : first + 5]) for first in range(0, 50, 5)}) > 3
    assert len({turn.seed for turn in turns}) == 50
    assert all(0 <= turn.seed < VALIDATION_SEED for turn in turns)
    assert turns == [in_turn(3, number, 5) for number in range(50)]
    assert turns != [in_turn(4, number, 5) for number in range(50)]


@pytest.mark.parametrize("algorithm", ["ars", "cma_es"])
def test_generations_compare_candidates_on_the_same_episodes(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every generation, whatever the lengths of the episodes before, and after a resumption."""
    begun: list[list[Beginning]] = []
    original = DistillationVecEnv.play_once

    def play_once(self: DistillationVecEnv, beginnings: list[Beginning]) -> None:
        begun.append(beginnings)
        original(self, beginnings)

    monkeypatch.setattr(DistillationVecEnv, "play_once", play_once)
    hyperparameters: dict[str, Any] = {"n_envs": 4, "n_eval_episodes": 2}
    hyperparameters |= {"n_delta": 2, "n_top": 1} if algorithm == "ars" else {"population": 4, "sigma": 0.5}
    config = replace(
        PPO,
        algorithm=algorithm,
        env_kwargs=DIVIDED,
        hyperparameters=hyperparameters,
        timesteps=70,
        vectorization="loop",
        checkpoint_every_steps=1,
    )
    run(tmp_path / "whole", config)
    whole, lines = begun.copy(), read_lines(tmp_path / "whole" / "episodes.jsonl")
    assert len(whole) >= 4
    assert all(len(set(wave)) == 1 for wave in whole)
    assert len(set(whole[0] + whole[1] + whole[2] + whole[3])) == 4
    assert len(lines) == 4 * len(whole), "no episode beside those of the candidates"
    assert len({line["rounds"] for line in lines[:8]}) > 1, "of unlike lengths"
    begun.clear()
    run(tmp_path / "part", replace(config, timesteps=1))
    assert go_on(tmp_path / "part", config) == "finished"
    assert begun == whole
    assert returns(tmp_path / "part") == returns(tmp_path / "whole")


def test_training_may_ask_for_it_and_is_resumed_so(tmp_path: Path) -> None:
    config = replace(PAIR, common_random_numbers=True, checkpoint_every_steps=6)
    _, outcome = run(tmp_path / "whole", config)
    assert outcome == "finished"
    run(tmp_path / "part", replace(config, timesteps=12))
    assert go_on(tmp_path / "part", config) == "finished"
    assert returns(tmp_path / "part") == returns(tmp_path / "whole")
    run(tmp_path / "other", replace(config, common_random_numbers=False))
    assert returns(tmp_path / "other") != returns(tmp_path / "whole")
