"""How much there is to be won by deciding, before any agent is trained: simple policies, each searched by CMA-ES.

Examples:
  python scripts/headroom.py --out runs/headroom --env.action division --env.work-scale 1 --env.observation work
  python scripts/headroom.py --out runs/set --oracle --episodes 2400 --plays 24 --env.instances digits-work-train

The second also needs a scheme of actions, such as --env.action division, and an hour or more.

Half of the episodes search one plan from the middle of the box. From there every row goes on with the other half, so
that all have had equally many, on seeds that agents train on; the candidates of a generation share theirs, and the
instances of a set take turns. Then what each has found plays the same held-out seeds and instances, in turn,
beside the paper's sampler, uniform sampling and the middle of the box. Differences are from the best constant plan,
seed by seed, with 95 % bootstrap intervals. There is headroom where one of them is at least 0.01 in held-out accuracy,
with its interval above 0: otherwise no agent can win.

  constant  the best single plan
  oracle    the best constant plan of each instance of a set; they share that half of the episodes
  schedule  the best way from one plan to another
  linear    the best linear policy of the observation; few entries (--env.observation facts) are found in few episodes

Give the same command again to go on: searches and episodes that are there stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from laboratory.common import check_least
from laboratory.decisions import verdict as headroom
from laboratory.folders import run_folder
from ssdkd_agents.analysis.statistics import FEWEST, bootstrap_mean, paired_differences
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episodes
from ssdkd_agents.benchmarking.sampler_report import make_sampler_table
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.executing import SideBySide, executor_of
from ssdkd_agents.environments import instances_of, make_env
from ssdkd_agents.families import FAMILIES
from ssdkd_agents.lines import append_line, read_lines
from ssdkd_agents.progress import progress
from ssdkd_agents.runs import CONSTANT_FILE
from ssdkd_agents.schemas import ResultLine
from ssdkd_agents.searching.search import SearchConfig, config_of_search, search, searcher_of
from ssdkd_agents.seeds import HELD_OUT_SEED

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Executor
from ssdkd_env.files import write_atomically
from ssdkd_env.reading import read_json
from ssdkd_env.tasks.instances import INSTANCE_SETS

#: Whom the others are compared with.
REFERENCE = "constant"
ORACLE = "oracle"
#: Folder of the search that all rows go on from, and the width with which they do.
START, LATER_SIGMA = "start", 0.2
#: Rows that are searched for nothing.
CONTROLS = ("paper", "uniform")
#: Rows that an agent could learn from.
SEARCHED = (*(family for family in FAMILIES if family != REFERENCE), ORACLE)


@dataclass
class Arguments(SideBySide, Plugins):
    """Command line of headroom."""

    out: Path
    """Folder for searches, episodes and table; the same in every call."""
    families: tuple[str, ...] = tuple(FAMILIES)
    """What is searched: constant, schedule, linear."""
    oracle: bool = False
    """Also search each instance of --env.instances alone."""
    episodes: int = 480
    """Of each row, the common search from the middle of the box included."""
    plays: int = 2
    """Episodes of each candidate in a generation; of a set as many as it has instances are best."""
    population: int = 12
    """Candidates of a generation."""
    seeds: int = 30
    """Held-out seeds on which what was found is compared."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Arguments) -> None:
    """Search what is not found yet, play what is not played yet, and report."""
    check_least(args, episodes=2, plays=1, population=4, seeds=2)
    if REFERENCE not in args.families:
        raise InvalidInputError(f"--families {' '.join(args.families)}: expected {REFERENCE} among them")
    kwargs = args.env.settings() | {"evaluate_every_rounds": 10**6}
    alone = _instances(kwargs) if args.oracle else []
    first = args.episodes // 2
    common = SearchConfig(
        env_id=args.env_id,
        searcher="cma",
        env_kwargs=kwargs,
        episodes=first,
        plays=args.plays,
        population=args.population,
    )

    def rows(start: list[float]) -> dict[str, SearchConfig]:
        later = replace(common, episodes=args.episodes - first, start=start, sigma=LATER_SIGMA, seed=1)
        oracle = {
            f"{ORACLE}-{index}": replace(later, env_kwargs=own, plays=1, episodes=later.episodes // len(alone))
            for index, own in enumerate(alone)
        }
        return {family: replace(later, family=family) for family in args.families} | oracle

    for config in (common, *rows([0.0] * len(make_env(args.env_id, kwargs).action_names)).values()):
        searcher_of(config, make_env(config.env_id, config.env_kwargs))  # refuses what cannot be searched
    if not (args.out / START).exists() and (args.out / REFERENCE).exists():
        raise InvalidInputError(f"{args.out} was begun by an earlier version; give another --out")
    with executor_of(args) as executor:
        for row, config in rows(_search(common, args.out / START)).items():
            _search(config, args.out / row)
        _compare(args, kwargs, executor)


def _instances(kwargs: dict[str, Any]) -> list[dict[str, Any]]:
    """Arguments of an environment for each instance of the set, alone."""
    if "instances" not in kwargs:
        raise InvalidInputError("--oracle: the best plan of each instance needs a set; give --env.instances")
    shared = {name: value for name, value in kwargs.items() if name != "instances"}
    return [instance.over(shared) for instance in INSTANCE_SETS.find(kwargs["instances"]).instances]


def _search(config: SearchConfig, path: Path) -> list[float]:
    """Begin a search, or go on with it; what it has found.

    Raises:
        InvalidInputError: when the folder is of another one.
    """
    folder, _ = run_folder(path, config, config_of_search, "search")
    print(f"{path.name}:", flush=True)
    if search(config, folder) == "interrupted":
        raise KeyboardInterrupt
    found: list[float] = read_json(path / CONSTANT_FILE)["action"]
    return found


def _compare(args: Arguments, kwargs: dict[str, Any], executor: Executor) -> None:
    """Play the rows on the held-out seeds, and write the table."""
    path = args.out / "results.jsonl"
    lines = read_lines(path, ResultLine) if path.is_file() else []
    done = {(line["label"], line["seed"]) for line in lines}
    wanted = [(row, config) for row, config in _episodes(args, kwargs) if (row, config.seed) not in done]
    labels = {(config.sampler, config.seed): row for row, config in wanted}
    with progress(len(wanted), "episode") as bar:
        for line in run_episodes([config for _, config in wanted], executor):
            label = labels[line["sampler"], line["seed"]]
            lines.append(line | {"label": label} | ({"sampler": ORACLE} if label == ORACLE else {}))
            append_line(path, lines[-1])
            bar.update(1)
    table = f"{make_sampler_table(lines, against=REFERENCE)}\n\n{verdict(lines)}"
    write_atomically(args.out / "table.md", lambda temporary: temporary.write_text(table + "\n"))
    print(table)


def _episodes(args: Arguments, kwargs: dict[str, Any]) -> Iterator[tuple[str, EpisodeConfig]]:
    """Row and episode of each; the instances of a set take turns."""
    env = make_env(args.env_id, kwargs)
    middle = [0.0] * len(env.action_names)
    samplers = {family: str(args.out / family) for family in args.families}
    samplers |= {name: name for name in CONTROLS} | {"middle of the box": f"constant:{middle}"}
    for seed, instance in enumerate(instances_of(env, args.seeds), HELD_OUT_SEED):
        own = {ORACLE: str(args.out / f"{ORACLE}-{instance}")} if args.oracle else {}
        for row, sampler in (samplers | own).items():
            yield row, EpisodeConfig(args.env_id, sampler, seed, kwargs, instance)


def verdict(lines: Sequence[Mapping[str, Any]]) -> str:
    """Which rows show headroom, in words.

    Args:
        lines: results of episodes, those of `REFERENCE` among them.
    """
    reached: dict[str, dict[int, float]] = {}
    for line in lines:
        if line["label"] not in CONTROLS and "held_out_accuracy" in line:
            reached.setdefault(line["label"], {})[line["seed"]] = line["held_out_accuracy"]
    reference = reached.pop(REFERENCE, {})
    gains = {row: paired_differences(values, reference) for row, values in reached.items() if row in SEARCHED}
    found = {row: bootstrap_mean(values) for row, values in gains.items() if values}
    if not found:
        return "Headroom: not known, without held-out accuracy of anything but the best constant plan."
    said = ", ".join(f"{row} {gain}" for row, gain in found.items())
    if not all(gain.known for gain in found.values()):
        return f"Headroom: not known, on fewer than {FEWEST} seeds; {said}."
    return headroom(found, "the best constant plan")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
