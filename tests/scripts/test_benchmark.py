"""`benchmark`: from entries and seeds to a table and pictures; stops, continues, and survives failures."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.benchmarking.benchmark import Benchmark
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, play, run_episode
from ssdkd_agents.benchmarking.report import make_table
from ssdkd_agents.lines import read_lines
from ssdkd_agents.samplers import RandomSampler, Sampler
from ssdkd_agents.seeds import HELD_OUT_SEED

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.registry import trust
from tests.agents.benchmarking.test_experiments import timeless
from tests.scripts.commands import (
    ENV_BUDGET,
    Result,
    assert_refused,
    assert_resumes,
    contents,
    in_process_of_its_own,
    in_this_process,
    press_ctrl_c,
)

REPORT = {"table.md", "curves.md", "accuracy-seconds.png", "distributions.png"}
RECORD = {"config.json", "command.txt", "results.jsonl", ".lock"}


def benchmark(out: Path, *arguments: object) -> Result:
    return in_this_process("benchmark", "--out", out, "--processes", 1, *arguments)


def compare(out: Path, *arguments: object) -> Result:
    return benchmark(out, "--methods", "ssdkd", "fast2", "--seeds", 2, *ENV_BUDGET, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A benchmark by a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "benchmark"
    result = in_process_of_its_own(
        "benchmark", "--out", out, "--methods", "ssdkd", "fast2", "--seeds", 2, *ENV_BUDGET, "--processes", 1
    )
    assert result.code == 0, result.stderr[-3000:]
    return out, result


def results(out: Path) -> list[dict[str, Any]]:
    """Lines in the order of the plan, without clock values."""
    return [timeless(line) for line in Benchmark.open(out).results()]


def test_folder_holds_lines_table_and_pictures(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert {path.name for path in out.iterdir()} == RECORD | REPORT
    assert "4/4 episodes after" in result.stderr and "\r" not in result.stderr
    table = (out / "table.md").read_text()
    assert table.strip() in result.stdout
    assert table.startswith(make_table(Benchmark.open(out).results()))
    assert (out / "command.txt").read_text().startswith("python scripts/benchmark.py --out ")
    assert "continue with" not in result.stdout


def test_lines_can_be_played_again(finished: tuple[Path, Result]) -> None:
    """By another process than the one that made them."""
    for line in Benchmark.open(finished[0]).results():
        again = run_episode(EpisodeConfig(**{key: line[key] for key in ("env_id", "sampler", "seed", "env_kwargs")}))
        assert timeless({"label": line["label"]} | again) == timeless(line)
        assert line["machine"]["torch_threads"] == 1
    assert {line["seed"] for line in read_lines(finished[0] / "results.jsonl")} == {HELD_OUT_SEED, HELD_OUT_SEED + 1}


def test_report_only_plays_nothing(finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = finished
    before = contents(out)
    monkeypatch.setattr("ssdkd_agents.benchmarking.benchmark.play", None)
    (out / "table.md").unlink()
    (out / "distributions.png").unlink()
    result = benchmark(out, "--report-only")
    assert result.code == 0, result.stderr
    assert contents(out)["table.md"] == before["table.md"]
    assert {path.name for path in out.iterdir()} == RECORD | REPORT
    assert contents(out)["results.jsonl"] == before["results.jsonl"]


def test_time_limit_stops_cleanly_and_the_rest_is_played_later(finished: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = compare(out, "--minutes", 1e-6)
    assert result.code == 0, result.stderr
    assert "0 of 4 episodes are finished; continue with:" in result.stdout
    assert_resumes(result, "benchmark", out)
    assert not (out / "table.md").exists()
    result = benchmark(out, "--resume")
    assert result.code == 0, result.stderr
    assert results(out) == results(finished[0])
    assert {path.name for path in out.iterdir()} == RECORD | REPORT


class Slow(RandomSampler):
    """Takes its time at every step, so that whatever the machine, its episode is under way when Ctrl-C comes."""

    def predict(self, *arguments: Any, **keywords: Any) -> Any:
        time.sleep(1)
        return super().predict(*arguments, **keywords)


def slow_but_for_the_first_seed(env: SSDKDEnv, seed: int) -> Sampler:
    """Uniformly random plans; slow ones as long as a variable is set."""
    slow = seed != HELD_OUT_SEED and "SLOW" in os.environ
    return (Slow if slow else RandomSampler)(env.action_space, seed)


@pytest.mark.parametrize("processes", [1, 2])
def test_interrupted_benchmark_continues_in_the_middle_of_an_episode(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first episode is finished, others are in progress when Ctrl-C comes."""
    out, rounds = tmp_path / "out", 30
    sampler = f"{__name__}:{slow_but_for_the_first_seed.__name__}"
    monkeypatch.setenv("SLOW", "yes")
    result = press_ctrl_c(
        out / "results.jsonl", "benchmark", "--out", out, "--methods", "ssdkd", "--samplers", sampler,
        "--seeds", processes + 1, *ENV_BUDGET, "--env.budget.rounds", rounds, "--processes", processes,
    )  # fmt: skip
    monkeypatch.delenv("SLOW")
    trust([__name__])
    assert result.code == 130, result.stderr[-3000:]
    assert result.complaint == "stopped"
    assert "Traceback" not in result.stderr
    assert_resumes(result, "benchmark", out)
    kept = sorted((out / "unfinished").glob("*.json"))
    assert 1 <= len(kept) <= processes
    played = [len(json.loads(path.read_text())["trace"]["actions"]) for path in kept]
    assert any(0 < count < rounds for count in played)
    done = len(Benchmark.open(out).results())
    assert 1 <= done <= processes

    started = [json.loads(path.read_text())["config"] for path in kept]
    result = benchmark(out, "--resume")
    assert result.code == 0, result.stderr
    assert not (out / "unfinished").exists()
    lines = Benchmark.open(out).results()
    assert len(lines) == processes + 1
    alone = run_episode(EpisodeConfig(**started[0]))
    (line,) = [line for line in lines if line["seed"] == started[0]["seed"]]
    assert timeless({"label": line["label"], "group": line["group"]} | alone) == timeless(line)


