"""`profile_step`: a table and a trace, from the command line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from tests.scripts.commands import ENV_BUDGET, assert_refused, in_process_of_its_own, in_this_process

PROBE = ("--env.probe.generators", 1, "--env.probe.batches", 2, "--env.probe.kept", 1, "--env.probe.steps", 2)
SMALL = ("--rounds", 1, *ENV_BUDGET, "--env.device", "cpu", *PROBE)


def test_a_small_run_ends_in_tables_lines_and_a_trace(tmp_path: Path) -> None:
    trace, out = tmp_path / "trace.json", tmp_path / "profile.jsonl"
    result = in_process_of_its_own("profile_step", "--trace", trace, "--out", out, *SMALL)
    assert result.code == 0, result.stderr
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"ssdkd::round", "ssdkd::synthesis", "ssdkd::training", "part::backward", "aten::convolution"} <= names
    rows = re.findall(r"^\| (\w+) \| (\w+) \| ([\d.]+) \| [\d.]+ % \| [\d.]* \|$", result.stdout, re.MULTILINE)
    assert ("synthesis", "backward") in {(phase, part) for phase, part, _ in rows}
    total = re.search(r"^\| all \|  \| ([\d.]+) \| 100\.0 % \|  \|$", result.stdout, re.MULTILINE)
    assert total is not None
    assert sum(float(seconds) for _, _, seconds in rows) == pytest.approx(float(total[1]), abs=0.01 * len(rows))
    assert re.search(r"Measured over unmeasured: [\d.]+", result.stdout)
    assert re.search(rf"{re.escape(str(trace))}: [\d.]+ MiB", result.stdout)
    first, summary = [json.loads(line) for line in out.read_text().splitlines()]
    assert 1000 * first["wall"] == pytest.approx(float(total[1]), abs=0.01)
    assert summary["rounds"] == 1
    assert summary["machine"]["torch_threads"] == 1
    assert "source" in summary["versions"]


def test_several_environments_and_a_compressed_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json.gz"
    result = in_this_process("profile_step", "--trace", trace, "--num-envs", 2, *SMALL)
    assert result.code == 0, result.stderr
    assert "| training | grouping |" in result.stdout
    assert "a step of 2 environment(s)" in result.stdout
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert [path.name for path in tmp_path.iterdir()] == [trace.name]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--num-envs", "0"), "--num-envs 0: expected at least 1"),
        (("--rounds", "16"), "more than the budget's 16"),
        (("--rounds", "0"), "--rounds 0: expected at least 1"),
        (("--trace", "trace.txt"), "expected a name that ends in .json or .json.gz"),
        (("--env-id", "CartPole-v1"), "is no distillation environment"),
        (("--env-kwargs", "device=cpu"), "give --env.device cpu"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, str], match: str, tmp_path: Path) -> None:
    result = in_this_process("profile_step", "--trace", tmp_path / "trace.json", *arguments)
    assert_refused(result, match)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["trace", "out"])
def test_a_file_that_exists_is_left_alone(name: str, tmp_path: Path) -> None:
    paths = {"trace": tmp_path / "trace.json", "out": tmp_path / "profile.jsonl"}
    paths[name].write_text("mine\n")
    result = in_this_process("profile_step", "--trace", paths["trace"], "--out", paths["out"], *SMALL)
    assert_refused(result, f"--{name} {paths[name]} exists; choose another file")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine\n"]
