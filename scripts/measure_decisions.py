"""How much there is to be won on a set of instances by dividing the work: one designed experiment, no search.

Examples:
  python scripts/measure_decisions.py --out runs/decisions --env.instances digits-work-train --env.action division
  python scripts/measure_decisions.py --out runs/decisions --env.instances digits-work-train --also digits-work-far

Every plan of a grid over the actions is played on every instance from the same few seeds that agents train on. From
these episodes follow, by their returns alone:

  constant  the plan that is best on average
  facts     the linear policy of buffer, work and warm-up, which an instance shows before its first step
  oracle    the best plan of each instance

They are then played on held-out seeds beside the method's own division (middle), every instance equally often, and on
the sets of --also, where no oracle is known. Differences are from the constant plan, with 95 % bootstrap intervals over
the seeds. There is headroom where one is at least 0.01 in held-out accuracy, with its interval above 0.

Give the same command again to go on: what is there stays. Writes design.jsonl, results.jsonl, table.md, a picture, and
in plans/SET/ROW what ssdkd evaluate takes for a sampler; with --seeds 0 that is all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from laboratory.common import about, begun_with, check_least
from laboratory.decisions import (
    CONSTANT,
    FACTS,
    MIDDLE,
    ORACLE,
    Plan,
    Surfaces,
    Wanted,
    by_seed,
    facts_of,
    levels,
    plan_of,
    play,
    surfaces,
    verdict,
)
from laboratory.plots import plot_surfaces
from ssdkd_agents.analysis.markdown import EMPTY, markdown_table
from ssdkd_agents.analysis.statistics import bootstrap_mean, paired_differences
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.environments import env_arguments, make_env, use_one_thread
from ssdkd_agents.lines import append_line, read_lines
from ssdkd_agents.progress import progress
from ssdkd_agents.runs import CONSTANT_FILE
from ssdkd_agents.samplers import PER_INSTANCE
from ssdkd_agents.seeds import HELD_OUT_SEED

from ssdkd_env.envs.sub_environments import SubEnvironments, usable_cores
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically, write_json
from ssdkd_env.tasks.instances import INSTANCE_SETS, Instance

#: Rows that show it.
SHOWING = (FACTS, ORACLE)
#: What is read of an episode.
SCORES = ("return", "held_out_accuracy", "rounds")
#: Parts of an action of which a grid is not too large.
MOST_PARTS = 3


@dataclass
class Arguments(Plugins):
    """Command line of measure_decisions."""

    out: Path
    """Folder; the same in every call."""
    levels: int = 5
    """Values of each part of an action."""
    plays: int = 4
    """Seeds from which each plan is played on each instance."""
    seeds: int = 30
    """Held-out seeds; 0 for the design alone."""
    also: tuple[str, ...] = ()
    """Further sets of instances on which what was found is compared."""
    num_envs: int = 16
    """Environments side by side."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment; --env.instances and --env.action among them."""


def main(args: Arguments) -> None:
    """Play what is not played yet, and report."""
    check_least(args, levels=2, plays=1, seeds=0, num_envs=1)
    use_one_thread()
    if args.seeds == 1:
        raise InvalidInputError("--seeds 1: expected 0, for the design alone, or at least 2")
    kwargs = args.env.settings() | {"evaluate_every_rounds": 10**6}
    plans = levels(_parts(args, kwargs), args.levels)
    sets = {name: INSTANCE_SETS.find(name).instances for name in (kwargs["instances"], *args.also)}
    _check_same(args, kwargs)
    own, *_ = sets.values()
    design = [Wanted(*each) for each in product(plans, range(len(own)), range(args.plays))]
    surface = surfaces(plans, len(own), [*_played(args, kwargs, design, args.out / "design.jsonl").values()])
    policy = surface.of_facts(np.array([facts_of(each) for each in own]))
    tables = []
    for name, instances in sets.items():
        rows = _rows(surface.constant(), policy, instances)
        if instances is own:
            rows[ORACLE] = surface.oracle()
        _write(args, kwargs | {"instances": name}, rows, args.out / "plans" / name.replace(":", "-"))
        if args.seeds:
            tables.append(f"`{name}`\n\n{_compare(args, kwargs | {'instances': name}, rows)}")
    text = "\n\n".join([*tables, _plans_table(own, surface, policy)])
    if tables:  # of a design alone there is none, and that of an earlier call stays
        write_atomically(args.out / "table.md", lambda temporary: temporary.write_text(text + "\n"))
    if surface.plans.shape[1] == 2:
        told = [plan_of(policy, facts_of(each)) for each in own]
        plot_surfaces(args.out / "plans.png", surface, [_named(each) for each in own], told)
    print(text)


def _parts(args: Arguments, kwargs: dict[str, Any]) -> int:
    """Parts of an action.

    Raises:
        InvalidInputError: when there is no set, or the actions are no box of few parts.
    """
    if "instances" not in kwargs:
        raise InvalidInputError("--env.instances: none given; name a set, such as digits-work-train")
    space = make_env(args.env_id, kwargs).action_space
    if not isinstance(space, spaces.Box) or space.shape[0] > MOST_PARTS:
        raise InvalidInputError(
            f"--env.action: {space} has no grid of plans; choose one of at most {MOST_PARTS} numbers, such as division"
        )
    return int(space.shape[0])


