"""Experiments as pure functions: a JSON-able config in, a result line out, nothing shared between episodes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from agents.environments import make_env, start_worker
from agents.runs import versions
from agents.statistics import bootstrap_mean
from agents.storage import load_sampler
from ssdkd_env.errors import InvalidInputError

#: Seeds from here on are for evaluation; training draws its seeds below.
HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True)
class EpisodeConfig:
    """One episode of one sampler.

    Attributes:
        env_id: registered id.
        sampler: control by name, or path of a trained sampler.
        seed: of the episode.
        env_kwargs: JSON-able arguments of the environment.
    """

    env_id: str
    sampler: str
    seed: int
    env_kwargs: dict[str, Any] = field(default_factory=dict)


def validate(configs: Sequence[EpisodeConfig]) -> None:
    """Make every environment and sampler once, so that bad input is refused before the first episode is played.

    Raises:
        InvalidInputError: for an unknown environment id, argument or sampler.
    """
    if not configs:
        raise InvalidInputError("samplers: none given; name at least one, such as paper")
    for config in configs:
        if config.seed < 0:
            raise InvalidInputError(f"seed={config.seed}: expected a number of at least 0")
    seen: dict[str, EpisodeConfig] = {f"{c.env_id} {c.env_kwargs} {c.sampler}": c for c in configs}
    for config in seen.values():
        env = make_env(config.env_id, config.env_kwargs)
        load_sampler(config.sampler, env, config.seed)


def run_episode(config: EpisodeConfig) -> dict[str, Any]:
    """Play one episode and describe it: return, final info, action trace, wall seconds, versions."""
    env = make_env(config.env_id, config.env_kwargs)
    sampler = load_sampler(config.sampler, env, config.seed)
    started = time.perf_counter()
    observation, info = env.reset(seed=config.seed)
    state, start = None, np.ones(1, dtype=bool)
    rewards: list[float] = []
    actions: list[list[float]] = []
    finished = False
    while not finished:
        action, state = sampler.predict(observation, state, start, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        actions.append([float(part) for part in action])
        start, finished = np.zeros(1, dtype=bool), terminated or truncated
    seconds = time.perf_counter() - started
    env.close()
    return asdict(config) | {
        "return": sum(rewards),
        "final": info,
        "actions": actions,
        "seconds": seconds,
        "versions": versions(),
    }


def run_episodes(configs: Sequence[EpisodeConfig], processes: int) -> Iterator[dict[str, Any]]:
    """Play episodes, in this process or side by side in `processes` of one torch thread each.

    Yields:
        Result lines, in the order of `configs`.
    """
    if processes <= 1:
        yield from map(run_episode, configs)
        return
    # Spawned, because a forked process inherits torch's thread pools in an unknown state.
    with multiprocessing.get_context("spawn").Pool(processes, initializer=start_worker) as pool:
        yield from pool.imap(run_episode, configs)


def summarize(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: return, accuracy on real data and seconds of each sampler, with 95 % intervals over seeds.

    The last column compares with the paper's sampler on the same seeds (paired differences of the return).
    """
    samplers = list(dict.fromkeys(result["sampler"] for result in results))
    by_seed = {(result["sampler"], result["seed"]): result for result in results}
    lines = [
        "| sampler | episodes | return | accuracy on real data | return − paper's, same seeds | s/episode |",
        "|---|---|---|---|---|---|",
    ]
    for sampler in samplers:
        own = [result for result in results if result["sampler"] == sampler]
        accuracies = [result["final"]["accuracy"] for result in own if "accuracy" in result["final"]]
        differences = [
            result["return"] - by_seed["paper", result["seed"]]["return"]
            for result in own
            if sampler != "paper" and ("paper", result["seed"]) in by_seed
        ]
        cells = [
            sampler,
            str(len(own)),
            str(bootstrap_mean(result["return"] for result in own)),
            str(bootstrap_mean(accuracies)) if accuracies else "–",
            str(bootstrap_mean(differences)) if differences else "–",
            f"{np.median([result['seconds'] for result in own]):.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
