"""Where the time of an environment's step goes: a table of its phases and parts, and a trace for a browser.

Examples:
  python scripts/profile_step.py --trace runs/trace.json
  python scripts/profile_step.py --trace runs/trace-8.json.gz --num-envs 8 --rounds 8 --out runs/profile-8.jsonl

Prints Markdown tables of the seconds of each part without those of the parts inside it, so that they sum to the whole
round, and what the measuring itself costs. Open the trace at https://ui.perfetto.dev or in chrome://tracing. One torch
thread: let the machine do nothing else. On a GPU every part waits for the device, which makes the whole slower than it
is without measuring.

Phases: synthesis; answers (of both networks, to the fresh images); buffer; distillation; refresh (of what the
priorities know of the buffer); observation (report, probe set, reported accuracy); rest.

Parts: generator, teacher, student (forward passes); statistics (of BatchNorm's inputs); loss; backward; optimiser;
augmentation (crop, flip, normalise); sampling (P, w, draws, and gathering what was drawn); comparison (KL, agreement,
confidence); update (who enters and leaves the buffer); report; grouping (weights and batches of several networks put
together and taken apart); other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from laboratory.profiling import (
    Environments,
    check_rounds,
    measure,
    overhead_of,
    rows_of,
    sums_of,
    table_of,
    write_trace,
)
from laboratory.stopwatch import Stopwatch
from ssdkd_agents.commands.command_line import Plugins, as_settings, launch, refuse_existing
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.given import refuse_settings
from ssdkd_agents.environments import use_one_thread
from ssdkd_agents.machine import machine
from ssdkd_agents.runs import append_line, versions
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError


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
    """Rounds that are measured, after one that is not."""
    trace_rounds: int = 1
    """Rounds in the trace, after those."""
    seed: int = 0
    """Of the first environment; the others have the next ones."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Arguments) -> None:
    check(args)
    use_one_thread()
    env_kwargs = args.env.settings()
    refuse_settings(args.env, {"rounds_per_step": "leave it out: rounds are what is measured"})
    marked, plain = (Environments(args.env_id, env_kwargs, args.num_envs, args.seed) for _ in range(2))
    check_rounds(marked.rounds, args.rounds, args.trace_rounds)
    marked.begin(Stopwatch())
    plain.begin()
    measured = list(tqdm(measure(marked, plain, args.rounds), total=args.rounds, unit="round"))
    rows, overhead = rows_of(measured), overhead_of(measured)
    print(f"{table_of(rows)}\n\n{sums_of(rows, 'phase')}\n\n{sums_of(rows, 'part')}\n")
    print(f"A round is a step of {args.num_envs} environment(s). Measured over unmeasured: {overhead}.")
    if marked.device.type == "cuda":
        print("Every part waits for the GPU, so that the whole is slower than without measuring.")
    if args.out is not None:
        for index, one in enumerate(measured):
            append_line(args.out, {"round": index} | one.line())
        settings = as_settings(args)
        summary = {"measured_over_unmeasured": asdict(overhead)}
        append_line(args.out, settings | summary | {"versions": versions(), "machine": machine(marked.device)})
    mebibytes = write_trace(args.trace, marked, args.trace_rounds)
    print(f"{args.trace}: {mebibytes:.1f} MiB, {args.trace_rounds} round(s); open it at https://ui.perfetto.dev")


def check(args: Arguments) -> None:
    """Refuse what cannot be done, before anything is begun."""
    for name, path in (("trace", args.trace), ("out", args.out)):
        if path is not None:
            refuse_existing(name, path)
    if not args.trace.name.endswith((".json", ".json.gz")):
        raise InvalidInputError(f"--trace {args.trace}: expected a name that ends in .json or .json.gz")
    if args.num_envs < 1:
        raise InvalidInputError(f"--num-envs {args.num_envs}: expected at least 1")
    if args.seed < 0:
        raise InvalidInputError(f"--seed {args.seed}: expected a number of at least 0")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
