# /// script
# requires-python = ">=3.10"
# dependencies = ["ssdkd-env", "torch==2.13.0", "rl_zoo3==2.9.2", "requests"]
# ///
"""RL Zoo trains PPO with the hyper-parameters that come with this package, and plays what it has trained.

RL Zoo imports the package by itself and wants the bare id. Its player needs `requests`, which it does not name.
"""

import csv
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import ssdkd_agents

ROUNDS, MEMBERS, STEPS = 4, 2, 8
BUDGET = {"rounds": ROUNDS, "inversion_steps": 1, "student_steps": 1}
HYPERPARAMETERS = Path(ssdkd_agents.__file__).parent / "hyperparameters" / "ppo.yml"
WHICH = ["--algo", "ppo", "--env", "SSDKD/Digits-v2", "--gym-packages", "ssdkd_env"]


def rl_zoo(command: str, *words: str) -> None:
    """Run one of its commands."""
    subprocess.run([sys.executable, "-m", f"rl_zoo3.{command}", *WHICH, *words], check=True)


def train(logs: Path) -> None:
    """Train for some episodes, in two environments."""
    rl_zoo(
        *("train", "--log-folder", str(logs), "--conf-file", str(HYPERPARAMETERS), "--seed", "0"),
        *("--env-kwargs", f"budget:{BUDGET}", "--n-timesteps", str(MEMBERS * STEPS), "--eval-freq", "-1"),
        *("--hyperparams", f"n_envs:{MEMBERS}", f"n_steps:{STEPS}", "batch_size:8"),
    )


def check(logs: Path) -> None:
    """Its monitors have seen whole episodes, which differ between the environments."""
    lines = [path.read_text().splitlines()[1:] for path in logs.rglob("*.monitor.csv")]
    members = [list(csv.DictReader(text)) for text in lines]
    assert [len(episodes) for episodes in members] == [STEPS // ROUNDS] * MEMBERS
    assert all(int(episode["l"]) == ROUNDS for episodes in members for episode in episodes)
    returns = [[float(episode["r"]) for episode in episodes] for episodes in members]
    assert all(math.isfinite(number) for numbers in returns for number in numbers)
    assert returns[0] != returns[1], "both environments have played the same episodes"
    print("returns of each environment:", returns)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder))
        rl_zoo("enjoy", "--folder", folder, "--n-timesteps", str(ROUNDS), "--no-render")
        check(Path(folder))
