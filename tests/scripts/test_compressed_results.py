"""What reads result lines reads them compressed too, to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest
from ssdkd_agents.archives import compress
from ssdkd_agents.lines import append_line
from ssdkd_agents.runs import EPISODES_FILE, RunFolder

from tests.scripts.commands import ENV_BUDGET, assert_refused, contents, in_this_process

#: Script → what follows its --results.
READERS = {
    "compare_samplers": ("--out", "out.md"),
    "leaderboard": ("--out", "out.md"),
    "plot": ("--out", "out.png", "--runs", "{training}"),
    "plot_policy": ("--out", "out.png", "--samplers", "paper"),
    "replay": ("--lines", 1),
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("runs") / "evaluation"
    made = in_this_process(
        "evaluate_sampler", "--out", out, "--samplers", "paper", "uniform", "--episodes", 2, "--processes", 1,
        *ENV_BUDGET,
    )  # fmt: skip
    assert made.code == 0, made.stderr
    return (out / "results.jsonl").read_bytes()


@pytest.fixture
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `plot` draws beside results."""
    folder = tmp_path_factory.mktemp("training")
    RunFolder(folder, {"env_kwargs": {}})
    append_line(folder / EPISODES_FILE, {"timesteps": 3, "return": 0.5})
    return folder


@pytest.mark.parametrize("script", READERS)
def test_compressed_lines_give_what_plain_ones_give(
    script: str, lines: bytes, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, options = [], [str(word).format(training=training) for word in READERS[script]]
    for name, content in (("x.jsonl", lines), ("x.jsonl.gz", compress(lines))):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(content)
        monkeypatch.chdir(folder)
        result = in_this_process(script, "--results", name, *options)
        assert result.code == 0, result.stderr
        (folder / name).unlink()
        written = {file: text.replace(b"x.jsonl.gz", b"x.jsonl") for file, text in contents(folder).items()}
        assert set(written) == {word for word in options if word.startswith("out")}
        made.append((result.stdout, written))
    assert made[0] == made[1]


@pytest.mark.parametrize("script", READERS)
def test_damaged_archive_is_refused_by_every_reader(
    script: str, lines: bytes, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.jsonl.gz").write_bytes(compress(lines)[:-20])
    options = [str(word).format(training=training) for word in READERS[script]]
    assert_refused(in_this_process(script, "--results", "x.jsonl.gz", *options), "x.jsonl.gz is no whole gzip archive")
    assert {path.name for path in tmp_path.iterdir()} == {"x.jsonl.gz"}
