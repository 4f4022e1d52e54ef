"""A store of result lines: one Parquet file, of which a table reads the columns that it needs.

A line of an episode has some thousand characters, of which a comparison uses a dozen numbers. The store has these as
columns, with the texts that many lines share once each, and the line itself, as it was, in a last column that only
`write_lines` reads. DuckDB, Polars and pandas read it, too.

pyarrow is an optional dependency (`pip install ssdkd-env[store]`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ssdkd_agents.analysis.checking import check_result, under_new_names
from ssdkd_agents.archives import MOST_BYTES as MOST_LINES_TOGETHER
from ssdkd_agents.archives import MOST_LINE, compressing
from ssdkd_agents.lines import parse_lines, raw_lines
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.extras import load_extra
from ssdkd_env.files import write_atomically
from ssdkd_env.reading import check_regular

#: What the name of a store ends in.
ENDING = ".parquet"
#: Lines that are in memory at once.
BATCH = 4096
#: Columns of text, and whether they hold JSON: each text once, whatever number of lines have it.
TEXTS = {
    "sampler": False, "env_id": False, "label": False, "group": False, "sampler_digest": False, "commit": False,
    "env_kwargs": True, "inputs": True, "versions": True,
}  # fmt: skip
#: Columns of numbers that are the line's own, and those of its `final`.
OWN, FINAL = ("return", "held_out_accuracy"), ("accuracy", "mean_iou", "probe_agreement")
#: The first two different actions of the line, as JSON: what tells a plan that never changes from others.
ACTIONS = "actions"
#: The line as it was.
LINE = "line"
#: Columns that have a value in every row.
ALWAYS = ("seed", "diverged", ACTIONS, LINE)
#: Bytes of a store beyond which it is not opened, and lines beyond which it is not read.
MOST_BYTES, MOST_LINES = 2**40, 10**8
#: Texts that lines share, beyond which each line has its own: plans may differ in every line.
MOST_SHARED = 10_000
#: Bytes of lines in one part of a store, which is in memory at once.
MOST_PART = 64 * 2**20


def is_store(path: str | Path) -> bool:
    """Whether a name is that of a store."""
    return Path(path).suffix == ENDING


def write_store(sources: Sequence[Path], out: Path) -> int:
    """Bring result lines into a new store, a few at a time; returns how many.

    Args:
        sources: files of lines, of any size, plain or compressed.
        out: file to write.

    Raises:
        InvalidInputError: when a file is missing or damaged, or a line is no result of an episode; nothing is written.
    """
    arrow, parquet = _arrow()
    schema = _schema(arrow)
    written = 0

    def write(temporary: Path) -> None:
        nonlocal written
        options = {"compression": "zstd", "use_dictionary": list(TEXTS)}
        with parquet.ParquetWriter(temporary, schema, **options) as writer:
            for batch in _batches(_rows(sources)):
                writer.write_batch(arrow.RecordBatch.from_pylist(batch, schema=schema))
                written += len(batch)

    write_atomically(out, write)
    return written


def read_store(path: str | Path) -> Iterator[dict[str, Any]]:
    """What tables read of the lines of a store: a line each, without most of its actions, its curve and the like.

    Raises:
        InvalidInputError: when it is missing, or no store.
    """
    names = [name for name in _schema(_arrow()[0]).names if name != LINE]
    shared: dict[tuple[str, bool], Any] = {}

    def of_text(text: str, is_json: bool) -> Any:
        """What a text says, one object for all lines that share it, in whatever part of the store they are."""
        if (text, is_json) in shared:
            return shared[text, is_json]
        value = _parsed(text, path) if is_json else text
        if len(shared) < MOST_SHARED:
            shared[text, is_json] = value
        return value

    for row in _read(path, names):
        line: dict[str, Any] = {"seed": row["seed"], "final": {"diverged": row["diverged"]}}
        line[ACTIONS] = of_text(row[ACTIONS], True)
        for name, is_json in TEXTS.items():
            if row[name] is not None:
                line[name] = of_text(row[name], is_json)
        line |= {name: row[name] for name in OWN if row[name] is not None}
        line["final"] |= {name: row[name] for name in FINAL if row[name] is not None}
        if row["seconds"] is not None:
            line["seconds"] = {"wall": row["seconds"]}
        yield line


def read_whole(path: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of a store, each as it was.

    Raises:
        InvalidInputError: when it is missing, or no store, or a line was changed, or there are more than a file of
            lines may have.
    """
    size = 0
    for row in _read(path, [LINE]):  # before any is parsed, which takes ten times as long
        size += len(row[LINE])
        if size > MOST_LINES_TOGETHER:
            raise InvalidInputError(
                f"{path} has more than {MOST_LINES_TOGETHER:,} characters of lines, which are read whole here; export "
                "them, and give a part"
            )
    for number, row in enumerate(_read(path, [LINE]), start=1):
        yield from parse_lines(row[LINE].encode(), f"{path}, row {number}")


