"""`compare_samplers`: any row of several result files as the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.benchmarking.sampler_report import intervals, make_sampler_table
from ssdkd_agents.lines import append_line

from tests.agents.benchmarking.test_sampler_report import line
from tests.scripts.commands import Result, assert_refused, contents, in_this_process


def compare(*arguments: object) -> Result:
    return in_this_process("compare_samplers", *arguments)


def write(path: Path, *lines: dict[str, Any]) -> Path:
    for content in lines:
        append_line(path, content | {"actions": []})
    return path


def rows(sampler: str, accuracy: float, **changes: Any) -> list[dict[str, Any]]:
    return [line(sampler, seed, accuracy + 0.1 * seed, **changes) for seed in range(3)]


def test_files_are_one_comparison_and_an_episode_counts_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", *rows("paper", 0.2), *rows("x", 0.3))
    other = rows("paper", 0.6)[:1]  # the same episode, which cannot have had another accuracy
    second = write(tmp_path / "b.jsonl", *other, *rows("y", 0.4))
    out = tmp_path / "table.md"
    result = compare("--results", first, second, "--out", out)
    assert result.code == 0, result.stderr
    expected = make_sampler_table([*rows("paper", 0.2), *rows("x", 0.3), *rows("y", 0.4)])
    assert result.stdout.strip() == f"{expected}\n\n{intervals()}"
    assert out.read_text().startswith(expected)
    assert "above one of the paper's sampler" in out.read_text()


def test_any_row_can_be_the_reference(tmp_path: Path) -> None:
    results = write(tmp_path / "a.jsonl", *rows("paper", 0.2), *rows("x", 0.3), *rows("runs/1", 0.5, group="ppo"))
    result = compare("--results", results, "--against", "x", "--out", tmp_path / "table.md")
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in result.stdout.splitlines()[:5]]
    assert cells[0][4] == "− x"
    assert {row[0]: row[4][:7] for row in cells[2:]} == {"paper": "-0.1000", "x": "–", "ppo": "0.2000 "}
    assert "above one of x, a tie" in (tmp_path / "table.md").read_text()


def test_one_score_can_be_asked_for(tmp_path: Path) -> None:
    lines = [*rows("paper", 0.2), *rows("x", 0.3)]
    for number, content in enumerate(lines):
        content["final"] = content["final"] | {"accuracy": 0.05 * number}
    results = write(tmp_path / "a.jsonl", *lines)
    cells = [row.split(" | ") for row in compare("--results", results, "--score", "accuracy").stdout.splitlines()]
    assert [len(row) for row in cells] == [8] * 4 + [1] * 2  # one table, and what its intervals are
    assert cells[0][2] == "accuracy on real images, IQM"
    assert cells[3][4].startswith("0.1500 (0.1500, ")
    assert_refused(compare("--results", results, "--score", "beauty"), "--score beauty: not every episode has it")


def of_instances(sampler: str, *accuracies: float, **changes: Any) -> list[dict[str, Any]]:
    """Episodes on two instances in turn."""
    return [
        line(sampler, seed, accuracy, accuracy / 2, instance=seed % 2, **changes)
        for seed, accuracy in enumerate(accuracies)
    ]


def test_instances_are_compared_by_the_means_of_their_episodes(tmp_path: Path) -> None:
    # Of single episodes x wins one in four, of instances one in two.
    paper, x = of_instances("paper", 0.3, 0.5, 0.3, 0.5), of_instances("x", 0.2, 0.4, 0.8, 0.4)
    results = write(tmp_path / "a.jsonl", *paper, *x)
    single, means = (compare("--results", results, *more) for more in ((), ("--instances",)))
    cells = [
        [cell.strip() for cell in printed.stdout.splitlines()[3].strip("|").split(" | ")] for printed in (single, means)
    ]
    assert [row[1] for row in cells] == ["4", "2"]
    assert [row[5] for row in cells] == ["0.2500", "0.5000"]
    assert cells[1][3:5] == ["0.3250 (0.3750, 0.2750)", "0.0500 (0.2000, -0.1000)"]  # held-out is 0.125 below
    assert "instances | held-out accuracy, IQM" in means.stdout
    assert "over the instances" in means.stdout
    # The return is a mean too, of another table.
    assert means.stdout.splitlines()[8].split(" | ")[3] == "0.2250 (0.2500, 0.2000)"


def test_any_score_of_instances_is_a_mean(tmp_path: Path) -> None:
    lines = [*of_instances("paper", 0.3, 0.5, 0.3, 0.5), *of_instances("x", 0.3, 0.5, 0.3, 0.5)]
    for number, content in enumerate(lines):
        content["final"] = content["final"] | {"probe_discrepancy": float(number)}
    results = write(tmp_path / "a.jsonl", *lines)
    printed = compare("--results", results, "--instances", "--score", "probe_discrepancy").stdout.splitlines()
    assert printed[3].split(" | ")[3] == "5.5000 (5.0000, 6.0000)"
    assert_refused(compare("--results", results, "--score", "seconds"), "--score seconds: not every episode has it")


def test_equal_seeds_of_other_instances_are_not_compared(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", *of_instances("paper", 0.3, 0.5))
    other = [line("x", seed, 0.5, instance=1 - seed % 2) for seed in range(2)]
    second = write(tmp_path / "b.jsonl", *other)
    assert_refused(compare("--results", first, second), "seed 0 is of instance 0 in")


def test_instances_want_the_same_episodes_of_all(tmp_path: Path) -> None:
    paper = of_instances("paper", 0.3, 0.5, 0.3, 0.5)
    fewer = write(tmp_path / "fewer.jsonl", *paper, *of_instances("x", 0.2, 0.4, 0.8))
    assert_refused(
        compare("--results", fewer, "--instances"),
        "'x' played instance 1 from 1 seeds, 'paper' from 2 that are not the same",
    )
    plain = write(tmp_path / "plain.jsonl", *rows("paper", 0.2))
    assert_refused(compare("--results", plain, "--instances"), "'paper' has an episode of no instance")


@pytest.mark.parametrize(
    ("sampler", "changes"),
    [
        ("paper", {"env_kwargs": {"method": "fast5"}}),
        ("random", {"env_kwargs": {"rounds_per_step": 16}}),
        ("constant:[0]", {"env_kwargs": {"action": "full"}}),
        ("runs/ppo", {"sampler_digest": "other"}),
    ],
)
def test_one_name_of_two_samplers_is_refused(sampler: str, changes: dict[str, Any], tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", *rows(sampler, 0.2))
    second = write(tmp_path / "b.jsonl", *rows(sampler, 0.6, **changes))
    for files in ((first, second), (second, first)):
        assert_refused(compare("--results", *files, "--against", sampler), "compare them apart")


def test_control_is_the_same_in_every_scheme(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", *rows("paper", 0.2))
    second = write(tmp_path / "b.jsonl", *rows("paper", 0.2, env_kwargs={"action": "full", "rounds_per_step": 2}))
    assert compare("--results", first, second).code == 0


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    results = write(tmp_path / "a.jsonl", *rows("paper", 0.2), *rows("1", 0.5, group="g"), *rows("2", 0.5, group="g"))
    other = write(tmp_path / "b.jsonl", *rows("paper", 0.2, env_kwargs={"budget": {"rounds": 3}}))
    before = contents(tmp_path)
    out = ("--out", tmp_path / "table.md")
    assert_refused(compare("--results", results, "--against", "uniform", *out), "against='uniform'")
    assert_refused(compare("--results", results, "--against", "g", *out), "several training runs")
    assert_refused(compare("--results", results, other, *out), "one environment with one budget")
    assert_refused(compare("--results", *out), "--results: none given")
    nobody = write(tmp_path / "c.jsonl", *rows("uniform", 0.2))
    before = contents(tmp_path)
    assert_refused(compare("--results", nobody, *out), "no episode of the paper's sampler; give --against")
    assert contents(tmp_path) == before
