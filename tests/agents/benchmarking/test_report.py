"""The table of a benchmark, against independent calculations."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.benchmarking.report import COLUMNS, describe, make_curve_table, make_table, write_report


def line(label: str, seed: int, accuracy: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    """A result line of a benchmark, made up."""
    made: dict[str, Any] = {
        "label": label,
        "env_id": "SSDKD/Digits-v2",
        "sampler": "own",
        "seed": seed,
        "env_kwargs": {"method": "ssdkd"},
        "return": 0.25,
        "final": {"probe_agreement": 0.75, "diverged": False, "synthesized": 1024},
        "curve": {},
        "seconds": {"synthesis": 1.0, "distillation": 2.0, "wall": 4.0},
        "distributions": {"class_counts": [512.0, 512.0], "difficulty": [1024.0] + [0.0] * 9},
        "buffer_images": 180,
        "peak_memory_mib": 450.0,
        "machine": {"cpu": "Some CPU", "cores": 2, "system": "Linux", "device": "cpu", "torch_threads": 1},
        "versions": {"torch": "2.5"},
    }
    if accuracy is not None:
        made["final"]["accuracy"] = accuracy
        made["held_out_accuracy"] = accuracy - 0.125
    for name, value in changes.items():
        (made["final"] if name in made["final"] else made)[name] = value
    return made


def rows(lines: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Rows by entry, cells by column."""
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in make_table(lines).splitlines()]
    assert tuple(cells[0]) == COLUMNS
    assert set(cells[1]) == {"---"}
    assert {len(row) for row in cells} == {len(COLUMNS)}
    return {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in cells[2:]}


def test_where_the_buffer_varies_differences_are_to_the_first_entry_of_its_size() -> None:
    lines = [
        line(f"{name} {scale}", 1, accuracy, env_kwargs={"buffer_scale": scale})
        for name, scale, accuracy in (("a", 0.1, 0.5), ("a", 0.2, 0.625), ("b", 0.1, 0.75), ("b", 0.2, 0.5))
    ]
    cells = [row.strip("|").split(" | ") for row in make_table(lines, scale=True).splitlines()[2:]]
    found = {row[0].strip(): row[COLUMNS.index("held-out − first entry's")].split()[0] for row in cells}
    assert found == {"a 0.1": "–", "a 0.2": "–", "b 0.1": "0.2500", "b 0.2": "-0.1250"}


def test_table_by_hand() -> None:
    lines = [line("first", seed) for seed in (1, 2)]
    lines += [
        line("second", seed, 0.75, peak_memory_mib=memory, seconds={"synthesis": s, "distillation": 3.0, "wall": 9.0})
        for seed, s, memory in ((2, 1.0, 100.0), (1, 9.0, 300.0), (3, 2.04, 200.0))
    ]
    # all but two lines are of a version without this clock
    lines[-2]["seconds"]["processor"], lines[-1]["seconds"]["processor"] = 7.5, 6.5
    assert rows(lines) == {
        "first": {
            "episodes": "2",
            "held-out accuracy": "0.3750 (0.3750, 0.3750)",
            "accuracy": "0.5000 (0.5000, 0.5000)",
            "probe agreement": "0.7500 (0.7500, 0.7500)",
            "held-out − first entry's": "–",
            "synthesis s": "1.0",
            "distillation s": "2.0",
            "wall s": "4.0",
            "processor s": "—",
            "images synthesised": "1024",
            "peak memory MiB": "450",
        },
        "second": {
            "episodes": "3",
            "held-out accuracy": "0.6250 (0.6250, 0.6250, 0.6250)",
            "accuracy": "0.7500 (0.7500, 0.7500, 0.7500)",
            "probe agreement": "0.7500 (0.7500, 0.7500, 0.7500)",
            "held-out − first entry's": "0.2500 (0.2500, 0.2500)",
            "synthesis s": "2.0",
            "distillation s": "3.0",
            "wall s": "9.0",
            "processor s": "7.0",
            "images synthesised": "1024",
            "peak memory MiB": "200",
        },
    }


