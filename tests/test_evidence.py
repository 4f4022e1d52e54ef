"""Numbers with an interval, and the tables of the evidence, are what the files of `results/` say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssdkd_agents.archives import read_content
from ssdkd_agents.keeping.portable import portable_lines
from ssdkd_agents.lines import read_lines

from tests.test_documents import DOCUMENTS, RESULTS, ROOT

NUMBER = re.compile(r"[-−]?\d+(?:,\d{3})*(?:\.\d+)?")
TRIPLE = re.compile(rf"({NUMBER.pattern})(?: times)?\*{{0,2}} \[({NUMBER.pattern}), ({NUMBER.pattern})\]")
Row = dict[str, str]


def agrees(shown: str, source: str) -> bool:
    """Whether one number is another one rounded, which may be rounded already."""
    places = [len(text.partition(".")[2]) for text in (shown, source)]
    values = [float(text.replace("−", "-").replace(",", "")) for text in (shown, source)]
    slack = 0.5 * 10 ** -places[0] + (0.5 * 10 ** -places[1] if places[1] > places[0] else 0)
    return places[0] <= places[1] and abs(values[0] - values[1]) <= slack + 1e-9


def tables(text: str) -> Iterator[list[Row]]:
    """The Markdown tables of a document, row by row, without emphasis."""
    for found in re.findall(r"(?:^\|.*\|\n)+", text.replace("**", ""), re.MULTILINE):
        header, _, *rows = (
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in found.splitlines()
        )
        yield [dict(zip(header, row, strict=True)) for row in rows]


def kept(name: str) -> list[list[Row]]:
    """The tables that an experiment left."""
    (path,) = (path for path in (RESULTS / f"{name}.md", RESULTS / f"{name}.txt") if path.exists())
    return list(tables(path.read_text() + "\n"))


def evidence(*columns: str) -> list[Row]:
    """The one table of the evidence with these first columns."""
    found = tables((ROOT / "docs" / "evidence.md").read_text())
    (table,) = (table for table in found if tuple(table[0])[: len(columns)] == columns)
    return table


def assert_cell(shown: str, *source: str) -> None:
    """The numbers of a cell are those of the source's cells, rounded."""
    ours, theirs = NUMBER.findall(shown), [number for cell in source for number in NUMBER.findall(cell)]
    assert len(ours) == len(theirs) and all(map(agrees, ours, theirs)), (shown, source)


#: Of `v1`; its files are those of the commit that the sentence's section names.
OF_EARLIER_VERSIONS = {("0.016", "0.006", "0.027")}
KEPT_TRIPLES = {
    found.groups()
    for path in [*RESULTS.glob("*-*.md"), *RESULTS.glob("*.txt")]
    for found in TRIPLE.finditer(path.read_text())
}
SHOWING = [path for path in DOCUMENTS if path.parent != RESULTS and TRIPLE.search(path.read_text())]