def write_lines(store: Path, out: Path) -> int:
    """Write the lines of a store as they were, as JSON lines, compressed where the name ends in `.gz`.

    Returns:
        How many.

    Raises:
        InvalidInputError: when it is missing, or no store.
    """
    written = 0

    def write(temporary: Path) -> None:
        nonlocal written
        with ExitStack() as stack:
            file = stack.enter_context(temporary.open("wb"))
            target = stack.enter_context(compressing(file)) if out.suffix == ".gz" else file
            for row in _read(store, [LINE]):
                target.write(row[LINE].encode() + b"\n")
                written += 1

    write_atomically(out, write)
    return written


def _rows(sources: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for source in sources:
        for number, raw, line in raw_lines(source):
            named = under_new_names(line)
            check_result(named, f"{source}, line {number}")
            yield _row(named) | {LINE: raw.decode()}


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a line, but for the line itself."""
    row: dict[str, Any] = {"seed": line["seed"], "diverged": bool(line["final"].get("diverged"))}
    for name, is_json in TEXTS.items():
        value = line.get(name)
        row[name] = json.dumps(value, sort_keys=True) if is_json and value is not None else value
    row |= {name: line.get(name) for name in OWN}
    row |= {name: line.get(name, line["final"].get(name)) for name in FINAL}
    seconds = line.get("seconds")  # a number in early versions
    different: list[Any] = []
    for action in line[ACTIONS]:
        if action not in different and len(different) < 2:
            different.append(action)
    row[ACTIONS] = json.dumps(different)
    return row | {"seconds": seconds.get("wall") if isinstance(seconds, Mapping) else seconds}


def _read(path: str | Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a store, a batch in memory at a time, and of its lines one.

    Raises:
        InvalidInputError: when it is missing, or no store, or would take more memory than one takes.
    """
    arrow, parquet = _arrow()
    if not Path(path).is_file():
        raise InvalidInputError(f"cannot read {path}: there is no such file; give what ssdkd results import wrote")
    check_regular(path, MOST_BYTES)
    texts = [name for name in columns if name in (*TEXTS, ACTIONS, LINE)]
    try:
        # As dictionaries, so that a text that many rows share is not there for each.
        with parquet.ParquetFile(path, memory_map=True, read_dictionary=texts) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise InvalidInputError(f"{path} has no column {missing[0]!r}; give what ssdkd results import wrote")
            _check_sizes(file.metadata, path)
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                read = [_values(batch.column(name), name, path, arrow) for name in columns]
                for values in zip(*read, strict=True):
                    yield dict(zip(columns, values, strict=True))
    except (arrow.ArrowException, OSError, KeyError) as error:  # the last of a column that is there twice
        raise InvalidInputError(f"{path} is no store of results ({one_line(error)[:200]}); get another copy") from error


def _check_sizes(metadata: Any, path: str | Path) -> None:
    """Refuse what unpacks to more than memory may have for it.

    Raises:
        InvalidInputError: when there are more rows than a campaign has, or a part of them is too large.
    """
    if metadata.num_rows > MOST_LINES:
        raise InvalidInputError(f"{path} has more than {MOST_LINES:,} lines; give a part of them")
    largest = max((metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)), default=0)
    if largest > 2 * MOST_PART:
        raise InvalidInputError(f"{path} has parts of more than {2 * MOST_PART:,} bytes; get another copy")


def _values(column: Any, name: str, path: str | Path, arrow: Any) -> Iterable[Any]:
    """What a column holds; a text, however many rows have it, once.

    Raises:
        InvalidInputError: when it is of another kind, lacks what every line has, or a text is longer than any line is.
    """
    is_text = name in (*TEXTS, ACTIONS, LINE)
    other_kind = is_text and column.type != arrow.dictionary(arrow.int32(), arrow.string())
    if other_kind or (name in ALWAYS and column.null_count):
        raise InvalidInputError(f"{path} is no store of results (column {name!r}); get another copy")
    if not is_text:
        values: list[Any] = column.cast(_schema(arrow).field(name).type).to_pylist()
        return values
    texts: list[str] = column.dictionary.to_pylist()
    if max(map(len, texts), default=0) > MOST_LINE:
        raise InvalidInputError(f"{path} has a text of more than {MOST_LINE:,} characters; get another copy")
    return (None if index is None else texts[index] for index in column.indices.to_pylist())


def _parsed(text: str, path: str | Path) -> Any:
    """The JSON object of a column.

    Raises:
        InvalidInputError: when it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is no store of results ({one_line(error)}); get another copy") from error
    return value


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[LINE])
        if len(batch) == BATCH or size > MOST_PART - MOST_LINE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _schema(arrow: Any) -> Any:
    numbers = [*OWN, *FINAL, "seconds"]
    return arrow.schema(
        [("seed", arrow.int64()), ("diverged", arrow.bool_())]
        + [(name, arrow.string()) for name in TEXTS]
        + [(name, arrow.float64()) for name in numbers]
        + [(ACTIONS, arrow.string()), (LINE, arrow.string())]
    )


def _arrow() -> tuple[Any, Any]:
    """pyarrow, and its module of Parquet.

    Raises:
        InvalidInputError: when it is not installed.
    """
    return load_extra("pyarrow", "a store of results"), load_extra("pyarrow.parquet", "a store of results")
