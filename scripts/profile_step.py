"""Where the time of an environment's step goes: a table of its phases and parts, and a trace for a browser.

Examples:
  python scripts/profile_step.py --trace runs/trace.json
  python scripts/profile_step.py --trace runs/trace-8.json.gz --num-envs 8 --rounds 8 --out runs/profile-8.jsonl

Prints Markdown tables of the seconds of each part without those of the parts inside it, so that they sum to the whole
round, and what PyTorch's profiler itself costs. Open the trace at https://ui.perfetto.dev or in chrome://tracing. One
torch thread: let the machine do nothing else. On a GPU every part waits for the device, which makes the whole slower
than it is without measuring.

Phases: synthesis; logits (of both networks: for fresh images, the buffer, the probe set and real images); comparison
(KL, agreement, confidence, class shares); buffer (who enters and leaves); sampling (P, w, draws); training;
observation (report and observation); rest.

Parts: generator, teacher, student (forward passes); statistics (of BatchNorm's inputs); loss; backward; optimiser;
augmentation (crop, flip, normalise); gather (of what was drawn); grouping (weights and batches of several networks
put together and taken apart); other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from laboratory.common import Environments, about, check_least
from laboratory.profiling import begin, measure, profiled, rows_of, sums_of, table_of
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.commands.command_line import Plugins, as_settings, launch, refuse_existing
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.given import refuse_settings
from ssdkd_agents.environments import env_arguments, use_one_thread
from ssdkd_agents.lines import append_line
from ssdkd_agents.machine import MIB
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically


@dataclass
class Arguments(Plugins):
    """Command line of profile_step."""

    trace: Path
    """Trace file to write, .json or .json.gz; must not exist."""
    out: Path | None = None
    """JSON-lines file to write the numbers to as well; must not exist."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    num_envs: int = 1
    """Environments side by side; equal work of several is done together (the backend grouped)."""
    rounds: int = 4
    """Rounds that are measured, after one that is not; the trace has the next one."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Arguments) -> None:
    """Measure, print and write."""
    for name, path in (("trace", args.trace), ("out", args.out)):
        if path is not None:
            refuse_existing(name, path)
    if not args.trace.name.endswith((".json", ".json.gz")):
        raise InvalidInputError(f"--trace {args.trace}: expected a name that ends in .json or .json.gz")
    check_least(args, num_envs=1, rounds=1)
    use_one_thread()
    refuse_settings(args.env, {"rounds_per_step": "leave it out: rounds are what is measured"})
    kwargs, backend = env_arguments(args.env_id, args.env.settings()), "grouped" if args.num_envs > 1 else "loop"
    marked, plain = (Environments(kwargs, args.num_envs, backend, 1) for _ in range(2))
    if (needed := 1 + args.rounds + 1) > marked.rounds:
        raise InvalidInputError(
            f"--rounds {args.rounds}: with one before and one after them more than the budget's {marked.rounds}; "
            f"give fewer, or --env.budget.rounds {needed}"
        )
    begin(marked)
    begin(plain)
    measured = list(tqdm(measure(marked, plain, args.rounds), total=args.rounds, unit="round"))
    rows, overhead = rows_of(measured), bootstrap_mean(one["wall"] / one["bare"] for one in measured)
    print(f"{table_of(rows)}\n\n{sums_of(rows, 'phase')}\n\n{sums_of(rows, 'part')}\n")
    print(f"A round is a step of {args.num_envs} environment(s). Measured over unmeasured: {overhead}.")
    if marked.device.type == "cuda":
        print("Every part waits for the GPU, so that the whole is slower than without measuring.")
    if args.out is not None:
        for index, one in enumerate(measured):
            append_line(args.out, {"round": index} | one)
        append_line(args.out, as_settings(args) | {"measured_over_unmeasured": vars(overhead)} | about(marked.device))
    profiler = profiled(marked)
    write_atomically(args.trace, lambda temporary: profiler.export_chrome_trace(str(temporary)))
    print(f"{args.trace}: {args.trace.stat().st_size / MIB:.1f} MiB; open it at https://ui.perfetto.dev")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
