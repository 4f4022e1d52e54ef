"""Draw what samplers do in the course of an episode, in the units of the sampling plan: exponents, β, ρ, or choices.

Examples:
  ssdkd results policy --out policy.png --results runs/evaluation/results.jsonl --samplers ppo uniform
  ssdkd results policy --out by-memory.png --results runs/evaluation/results.jsonl --samplers ppo --by buffer_scale

Lines are means over the episodes of a row, bands their 10–90 %, dashes the paper's sampler. Time is in rounds, or the
share of the work that is spent, where samplers divide it. Everything is read from the results; nothing is played.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.analysis.policy_trace import read_traces
from ssdkd_agents.analysis.results import read_results
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.plotting.policy_plots import plot_policy
from ssdkd_env.registry import refuse_imports


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results policy`."""

    out: Path
    """PNG to write."""
    results: Path
    """results.jsonl of ssdkd evaluate or ssdkd benchmark, or compressed as .jsonl.gz."""
    samplers: tuple[str, ...] = ()
    """Rows to draw, by their group or sampler as in the table; none draws all. The paper's are the dashes."""
    by: str | None = None
    """What the instances of a set differ in, such as buffer_scale: a line for each of its values."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    results = read_results(args.results, whole=True)
    refuse_imports(args.results, [[line["env_id"], line["env_kwargs"]] for line in results])  # they are made anew
    plot_policy(read_traces(results, args.samplers, args.by), args.out)
    print(f"plot: {args.out}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results policy", arguments)