def _check_same(args: Arguments, kwargs: dict[str, Any]) -> None:
    """Keep what the first call asked for, and refuse another.

    Raises:
        InvalidInputError: when it asks for something else.
    """
    asked = {"env_id": args.env_id, "env_kwargs": kwargs, "levels": args.levels, "plays": args.plays}
    if begun_with(args.out / "config.json", asked, about(make_env(args.env_id, kwargs).device)):
        raise InvalidInputError(f"{args.out} was begun with other settings; give them again, or another --out")


def _rows(constant: Plan, policy: Any, instances: Sequence[Instance]) -> dict[str, list[Plan]]:
    """Row → plan of each instance."""
    same = {MIDDLE: (0.0,) * len(constant), CONSTANT: constant}
    rows = {row: [plan] * len(instances) for row, plan in same.items()}
    return rows | {FACTS: [plan_of(policy, facts_of(each)) for each in instances]}


def _write(args: Arguments, kwargs: dict[str, Any], rows: Mapping[str, Sequence[Plan]], folder: Path) -> None:
    """Leave what each instance gets as samplers, a row a folder, in the manner of searches."""
    names = list(make_env(args.env_id, kwargs).action_names)
    shared = {"family": PER_INSTANCE, "action_names": names, "env_id": args.env_id, "env_kwargs": kwargs}
    for row, plans in rows.items():
        (folder / row).mkdir(parents=True, exist_ok=True)
        write_json(folder / row / CONSTANT_FILE, shared | {"action": [number for plan in plans for number in plan]})


def _compare(args: Arguments, kwargs: dict[str, Any], rows: Mapping[str, list[Plan]]) -> str:
    """Play the rows on the held-out seeds; their table, and whether there is headroom."""
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + args.seeds)
    # Rows share the episodes in which they do the same.
    wanted = {
        Wanted(plan, index, seed) for plans in rows.values() for index, plan in enumerate(plans) for seed in seeds
    }
    lines = _played(args, kwargs, sorted(wanted), args.out / "results.jsonl")
    scores = {row: {name: by_seed(plans, lines, seeds, name) for name in SCORES} for row, plans in rows.items()}
    accuracies = {row: values["held_out_accuracy"] for row, values in scores.items()}
    gains = {row: bootstrap_mean(paired_differences(own, accuracies[CONSTANT])) for row, own in accuracies.items()}
    table = [
        [
            row,
            str(bootstrap_mean(values["return"].values())),
            str(bootstrap_mean(values["held_out_accuracy"].values())),
            EMPTY if row == CONSTANT else str(gains[row]),
            f"{np.mean([*values['rounds'].values()]):.1f}",
        ]
        for row, values in scores.items()
    ]
    columns = ["row", "return", "held-out accuracy", "− constant", "rounds"]
    said = verdict({row: gains[row] for row in gains if row in SHOWING}, "the constant plan")
    return f"{markdown_table(columns, table)}\n\n{said}"


def _played(
    args: Arguments, kwargs: dict[str, Any], wanted: Sequence[Wanted], path: Path
) -> dict[Wanted, dict[str, Any]]:
    """The lines of the episodes that are wanted of a set; what is missing is played first."""
    lines = read_lines(path) if path.is_file() else []
    done = {_wanted(line): line for line in lines if line["instances"] == kwargs["instances"]}
    if missing := [each for each in wanted if each not in done]:
        count = min(args.num_envs, len(missing))
        arguments = env_arguments(args.env_id, kwargs)
        pool = SubEnvironments(count, arguments, "grouped", min(usable_cores(), count))
        with closing(pool), progress(len(missing), "episode") as bar:
            print(f"{kwargs['instances']}: {len(missing)} episodes, {pool.choice}", flush=True)
            for line in play(pool, missing):
                append_line(path, line | {"instances": kwargs["instances"]})
                done[_wanted(line)] = line
                bar.update(1)
    return {each: done[each] for each in wanted}


def _wanted(line: Mapping[str, Any]) -> Wanted:
    return Wanted(tuple(line["plan"]), line["instance"], line["seed"])


def _named(instance: Instance) -> str:
    teacher = Path(instance.teacher or "digits_teacher").stem.removeprefix("digits_teacher").strip("_") or "own"
    made = f"{instance.buffer_scale:.1%}, work × {instance.work_scale:g}"
    warm_up = f", warm-up {count}" if (count := instance.budget.get("warmup_rounds")) else ""
    return f"{made}{warm_up}, {teacher}, {instance.student_arch}"


def _plans_table(instances: Sequence[Instance], surface: Surfaces, policy: Any) -> str:
    """What each row does on each instance."""

    def rows() -> Iterator[list[str]]:
        for each, best in zip(instances, surface.oracle(), strict=True):
            shown = (surface.constant(), plan_of(policy, facts_of(each)), best)
            yield [_named(each), *(" ".join(f"{part:.2f}" for part in plan) for plan in shown)]

    return markdown_table(["instance", CONSTANT, FACTS, ORACLE], rows())


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