def test_numbers_agree_with_a_calculation_from_the_json_lines() -> None:
    """Differences are paired: the seeds differ a lot, the entries by about 0.1 on each."""
    first, second = {1: 0.1, 2: 0.9, 3: 0.4, 4: 0.6}, {4: 0.71, 1: 0.2, 3: 0.5, 2: 0.99, 9: 0.0}
    lines = [line("a", seed, value) for seed, value in first.items()]
    lines += [
        line("b", seed, value, probe_agreement=value / 2, synthesized=100 * seed) for seed, value in second.items()
    ]
    row = rows(json.loads(json.dumps(lines)))["b"]
    pairs = [second[seed] - first[seed] for seed in second if seed in first]
    assert row["held-out − first entry's"] == str(bootstrap_mean(pairs))
    assert row["held-out − first entry's"].startswith(f"{fmean(pairs):.4f} (0.1")
    assert row["accuracy"] == str(bootstrap_mean(second.values()))
    assert row["accuracy"].startswith(f"{fmean(second.values()):.4f} ")
    assert row["held-out accuracy"].startswith(f"{fmean(second.values()) - 0.125:.4f} ")
    assert row["probe agreement"].startswith(f"{fmean(second.values()) / 2:.4f} ")
    assert row["images synthesised"] == f"{median(100 * seed for seed in second):.0f}"


def test_what_is_unknown_stays_empty() -> None:
    row = rows([line("a", 1, None), line("b", 1)])["a"]
    assert row["held-out accuracy"] == row["accuracy"] == "–"
    assert rows([line("a", 1, None), line("b", 1)])["b"]["held-out − first entry's"] == "–"
    assert rows([line("a", 1), line("b", 2)])["b"]["held-out − first entry's"] == "–", "no seed in common"


def test_diverged_students_count_and_are_marked() -> None:
    lines = [line("a", 1), line("a", 2, 0.0, diverged=True), line("b", 1)]
    assert rows(lines)["a"]["episodes"] == "2 (1 diverged)"
    assert rows(lines)["a"]["accuracy"].startswith("0.2500 ")
    assert "Students that diverged: 1;" in describe(lines, 3)
    assert "diverged" not in describe(lines[:1], 1)


def test_label_cannot_break_the_table() -> None:
    assert make_table([line("a|b", 1)]).splitlines()[2].startswith("| a\\|b | 1 |")


def test_description_tells_what_is_missing_and_where_it_was_measured() -> None:
    text = describe([line("a", 1)], 8)
    assert text.startswith("1 of 8 episodes, on SSDKD/Digits-v2.")
    assert "Some CPU (2 cores, Linux), device cpu, torch threads 1; torch 2.5." in text
    assert "95 % percentile bootstrap, 10,000 resamples, over the seeds" in text
    mixed = describe([line("a", 1), line("a", 2, versions={"torch": "9"})], 2)
    assert "torch 2.5 and torch 9" in mixed


def test_report_is_a_table_and_pictures(tmp_path: Path) -> None:
    lines = [
        line(label, seed, env_kwargs={"method": "ssdkd", "buffer_scale": 0.1}) for label in "ab" for seed in (1, 2)
    ]
    table = write_report(lines, 4, tmp_path / "plain", scale=False)
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {
        "table.md",
        "accuracy-seconds.png",
        "distributions.png",
    }
    assert (tmp_path / "plain" / "table.md").read_text() == table + "\n"
    assert table == f"{make_table(lines)}\n\n{describe(lines, 4)}"
    write_report(lines, 4, tmp_path / "scale", scale=True)
    assert (tmp_path / "scale" / "scale.png").stat().st_size > 1000


def test_curves_are_read_at_their_quarters() -> None:
    def with_curve(label: str, seed: int, best: float, **more: list[float]) -> dict[str, Any]:
        curve = {"accuracy": [0.0, 0.1, 0.2, 0.3, best], "seconds": [1.0, 2.0, 3.0, 4.0, 5.0 + seed]} | more
        return line(label, seed) | {"curve": curve}

    lines = [with_curve("a", seed, 0.5) for seed in (0, 2)]
    lines.append(with_curve("b", 0, 0.75, processor_seconds=[0.5] * 5, synthesized=[10.0, 20.0, 30.0, 40.0, 50.0]))
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in make_curve_table(lines).splitlines()]
    assert rows[0] == ["entry", "steps", "accuracy", "processor s", "wall s", "images synthesised"]
    assert rows[2] == ["a", "25 %", "0.1000 (0.1000, 0.1000)", "—", "2.0", "—"]
    assert rows[5] == ["a", "100 %", "0.5000 (0.5000, 0.5000)", "—", "6.0", "—"]
    assert rows[9] == ["b", "100 %", "0.7500", "0.5", "5.0", "50.0"]
    assert make_curve_table([line("without", 1)]) == ""