@pytest.mark.parametrize("path", SHOWING, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_number_with_an_interval_is_one_of_a_result_file(path: Path) -> None:
    shown = {found.groups() for found in TRIPLE.finditer(path.read_text())} - OF_EARLIER_VERSIONS
    unknown = [triple for triple in shown if not any(all(map(agrees, triple, known)) for known in KEPT_TRIPLES)]
    assert not unknown


def test_the_table_of_plans() -> None:
    first, second = kept("digits-plans-exponents")
    source = {row[""]: row for row in second}
    names = (
        "share of the accuracy's variance between plans",
        *(f"rank correlation of plan means, {reward}" for reward in ("probe_agreement", "probe_discrepancy")),
        "rank correlation of plan means, candidate_agreement",
    )
    rows = evidence("", "all plans")
    assert len(first) == 25
    for row, name in zip(rows, names, strict=True):
        assert_cell(row["all plans"], source[name]["all plans"])
        assert_cell(row["the better half of the plans alone"], source[name]["better half"])


def test_the_table_of_headroom() -> None:
    names = ("paper", "uniform", "class_balanced", "constant:[0,0,0,0,0,0,0,0]", "cma")
    accuracy, returns = ({row["sampler"]: row for row in table} for table in kept("digits-headroom"))
    for row, name in zip(evidence("sampler", "held-out accuracy, mean"), names, strict=True):
        assert_cell(row["held-out accuracy, mean"], accuracy[name]["mean"])
        assert_cell(row["return, mean"], returns[name]["mean"])
        assert_cell(row["P, held-out accuracy"], accuracy[name]["P, all pairs"])
        both = [text for column, text in row.items() if "same seeds" in column]
        assert len(both) == 1, "columns of one name would hide one another"


def test_the_table_of_divisions() -> None:
    accuracy, returns = ({row["sampler"]: row for row in table} for table in kept("digits-headroom-division"))
    names = ("constant", "schedule", "linear", "paper", "uniform")
    for row, name in zip(evidence("policy", "numbers"), names, strict=True):
        assert_cell(row["held-out accuracy, mean"], accuracy[name]["mean"])
        assert_cell(row["− constant, same seeds"], accuracy[name]["− constant"])
        assert_cell(row["return, mean"], returns[name]["mean"])
    for name, steps in (("constant", (7, 44)), ("schedule", (6, 43, 6, 23))):
        found = json.loads((RESULTS / f"digits-headroom-division-{name}.json").read_text())["action"]
        assert tuple(round(own * 8**part) for own, part in zip((10, 22) * 2, found, strict=False)) == steps


def test_the_table_of_the_ablation() -> None:
    (source,) = kept("digits-ablation")
    rows = evidence("entry", "held-out accuracy", "− SSD-KD")
    assert [row["entry"] for row in rows] == [row["entry"] for row in source]
    for row, theirs in zip(rows, source, strict=True):
        assert_cell(row["held-out accuracy"], theirs["held-out accuracy"])
        assert_cell(row["− SSD-KD"], theirs["held-out − first entry's"])
        assert_cell(row["probe agreement"], theirs["probe agreement"])


def test_the_tables_of_cifar() -> None:
    (source,) = kept("cifar10-jpeg-cpu")
    whole = dict(zip(("SSD-KD", "SSD-KD, uniform sampling", "Fast-5"), source, strict=True))
    for row in evidence("entry", "images kept", "accuracy"):
        theirs = whole[row["entry"]]
        assert_cell(row["accuracy"], theirs["held-out accuracy"])
        assert_cell(row["− SSD-KD"], theirs["held-out − first entry's"])
        seeds = [
            line["held_out_accuracy"]
            for line in read_lines(RESULTS / "cifar10-jpeg-cpu.jsonl.gz")
            if line["label"] == theirs["entry"]
        ]
        assert all(map(agrees, row["seed by seed"].split(), map(str, seeds)))
    (curves,) = tables((RESULTS / "cifar10-jpeg-cpu-curves.md").read_text() + "\n")
    for row in evidence("entry", "8,448 images"):
        quarters = [each for each in curves if each["entry"] == whole[row["entry"]]["entry"]]
        for column, quarter in zip(("8,448 images", "13,056", "17,664", "22,272"), quarters, strict=True):
            assert_cell(row[column], quarter["accuracy"])
        assert_cell(row["processor seconds to there"], *(quarter["processor s"] for quarter in quarters))


def test_the_parts_on_cifar() -> None:
    lines = read_lines(RESULTS / "cifar10-jpeg-parts.jsonl.gz")
    rows = evidence("part", "images kept", "seed by seed")
    assert {row["part"] for row in rows} == {line["label"] for line in lines}
    for row in rows:
        own = sorted((line["seed"], line["held_out_accuracy"]) for line in lines if line["label"] == row["part"])
        assert len(row["seed by seed"].split()) == len(own)
        assert all(map(agrees, row["seed by seed"].split(), (str(accuracy) for _, accuracy in own)))


def test_the_differences_of_the_parts_on_cifar() -> None:
    scores: dict[str, dict[int, float]] = {}
    for name in ("cifar10-jpeg-cpu", "cifar10-jpeg-parts"):
        for line in read_lines(RESULTS / f"{name}.jsonl.gz"):
            scores.setdefault(line["label"], {})[line["seed"]] = line["held_out_accuracy"]
    text, readme = ((ROOT / page).read_text() for page in ("docs/evidence.md", "README.md"))
    for better, worse in (
        ("Fast-5", "SSD-KD, uniform, all images kept"),
        ("Fast-5", "Fast-5, small buffer"),
        ("SSD-KD", "weights by maximum"),
        ("Fast-10", "Fast-5"),
        ("SSD-KD", "NAYER, small buffer"),
    ):
        seeds = sorted(scores[better].keys() & scores[worse].keys())
        shown = ", ".join(f"{scores[better][seed] - scores[worse][seed]:.3f}" for seed in seeds)
        assert len(seeds) == 3 and shown in text, (better, worse, shown)
        assert better != "Fast-5" or shown in readme


def test_the_table_of_methods() -> None:
    (source,) = kept("digits-methods")
    entries = {row["entry"]: row for row in source}
    for row in evidence("method", "held-out accuracy"):
        label = re.sub(r" \(.*\)$", "", row["method"])
        names = ["KD on all real images"] if label.startswith("KD on") else label.split(", ")
        names = [name for name in names if name in entries]
        assert names, row
        assert_cell(row["held-out accuracy"], *(entries[name]["held-out accuracy"] for name in names))
        for shown, column in (("synthesis s", "synthesis s"), ("episode s", "wall s")):
            limits = NUMBER.findall(row[shown].replace("–", " "))
            values = [float(entries[name][column]) for name in names]
            if len(limits) == 1 and len(names) == 1:
                assert_cell(limits[0], entries[names[0]][column])
            elif limits:
                assert float(limits[0]) - 0.5 <= min(values) and max(values) <= float(limits[-1]) + 0.5, row


def test_the_table_of_many_environments() -> None:
    source = {
        (row["environments"], row["way"]): row
        for name in ("digits-runs", "digits-runs-64")
        for table in kept(name)
        for row in table
    }
    compared = 0
    for row in evidence("environments", "one after another"):
        for way in ("one after another", "grouped", "2 processes", "grouped in 2 processes"):
            if not row[way]:
                continue
            theirs = source[row["environments"], way]
            speed = NUMBER.findall(theirs["steps/s in all"])[0]
            assert_cell(row[way], speed, *([] if way == "one after another" else [theirs["over one after another"]]))
            compared += 1
    assert compared == len(source)


def test_the_table_beside_fast_datafree() -> None:
    source = {(row["pool"], row["side"]): row for row in kept("fast-datafree")[-1]}
    shown = evidence("images in the pool")
    assert {(row["images in the pool"], row["side"]) for row in shown} == set(source)
    for row in shown:
        theirs = source[row["images in the pool"], row["side"]]
        assert_cell(row["seconds a round"], theirs["seconds a round"])
        for column in ("over ours, auto", "over ours, float32"):
            if theirs[column]:
                assert_cell(row[column], theirs[column])
            else:
                assert not row[column]


def test_kept_lines_name_no_path_of_one_machine() -> None:
    for path in RESULTS.glob("*.jsonl.gz"):
        portable_lines(read_content(path), path, Path("none"))
