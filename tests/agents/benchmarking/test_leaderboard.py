"""The leaderboard: what is compared with what, and that the files alone decide every byte."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ssdkd_agents.analysis.comparison import (
    interquartile_mean,
    paired_probability_of_improvement,
    probability_of_improvement,
)
from ssdkd_agents.benchmarking.leaderboard import HEAD, make_leaderboard

from tests.agents.benchmarking.test_sampler_report import line


def lines(sampler: str, accuracy: float | None, count: int = 4, **changes: Any) -> list[dict[str, Any]]:
    return [
        line(sampler, seed, None if accuracy is None else accuracy + 0.01 * seed, **changes) for seed in range(count)
    ]


def sections(files: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, str]]]:
    """Title → rows → cell by column."""
    board = make_leaderboard(files)
    assert board.startswith(HEAD)
    found = {}
    for part in board[len(HEAD) :].split("\n## ")[1:]:
        title, _, table = part.partition("\n\n")
        cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.strip().splitlines()]
        found[title] = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    return found


def test_rows_are_ranked_and_compared_with_the_papers_sampler_of_their_file() -> None:
    files = {
        "a.jsonl": lines("paper", 0.5) + lines("uniform", 0.6),
        "b.jsonl": lines("paper", 0.7, 6) + lines("uniform", 0.65, 6),
    }
    (rows,) = sections(files).values()
    assert [(row["#"], row["sampler"], row["file"]) for row in rows] == [
        ("1", "paper", "[b.jsonl](b.jsonl)"),
        ("2", "uniform", "[b.jsonl](b.jsonl)"),
        ("3", "uniform", "[a.jsonl](a.jsonl)"),
        ("4", "paper", "[a.jsonl](a.jsonl)"),
    ]
    assert [row["P, same seeds"][:6] for row in rows] == ["–", "0.0000", "1.0000", "–"]
    assert [row["seeds"] for row in rows] == ["6", "6", "4", "4"]
    scores = [{seed: 0.6 + 0.01 * seed - 0.125 for seed in range(4)}]
    assert rows[2]["held-out accuracy, IQM"] == str(interquartile_mean(scores))
    assert rows[2]["made with"] == "torch 2.5"
    assert rows[2]["s/episode"] == "4.0"


def test_reference_of_another_file_is_used_where_there_is_none() -> None:
    (rows,) = sections({"a": lines("paper", 0.5), "b": lines("x", 0.505)}).values()
    x, paper = ([{seed: value + 0.01 * seed - 0.125 for seed in range(4)}] for value in (0.505, 0.5))
    assert rows[0]["P, same seeds"] == str(paired_probability_of_improvement(x, paper))
    assert rows[0]["P, all pairs"] == str(probability_of_improvement(x, paper))


def test_environments_and_budgets_are_sections_of_their_own() -> None:
    other: dict[str, Any] = {"budget": {"rounds": 8}}
    files = {
        "a": lines("paper", 0.5)
        + lines("paper", 0.4, env_kwargs={**other, "action": "exponents"})
        + lines("x", 0.45, env_kwargs={**other, "action": "plans"})
        + lines("x", 0.6, env_kwargs={"clock": True, "device": "cpu", "method": "ssdkd"})
        + lines("x", 0.3, env_id="ssdkd_env:SSDKD/CIFAR10-v2"),
    }
    found = sections(files)
    assert {title: [row["sampler"] for row in rows] for title, rows in found.items()} == {
        "SSDKD/CIFAR10-v2": ["x"],
        "SSDKD/Digits-v2": ["x", "paper"],
        'SSDKD/Digits-v2, `{"budget": {"rounds": 8}}`': ["x", "paper"],
    }
    compared = {title: rows[0]["P, same seeds"][:6] for title, rows in found.items()}
    assert list(compared.values()) == ["–", "1.0000", "1.0000"], "with the paper's of the same budget"


def test_trained_samplers_meet_the_controls_whatever_they_see_and_say() -> None:
    face = {"action": "full", "observation": "scaled", "history": 4, "rounds_per_step": 2}
    (rows,) = sections({"a": lines("paper", 0.5) + lines("runs/ppo", 0.6, env_kwargs=face)}).values()
    assert [(row["sampler"], row["action"], row["P, same seeds"][:6]) for row in rows] == [
        ("runs/ppo", "full", "1.0000"),
        ("paper", "default", "–"),
    ]


def test_sampler_that_files_have_alike_has_one_row() -> None:
    again = lines("paper", 0.5, env_kwargs={"action": "full"})
    other = lines("paper", 0.5)
    other[0]["return"] += 0.25
    (rows,) = sections({"a": lines("paper", 0.5), "b": again + lines("x", 0.6), "c": other}).values()
    assert [(row["sampler"], row["file"][:3]) for row in rows] == [("x", "[b]"), ("paper", "[a]"), ("paper", "[c]")]


def test_methods_and_training_runs_have_rows() -> None:
    entries = lines("own", 0.5, env_kwargs={"method": "ssdkd"}) + lines("own", 0.6, env_kwargs={"method": "dfq"})
    entries += lines("own", 0.4, env_kwargs={"method": "ssdkd", "method_options": {"gamma": 1}})
    entries += [row for index in range(3) for row in lines(f"runs/{index}", 0.7, group="ppo")]
    (rows,) = sections({"a": entries}).values()
    assert [(row["sampler"], row["method"], row["seeds"], row["P, all pairs"][:6]) for row in rows] == [
        ("ppo", "ssdkd", "4 × 3 runs", "1.0000"),
        ("own", "dfq", "4", "1.0000"),
        ("own", "ssdkd", "4", "–"),
        ("own", 'ssdkd {"gamma": 1}', "4", "0.0000"),
    ]


def test_without_real_data_the_return_ranks() -> None:
    (rows,) = sections({"a": lines("a", None, gain=0.1) + lines("paper", None, gain=0.3)}).values()
    assert [row["sampler"] for row in rows] == ["paper", "a"]
    assert {row["accuracy, IQM"] for row in rows} == {row["P, same seeds"] for row in rows} == {"–"}


def test_order_of_files_and_lines_changes_no_byte() -> None:
    grouped = [row for index in range(3) for row in lines(f"runs/{index}", 0.1 * index, group="ppo")]
    files = {"a": lines("paper", 0.5) + lines("x", 0.5) + grouped, "b": lines("y", 0.5) + lines("x", 0.5)}
    board = make_leaderboard(files)
    shuffled = {name: random.Random(1).sample(files[name], len(files[name])) for name in ("b", "a")}
    assert make_leaderboard(shuffled) == board


@pytest.mark.parametrize("name", ["a|b", "x"])
def test_name_cannot_break_the_table(name: str) -> None:
    (rows,) = sections({"a": lines(name, 0.5)}).values()
    assert rows[0]["sampler"] == name.replace("|", "\\|")