def test_failed_episode_is_reported_and_retried(
    finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def failing(config: EpisodeConfig, *rest: Any) -> dict[str, Any] | None:
        if config.env_kwargs["method"] == "fast2" and config.seed == HELD_OUT_SEED:
            raise RuntimeError("no more memory")
        return play(config, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("ssdkd_agents.benchmarking.benchmark.play", failing)
        result = compare(out)
    assert result.code == 1
    assert f"failed: fast2, seed {HELD_OUT_SEED}: RuntimeError: no more memory" in result.stderr
    assert f"tracebacks: {out / 'failures.jsonl'}" in result.stderr
    assert "3 of 4 episodes are finished; continue with:" in result.stdout
    assert "3 of 4 episodes" in (out / "table.md").read_text()
    assert compare(out, "--resume").code == 0
    assert results(out) == results(finished[0])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((), "nothing to compare; give --suite"),
        (
            ("--suite", "nope"),
            "suite='nope' is unknown; choose one of: ablation, cifar-cpu, cifar-cpu-parts, cifar-cpu-precision, ",
        ),
        (("--suite", "ablation", "--methods", "dfq"), "exclude each other"),
        (("--methods", "nope"), "method='nope' is unknown"),
        (("--samplers", "nope"), "sampler='nope'"),
        (("--methods", "dfq", "--seeds", "0"), "seeds=0"),
        (("--methods", "dfq", "--first-seed", "-1"), "first_seed=-1"),
        (("--methods", "dfq", "--processes", "0"), "--processes 0"),
        (("--methods", "dfq", "--minutes", "0"), "--minutes 0"),
        (("--methods", "dfq", "--minutes", "nan"), "--minutes nan"),
        (("--methods", "dfq", "--env-id", "CartPole-v1"), "CartPole-v1"),
        (("--methods", "dfq", "--env.method", "cmi"), "use --methods instead"),
        (("--methods", "dfq", "--env.budget.rounds", "0"), "budget['rounds']=0"),
        (("--methods", "dfq", "--budget", "rounds=8"), "give --env.budget.rounds 8"),
        (("--suite", "scale", "--env.budget.buffer-capacity", "9"), "suite='scale' varies the capacity"),
        (("--resume",), "holds no run"),
        (("--report-only",), "holds no run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_argument_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], match: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert_refused(in_this_process("benchmark", "--out", out, *arguments), match)
    assert not out.exists()


def test_used_folder_and_other_settings_are_refused(finished: tuple[Path, Result], tmp_path: Path) -> None:
    before = contents(finished[0])
    assert_refused(compare(finished[0]), "is not empty; continue it with --resume")
    assert_refused(benchmark(finished[0], "--resume", "--methods", "dfq"), "was made with methods=['ssdkd', 'fast2']")
    assert_refused(benchmark(finished[0], "--resume", "--seeds", 1), "was made with seeds=2")
    assert_refused(benchmark(finished[0], "--resume", "--env.budget.rounds", 9), "env_kwargs")
    assert contents(finished[0]) == before
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/out"):
        assert_refused(compare(tmp_path / out), str(tmp_path / out))
    assert contents(tmp_path) == {"file": b"mine"}
