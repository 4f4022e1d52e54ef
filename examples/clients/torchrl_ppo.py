# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "torchrl==0.14.1"]
# ///
"""TorchRL trains PPO on a vector environment that leaves the resetting to it (`"Disabled"`).

With `"SameStep"` it resets once more, so that every second episode is lost where all end together, and its own
`GymEnv("SSDKD/Digits-v2", num_envs=2)` gives zeros as the last observation.
"""

import gymnasium
import torch
from tensordict.nn import TensorDictModule
from tensordict.nn.distributions import NormalParamExtractor
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, RewardSum, StepCounter, TransformedEnv
from torchrl.envs.transforms import Compose
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import ssdkd_env  # noqa: F401 (registers the environments)

ROUNDS, MEMBERS, BATCHES = 4, 2, 3
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}

if __name__ == "__main__":
    torch.manual_seed(0)
    envs = gymnasium.make_vec("SSDKD/Digits-v2", MEMBERS, budget=BUDGET, autoreset_mode="Disabled")
    env = TransformedEnv(GymWrapper(envs), Compose(StepCounter(), RewardSum()))
    env.set_seed(0)
    (seen,), (parts,) = envs.single_observation_space.shape, envs.single_action_space.shape
    net = nn.Sequential(nn.Linear(seen, 32), nn.Tanh(), nn.Linear(32, 2 * parts), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=env.action_spec_unbatched,
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(nn.Linear(seen, 32), nn.Tanh(), nn.Linear(32, 1)), in_keys=["observation"])
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    loss = ClipPPOLoss(actor, critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-4)

    size = ROUNDS * MEMBERS
    collector = Collector(env, actor, frames_per_batch=size, total_frames=BATCHES * size)
    returns = []
    for batch in collector:
        advantage(batch)
        losses = loss(batch.reshape(-1))
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
        optimizer.step()
        last = batch["next"][batch["next", "done"].squeeze(-1)]
        assert (last["step_count"] == ROUNDS).all()
        assert last["observation"].any(dim=1).all(), "the last observation is lost"
        returns += last["episode_reward"].flatten().tolist()
    collector.shutdown()

    assert len(returns) == BATCHES * MEMBERS
    assert torch.tensor(returns).isfinite().all()
    print("returns:", [round(each, 3) for each in returns])
