"""Whether two threads of one process play the episodes that one thread plays, to the last bit.

Examples:
  python scripts/measure_threads.py --out runs/threads.jsonl
  python scripts/measure_threads.py --out runs/threads.jsonl --episodes 400

Each thread steps an environment of its own on the CPU, with random actions and a budget of three small rounds. Compared
are all observations, rewards and infos, and the weights of the student at the end. Appends a JSON line for each episode
to a new file; exit code 1 where an episode is another one, or ended in an error.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from laboratory.common import about, check_least
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import make_env, use_one_thread
from ssdkd_agents.lines import append_line
from ssdkd_agents.seeds import MEASUREMENT_SEED
from tqdm import tqdm

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import one_line

#: An episode of a fifth of a second.
BUDGET = {
    "rounds": 3,
    "warmup_rounds": 1,
    "candidates": 16,
    "inversion_steps": 2,
    "student_steps": 3,
    "batch_size": 16,
}
THREADS = 2
#: Seconds until the interpreter lets another thread go on, a hundredth of the usual ones, so that they meet more often.
HASTE = 5e-5


@dataclass
class Arguments(Plugins):
    """Two threads against one."""

    out: Path
    """JSON-lines file to write; must not exist."""
    episodes: int = 40
    """Episodes of each thread."""


def main(args: Arguments) -> None:
    """Play all episodes in threads, then one after the other, and count those that are the same."""
    check_lines_file("out", args.out)
    check_least(args, episodes=1)
    use_one_thread()
    shares = [
        range(MEASUREMENT_SEED + thread, MEASUREMENT_SEED + THREADS * args.episodes, THREADS)
        for thread in range(THREADS)
    ]
    usual = sys.getswitchinterval()
    with tqdm(total=2 * THREADS * args.episodes, unit="episode") as bar:
        sys.setswitchinterval(HASTE)
        try:
            with ThreadPoolExecutor(THREADS) as pool:  # first, so that the threads also load teacher and probe set
                together = list(pool.map(partial(play_share, bar=bar), shares))
        finally:
            sys.setswitchinterval(usual)
        alone = [play_share(share, bar) for share in shares]
    same = 0
    for thread, share in enumerate(shares):
        for seed, first, second in zip(share, alone[thread], together[thread], strict=True):
            identical = first == second and "error" not in first
            append_line(
                args.out, {"thread": thread, "seed": seed, "identical": identical, "alone": first, "in_threads": second}
            )
            same += identical
    append_line(args.out, about(torch.device("cpu")))
    count = THREADS * args.episodes
    print(f"{same} of {count} episodes in {THREADS} threads are those of one thread, to the last bit.")
    if same < count:
        sys.exit(1)


def play_share(seeds: Sequence[int], bar: tqdm[Any]) -> list[dict[str, str]]:
    """The episodes of one environment: of each `sha256` of what it gave, or the `error` in which it ended."""
    env = make_env("SSDKD/Digits-v2", {"budget": BUDGET, "device": "cpu"})
    played = []
    for seed in seeds:
        try:
            played.append({"sha256": play(env, seed)})
        except (
            Exception
        ) as error:  # whatever it is: threads that disturb each other raise anything, and it is written down
            played.append({"error": f"{type(error).__name__}: {one_line(error)}"})
        bar.update()
    return played


def play(env: SSDKDEnv, seed: int) -> str:
    """Hash of all that an episode gave: observations, rewards, infos, and the student's weights and statistics."""
    random = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    digest = hashlib.sha256(observation.tobytes() + repr(info).encode())
    terminated = False
    while not terminated:
        action = random.uniform(-1.0, 1.0, len(env.action_names)).astype(np.float32)
        observation, reward, terminated, _, info = env.step(action)
        digest.update(observation.tobytes() + repr((reward, info)).encode())
    assert env.run is not None
    for tensor in env.run.student.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
