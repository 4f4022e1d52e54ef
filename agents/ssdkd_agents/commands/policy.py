"""Draw what samplers do, round by round, in the units of the sampling plan: exponents, β, ρ, or shares of choices.

Lines are means over the episodes of a row, bands their 10–90 %, dashes the paper's sampler. Everything is read from the
actions in the results; nothing is played.

Example: ssdkd results policy --out policy.png --results runs/evaluation/results.jsonl --samplers ppo uniform
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


def main(args: Arguments) -> None:
    """Do what the command line says."""
    results = read_results(args.results, whole=True)
    refuse_imports(args.results, [[line["env_id"], line["env_kwargs"]] for line in results])  # they are made anew
    plot_policy(read_traces(results, args.samplers), args.out)
    print(f"plot: {args.out}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results policy", arguments)
