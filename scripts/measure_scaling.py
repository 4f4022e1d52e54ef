"""What a round's buffer costs as its images, the candidates and the classes grow, with the fitted growth.

Examples:
  python scripts/measure_scaling.py --out runs/scaling.jsonl
  python scripts/measure_scaling.py --out runs/scaling.jsonl --largest 50000

Appends JSON lines to a new file and prints Markdown tables. Times are of one process
with one torch thread: let the machine do nothing else. A buffer of a million images takes 3 GiB of memory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from laboratory.common import about, check_least
from laboratory.scaling import CPU, MOST_LINEAR, check_memory, fit_growth, make_sweeps, measure_point, power, table_of
from ssdkd_agents.analysis.statistics import FEWEST
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import use_one_thread
from ssdkd_agents.lines import append_line
from tqdm import tqdm


@dataclass
class Arguments(Plugins):
    """Seconds and memory over sizes."""

    out: Path
    """JSON-lines file to write; must not exist."""
    largest: int = 1_000_000
    """Images of the largest buffer; the larger ones of 180 to 1,000,000 are left out."""
    repeats: int = 15
    """Rounds that are timed at each size, after one that is not; at least 5, for an interval."""


def main(args: Arguments) -> None:
    """Measure one sweep after another."""
    check_lines_file("out", args.out)
    check_least(args, repeats=FEWEST)
    use_one_thread()
    sweeps = make_sweeps(args.largest)
    check_memory(sweeps)
    faster: list[str] = []
    bending: list[str] = []
    for name, sweep in sweeps.items():
        measured = []
        for point in tqdm(sweep.points, desc=name, unit="size"):
            measured.append({"sweep": name} | measure_point(point, args.repeats))
            append_line(args.out, measured[-1])
        growths = {part: fit_growth({m["point"]["size"]: m["cpu"][part] for m in measured}) for part in sweep.parts}
        for part, growth in growths.items():
            facts = {"sweep": name, "unit": sweep.unit, "part": part, "linear": growth.linear}
            append_line(args.out, facts | asdict(growth))
            if not growth.linear:
                faster.append(f"{part} may grow FASTER than linearly with the {sweep.unit}: {power(growth.exponent)}")
            if growth.last_exponent.low > MOST_LINEAR:
                bending.append(f"{part} with the {sweep.unit}: {power(growth.last_exponent)}")
        print(f"{table_of(sweep, measured, growths)}\n")
    append_line(args.out, about(CPU))
    print(f"Linear: the interval of the exponent over the larger half of the sizes ends at {MOST_LINEAR} or below.")
    print("\n".join(faster) if faster else "Every part grows no faster than linearly.")
    if bending:
        print(f"From the last but one size to the last alone it is more than {MOST_LINEAR}: {'; '.join(bending)}.")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
