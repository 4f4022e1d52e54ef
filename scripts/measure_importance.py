"""Which entries of the observation carry information for a sampler.

Each entry's values change places between episodes at the same step (those of `progress`: between steps): how much
does the sampler's action change? Then the episodes are played again while a group of entries is shown as it was in
another episode at the same step (`progress`: half an episode away): what does the sampler lose?

Example: python scripts/measure_importance.py --sampler runs/ppo --out runs/importance.jsonl --seeds 20
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from laboratory.importance import (
    PROGRESS,
    Change,
    Recording,
    Replacement,
    answers,
    group_of,
    groups_of,
    permuted_change,
    play,
    scores_of,
)
from laboratory.importance_plots import plot_importance
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean, paired_differences
from ssdkd_agents.benchmarking.experiments import sampler_digest
from ssdkd_agents.commands.command_line import Plugins, as_settings, check_lines_file, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.environments import env_arguments, make_env, use_one_thread
from ssdkd_agents.machine import machine
from ssdkd_agents.playing import PlayedEpisode
from ssdkd_agents.policies.storage import face_of, load_sampler
from ssdkd_agents.runs import append_line, versions
from ssdkd_agents.samplers import Sampler
from ssdkd_agents.seeds import MEASUREMENT_SEED
from tqdm import tqdm

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError

UNDISTURBED = "none"
#: Random observations that a sampler is asked about twice.
TRIED = 32


@dataclass
class Arguments(Plugins):
    """Command line of measure_importance."""

    sampler: str
    """File or run folder of a trained sampler, or a baseline that draws nothing."""
    out: Path
    """JSON-lines file to write; must not exist. A picture goes beside it."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    seeds: int = 20
    """Episodes, each played once undisturbed and once for each group of entries."""
    num_envs: int = 16
    """Episodes side by side."""
    vectorization: str = "auto"
    """How they are stepped: loop, process, grouped or auto."""
    env: EnvOptions = field(default_factory=ENV)
    """Further arguments of the environment."""


def main(args: Arguments) -> None:
    check_lines_file("out", args.out)
    for name, least in (("seeds", 2), ("num_envs", 1)):
        if getattr(args, name) < least:
            raise InvalidInputError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least {least}")
    use_one_thread()
    kwargs = {**face_of(args.sampler), **args.env.settings(), "evaluate_every_rounds": 10**6}
    env = make_env(args.env_id, kwargs)
    if env.rounds_per_step >= env.budget.rounds:
        raise InvalidInputError(
            f"--sampler {args.sampler}: it decides once an episode, so that `progress` has no other value to be given; "
            "measure one with fewer rounds a step"
        )
    sampler = load_sampler(args.sampler, env)
    env.observation_space.seed(0)
    some = np.stack([env.observation_space.sample() for _ in range(TRIED)])
    answers(sampler, env, some[None])  # refuses one that draws, before any episode is played
    pool = SubEnvironments(min(args.num_envs, args.seeds), env_arguments(args.env_id, kwargs), args.vectorization, None)
    print(f"environments: {pool.count}, {pool.choice}")
    try:
        episodes = play_all(pool, sampler, range(MEASUREMENT_SEED, MEASUREMENT_SEED + args.seeds), args.out)
    finally:
        pool.close()
    recording = Recording.of(episodes[UNDISTURBED])
    entries = {name: permuted(env, sampler, recording, [column]) for column, name in enumerate(env.observation_names)}
    groups = {
        name: permuted(env, sampler, recording, columns) for name, columns in groups_of(env.observation_names).items()
    }
    differences = differences_of(episodes)
    for kind, changes in (("entry", entries), ("group", groups)):
        for name, change in changes.items():
            append_line(args.out, {"permuted": name, "kind": kind} | described(change))
    settings = {name: value for name, value in as_settings(args).items() if name != "out"}
    summary = {score: {group: vars(value) for group, value in row.items()} for score, row in differences.items()}
    facts = {"backend": str(pool.choice), "versions": versions(), "machine": machine(env.device)}
    digest = {"sampler_digest": sampler_digest(args.sampler)}
    append_line(args.out, {"settings": settings, **digest, "differences": summary, **facts})
    report(entries, groups, differences, args.out)


