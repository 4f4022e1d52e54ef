"""How much of what agents win on one set of instances they keep on another, such as one beyond what they trained on.

Examples:
  python scripts/measure_transfer.py --here runs/test/results.jsonl --there runs/far/results.jsonl --against constant

Both files are of ssdkd evaluate with the same rows. Gains are differences from the row of --against, seed by seed. The
last column is the gain there less half of the gain here: where its interval is above 0, more than half is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from laboratory.transfer import Scores, gains, kept
from ssdkd_agents.analysis.comparison import mean_score
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.results import Result, common_score, read_results, rows_of, runs_of, trainings_of
from ssdkd_agents.commands.command_line import Plugins, launch

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.files import write_atomically


@dataclass
class Arguments(Plugins):
    """Command line of measure_transfer."""

    here: Path
    """results.jsonl of the set on which the gain counts as whole."""
    there: Path
    """results.jsonl of the other set."""
    against: str
    """Row that the others are compared with; of one sampler."""
    score: str = "held_out_accuracy"
    """Of every line."""
    out: Path | None = None
    """Markdown file to write, beside printing it."""


def main(args: Arguments) -> None:
    """Read, compare and report."""
    read = [read_results(path) for path in (args.here, args.there)]
    here, there = (_scores(lines, path, args) for lines, path in zip(read, (args.here, args.there), strict=True))
    digests = [{line["sampler"]: line.get("sampler_digest") for line in lines} for lines in read]
    table = []
    for row in (row for row in here if row != args.against and row in there):
        if len(here[row]) == len(there[row]) == 1:  # such as plans, which each set has in a file of its own
            here[row], there[row] = ({row: next(iter(each[row].values()))} for each in (here, there))
        if changed := [run for run in here[row] if digests[0].get(run) != digests[1].get(run, digests[0].get(run))]:
            raise InvalidInputError(
                f"--there {args.there}: {changed[0]} is another agent than under this name in --here; evaluate it anew"
            )
        if set(here[row]) != set(there[row]):
            raise InvalidInputError(
                f"--there {args.there}: row {row!r} has other training runs than --here; give these"
            )
        first, second = (
            gains(scores[row], next(iter(scores[args.against].values())), str(path))
            for scores, path in ((here, args.here), (there, args.there))
        )
        means = [mean_score([dict(enumerate(values)) for values in each.values()]) for each in (first, second)]
        table.append([row, str(len(first)), *map(str, means), str(kept(first, second))])
    columns = ("sampler", "runs", f"− {args.against}, here", f"− {args.against}, there", "there − ½ here")
    text = markdown_table(columns, table)
    print(text)
    if args.out is not None:
        write_atomically(args.out, lambda temporary: temporary.write_text(text + "\n"))


def _scores(lines: Sequence[Result], path: Path, args: Arguments) -> dict[str, Scores]:
    """Row → training run → seed → score of a file.

    Raises:
        InvalidInputError: when a line lacks the score, or the reference is none.
    """
    if common_score(lines, [args.score]) is None:
        raise InvalidInputError(f"--score {args.score}: not every episode of {path} has it")
    rows: dict[str, Scores] = {
        row: dict(zip(dict.fromkeys(trainings_of(own)), runs_of(own, args.score), strict=True))
        for row, own in rows_of(lines).items()
    }
    check_choice("against", args.against, rows)
    if len(rows[args.against]) > 1:
        raise InvalidInputError(f"--against {args.against!r} is several training runs; give a row of one sampler")
    return rows


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
