"""A store has the lines as they were, and gives the tables that the lines give."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from ssdkd_agents.analysis.results import read_results
from ssdkd_agents.analysis.store import BATCH, read_store, read_whole, write_lines, write_store
from ssdkd_agents.analysis.training_curves import best_constant
from ssdkd_agents.archives import MOST_LINE
from ssdkd_agents.benchmarking.leaderboard import make_leaderboard
from ssdkd_agents.benchmarking.sampler_report import make_sampler_table
from ssdkd_agents.lines import append_line, read_lines

from ssdkd_env.errors import InvalidInputError
from tests.agents.test_schemas import LINE
from tests.scripts.commands import assert_refused, in_this_process

RESULTS = Path(__file__).parents[3] / "results"
#: Of several versions: with and without held-out accuracy, groups, digests and files.
KEPT = ("digits-ablation", "digits-headroom", "cifar10-jpeg-cpu", "digits-scale")


@pytest.mark.parametrize("name", KEPT)
def test_tables_of_a_store_are_those_of_its_lines(name: str, tmp_path: Path) -> None:
    source, store = RESULTS / f"{name}.jsonl.gz", tmp_path / "campaign.parquet"
    lines = read_results(source)
    assert write_store([source], store) == len(lines)
    stored = read_results(store)
    assert make_leaderboard({"x": stored}) == make_leaderboard({"x": lines})
    assert best_constant(stored, "return") == best_constant(lines, "return")
    row = str(lines[0].get("label", lines[0]["sampler"]))
    assert make_sampler_table(stored, row) == make_sampler_table(lines, row)
    assert list(read_whole(store)) == read_lines(source)
    assert read_results(store, whole=True) == lines


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_lines_come_out_as_they_went_in(ending: str, tmp_path: Path) -> None:
    source, store, out = tmp_path / "a.jsonl", tmp_path / "a.parquet", tmp_path / f"b.{ending}"
    for seed in range(3):
        append_line(source, LINE | {"seed": seed, "label": "ü ≥"})
    write_store([source, RESULTS / "digits-ablation.jsonl.gz"], store)
    content = source.read_bytes() + gzip.decompress((RESULTS / "digits-ablation.jsonl.gz").read_bytes())
    assert write_lines(store, out) == content.count(b"\n")
    assert (gzip.decompress(out.read_bytes()) if ending.endswith("gz") else out.read_bytes()) == content


def test_more_lines_than_are_in_memory_at_once(tmp_path: Path) -> None:
    source, store = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    with source.open("w") as file:
        file.writelines(json.dumps(LINE | {"seed": seed}) + "\n" for seed in range(BATCH + 1))
    assert write_store([source], store) == BATCH + 1
    stored = list(read_store(store))
    assert [line["seed"] for line in stored] == list(range(BATCH + 1))
    assert len({id(line["env_kwargs"]) for line in stored}) == 1, "what lines share is there once"
    assert len({id(line["sampler"]) for line in stored}) == 1


def without(column: str) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        table = pyarrow.parquet.read_table(store).drop_columns([column])
        pyarrow.parquet.write_table(table, store)

    return damage


def with_in_place_of(column: str, values: Any) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        table = pyarrow.parquet.read_table(store)
        changed = table.set_column(table.schema.get_field_index(column), column, pyarrow.array(values))
        pyarrow.parquet.write_table(changed, store)

    return damage


def with_twice(column: str) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        table = pyarrow.parquet.read_table(store)
        pyarrow.parquet.write_table(table.append_column(column, table.column(column)), store)

    return damage


def cut_short(store: Path) -> None:
    store.write_bytes(store.read_bytes()[:-100])


def of_lines(store: Path) -> None:
    shutil.copy(RESULTS / "digits-ablation.jsonl.gz", store)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, "is no store of results"),
        (of_lines, "is no store of results"),
        (without("seed"), "has no column 'seed'; give what ssdkd results import wrote"),
        (with_in_place_of("return", ["x"]), "is no store of results"),
        (with_in_place_of("env_kwargs", ["x"]), "is no store of results"),
        (with_in_place_of("sampler", [1]), "is no store of results (column 'sampler')"),
        (with_in_place_of("sampler", [b"x"]), "is no store of results (column 'sampler')"),
        (with_in_place_of("seed", pyarrow.nulls(1, pyarrow.int64())), "is no store of results (column 'seed')"),
        (with_in_place_of("actions", pyarrow.nulls(1, pyarrow.string())), "is no store of results"),
        (with_in_place_of("sampler", pyarrow.nulls(1, pyarrow.string())), "it lacks sampler"),
        (with_twice("sampler"), "is no store of results"),
        (Path.unlink, "there is no such file"),
    ],
)
def test_what_is_no_store_is_refused_in_a_line(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    store = tmp_path / "a.parquet"
    append_line(tmp_path / "a.jsonl", LINE)
    write_store([tmp_path / "a.jsonl"], store)
    damage(store)
    with pytest.raises(InvalidInputError) as caught:
        read_results(store)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


def test_a_line_that_does_not_fit_leaves_no_store(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    append_line(source, LINE)
    append_line(source, {"seed": 1})
    result = in_this_process("import_results", "--results", source, "--out", tmp_path / "a.parquet")
    assert_refused(result, "line 2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("import_results", "--results", "{source}", "--out", "{folder}/a.db"), "ends in .parquet"),
        (("import_results", "--results", "{source}", "--out", "{folder}/there.parquet"), "exists; choose another file"),
        (("import_results", "--results", "--out", "{folder}/a.parquet"), "--results"),
        (("export_results", "--store", "{folder}/there.parquet", "--out", "{folder}/a.txt"), "ends in .jsonl"),
        (("export_results", "--store", "{folder}/there.parquet", "--out", "{source}"), "exists; choose another file"),
        (("export_results", "--store", "{source}", "--out", "{folder}/b.jsonl"), "is no store of results"),
    ],
)
def test_bad_words_of_a_command_line(words: tuple[str, ...], match: str, tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    append_line(source, LINE)
    write_store([source], tmp_path / "there.parquet")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result: Any = in_this_process(*(word.format(source=source, folder=tmp_path) for word in words))
    assert result.code == 2
    assert match in result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x" * 2**20] * 140, "has parts of more than"),
        (["x" * (MOST_LINE + 1)], "has a text of more than"),
    ],
    ids=["many long texts", "one that no line has"],
)
def test_a_store_that_would_fill_the_memory_is_refused(texts: list[str], message: str, tmp_path: Path) -> None:
    """Compressed it has some kilobytes."""
    source, store = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    for seed in range(len(texts)):
        append_line(source, LINE | {"seed": seed})
    write_store([source], store)
    table = pyarrow.parquet.read_table(store)
    table = table.set_column(table.schema.get_field_index("label"), "label", pyarrow.array(texts))
    pyarrow.parquet.write_table(table, store, compression="zstd", use_dictionary=False)
    assert store.stat().st_size < 2**20
    with pytest.raises(InvalidInputError, match=message):
        read_results(store)


def test_more_lines_than_a_file_of_them_may_have_are_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    for seed in range(3):
        append_line(source, LINE | {"seed": seed})
    write_store([source], store)
    monkeypatch.setattr("ssdkd_agents.analysis.store.MOST_LINES_TOGETHER", source.stat().st_size)
    assert len(read_results(store, whole=True)) == 3
    monkeypatch.setattr("ssdkd_agents.analysis.store.MOST_LINES_TOGETHER", source.stat().st_size - 10)
    with pytest.raises(InvalidInputError, match="which are read whole here; export them, and give a part"):
        read_results(store, whole=True)
    assert len(read_results(store)) == 3


def test_lines_of_an_earlier_version_are_read_under_todays_names(tmp_path: Path) -> None:
    source, store = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    append_line(source, LINE | {"env_kwargs": {"evaluate_every": 4}})
    write_store([source], store)
    assert [line["env_kwargs"] for line in read_results(store)] == [{"evaluate_every_rounds": 4}]
    assert read_results(store, whole=True) == read_results(source)