def play_all(
    pool: SubEnvironments, sampler: Sampler, seeds: Sequence[int], out: Path
) -> dict[str, list[PlayedEpisode]]:
    """Episodes of the sampler undisturbed, and of each group of entries that is shown from elsewhere."""
    groups = groups_of(pool.first.observation_names)
    episodes: dict[str, list[PlayedEpisode]] = {}
    with tqdm(total=(1 + len(groups)) * len(seeds), unit="episode") as bar:

        def play_one(name: str, replacement: Replacement | None) -> None:
            episodes[name] = []
            for episode in play(pool, sampler, seeds, replacement):
                episodes[name].append(episode)
                scores = {"scores": scores_of(episode), "final": dict(episode.final)}
                append_line(out, {"replaced": name, "seed": episode.seed, **scores})
                bar.update()

        play_one(UNDISTURBED, None)
        recording = Recording.of(episodes[UNDISTURBED])
        for name, columns in groups.items():
            play_one(name, Replacement.of(recording, columns, across_steps=name == PROGRESS))
    return episodes


def permuted(env: SSDKDEnv, sampler: Sampler, recording: Recording, columns: Sequence[int]) -> Change:
    """Change of the action when these entries are permuted; those of `progress` alone across steps."""
    progress = all(group_of(env.observation_names[column]) == PROGRESS for column in columns)
    return permuted_change(sampler, env, recording, columns, across_steps=progress)


def differences_of(episodes: Mapping[str, Sequence[PlayedEpisode]]) -> dict[str, dict[str, Interval]]:
    """Score → group → difference to the undisturbed episodes of the same seeds."""
    by_seed = {name: {episode.seed: scores_of(episode) for episode in played} for name, played in episodes.items()}
    calm = by_seed.pop(UNDISTURBED)
    names = next(iter(calm.values()))

    def difference(disturbed: Mapping[int, Mapping[str, float]], score: str) -> Interval:
        values, reference = ({seed: scores[score] for seed, scores in s.items()} for s in (disturbed, calm))
        return bootstrap_mean(paired_differences(values, reference))

    return {score: {group: difference(disturbed, score) for group, disturbed in by_seed.items()} for score in names}


def described(change: Change) -> dict[str, object]:
    """A change as JSON: its interval, the part that changes most, and the mean of each."""
    part = None if change.most is None else change.names[change.most]
    parts = dict(zip(change.names, change.parts.mean(axis=0).tolist(), strict=True))
    return {"change": vars(bootstrap_mean(change.mean)), "most": part, "parts": parts, "episodes": change.mean.tolist()}


def most_of(change: Change) -> str:
    """The part that changes most, and by how much."""
    if change.most is None:
        return "none"
    return f"{change.names[change.most]}: {bootstrap_mean(change.parts[:, change.most])}"


def report(
    entries: Mapping[str, Change],
    groups: Mapping[str, Change],
    differences: Mapping[str, Mapping[str, Interval]],
    out: Path,
) -> None:
    """Print the tables and draw the picture."""
    discrete = next(iter(entries.values())).discrete
    unit = "share of steps with another choice" if discrete else "change of the action, of 2"
    ranked = sorted(entries, key=lambda name: -float(entries[name].mean.mean()))
    permuted_alone = [[name, str(bootstrap_mean(entries[name].mean)), most_of(entries[name])] for name in ranked]
    print(markdown_table(["entry permuted", unit, "part that changes most"], permuted_alone))
    columns = ["group", f"permuted: {unit}", "part that changes most"]
    columns += [f"from another episode: difference of {score}" for score in differences]
    rows = [
        [name, str(bootstrap_mean(change.mean)), most_of(change), *(str(row[name]) for row in differences.values())]
        for name, change in groups.items()
    ]
    print("\n" + markdown_table(columns, rows))
    shown = {name: (group_of(name), bootstrap_mean(change.mean)) for name, change in entries.items()}
    plot_importance(shown, differences, out.with_suffix(".png"), unit)


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
