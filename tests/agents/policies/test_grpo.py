"""GRPO: whole episodes of a group that begins alike, compared with the group's mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ssdkd_agents.policies.algorithms import build_model, load_hyperparameters
from ssdkd_agents.seeds import in_turn
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import STEPS, agent, config_of, environments
from tests.agents.training.test_beginnings import DIVIDED


class Ends(BaseCallback):
    """Keeps what episodes gave, and stops after `most` steps."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.most, self.steps = most, 0
        self.ended: list[tuple[int, int, float, int]] = []

    def _on_step(self) -> bool:
        self.steps += 1
        for place, info in enumerate(self.locals["infos"]):
            if "episode" in info:
                self.ended.append((info["instance"], place, float(info["episode"]["r"]), int(info["episode"]["l"])))
        return self.steps < self.most


@pytest.mark.parametrize("normalized", [False, True])
def test_advantage_of_an_action_is_its_episodes_return_above_the_groups_mean(normalized: bool) -> None:
    made = DistillationVecEnv(3, DIVIDED, "loop")
    venv: Any = VecMonitor(made)
    venv = VecNormalize(venv, norm_obs=False) if normalized else venv
    wide = {"policy_kwargs": {"log_std_init": 0.0}, "groups": 2, "n_envs": 3, "batch_size": 4}
    model: Any = build_model("grpo", venv, load_hyperparameters("grpo", "SSDKD/Digits-v2", wide), seed=4)
    try:
        callback = Ends()
        model._setup_learn(1, callback)
        callback.init_callback(model)
        assert model.collect_rollouts(venv, callback, model.rollout_buffer, 0)
        groups = [callback.ended[:3], callback.ended[3:]]
        assert [{instance for instance, *_ in group} for group in groups] == [
            {in_turn(4, number, made.instances).instance} for number in range(2)
        ]
        assert len({length for group in groups for *_, length in group}) > 1, "episodes must be of unequal length"
        wanted = []
        for group in groups:
            returns = {place: total for _, place, total, _ in group}
            lengths = {place: length for _, place, _, length in group}
            mean = np.mean(list(returns.values()))
            wanted += [
                returns[p] - mean for step in range(max(lengths.values())) for p in range(3) if step < lengths[p]
            ]
        buffer = model.rollout_buffer
        assert torch.cat(buffer._advantages).tolist() == pytest.approx(wanted, abs=1e-6)
        assert model.num_timesteps == len(wanted) == sum(length for *_, length in callback.ended)
        (everything,) = buffer.get(10**6)
        _, log_probabilities, _ = model.policy.evaluate_actions(everything.observations, everything.actions)
        torch.testing.assert_close(log_probabilities, everything.old_log_prob)
        assert sorted(everything.advantages.tolist()) == pytest.approx(sorted(wanted), abs=1e-6)
        assert [len(batch.actions) for batch in buffer.get(4)][:-1] == [4] * ((len(wanted) - 1) // 4)
    finally:
        venv.close()


def test_it_finds_better_actions() -> None:
    model = agent(config_of("grpo", n_envs=8, groups=2, batch_size=16, n_epochs=10, learning_rate=0.01))
    first: Any = model.predict(np.array([0.1, -0.2, 0.3], np.float32), deterministic=True)[0]
    model.learn(2 * 8 * STEPS * 25)
    last: Any = model.predict(np.array([0.1, -0.2, 0.3], np.float32), deterministic=True)[0]
    returns = [info["r"] for info in model.ep_info_buffer or ()]
    again = agent(config_of("grpo", n_envs=8, groups=2, batch_size=16)).learn(2 * 8 * STEPS)
    assert np.mean(returns) > np.mean([info["r"] for info in again.ep_info_buffer or ()]) + 0.5
    assert not np.allclose(first, last)


def test_training_stops_when_a_callback_says_so() -> None:
    model = agent(config_of("grpo"))
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    watch = Ends(most=3)
    model.learn(1000, callback=watch)
    assert watch.steps == 3
    assert all(torch.equal(before[name], value) for name, value in model.policy.state_dict().items())


@pytest.mark.parametrize(("name", "value"), [("n_steps", 4), ("gae_lambda", 0.5), ("vf_coef", 0.5)])
def test_what_is_the_critics_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=rf"hyperparameters\['{name}'\]={value}: grpo has none"):
        agent(config_of("grpo", **{name: value}))


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"hyperparameters\['n_envs'\]=1: grpo compares environments"):
        build_model("grpo", environments("grpo", 1), load_hyperparameters("grpo", "SSDKD/Digits-v2"), 0)
