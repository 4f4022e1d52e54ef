"""`measure_transfer`: what is kept of a gain, and from which lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from laboratory.transfer import gains, kept

from ssdkd_env.errors import InvalidInputError
from tests.scripts.commands import assert_refused, in_this_process


def noisy(mean: float, runs: int, seeds: int, number: int, of_runs: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {str(run): mean + of_runs * random.normal() + 0.01 * random.normal(size=seeds) for run in range(runs)}


def test_gains_are_seed_by_seed() -> None:
    found = gains({"a": {3: 0.9, 1: 0.5}, "b": {1: 0.7, 3: 0.7}}, {1: 0.6, 3: 0.8}, "x")
    assert {run: values.round(6).tolist() for run, values in found.items()} == {"a": [-0.1, 0.1], "b": [0.1, -0.1]}
    with pytest.raises(InvalidInputError, match="x: a has no episode of seed 3"):
        gains({"a": {1: 0.5}}, {1: 0.6, 3: 0.8}, "x")


@pytest.mark.parametrize(("there", "sure"), [(0.04, True), (0.02, False), (0.0, None)])
def test_more_than_half_is_kept_where_the_interval_is_above_zero(there: float, sure: bool | None) -> None:
    found = kept(noisy(0.04, 5, 48, 0), noisy(there, 5, 24, 1))
    assert found.mean == pytest.approx(there - 0.02, abs=0.003)
    assert found.low < found.mean < found.high
    assert (found.low > 0) == bool(sure)
    assert (found.high < 0) == (sure is None)


def test_runs_are_drawn_for_both_sets_alike() -> None:
    """A gain that is twice as large in a run in both sets is no noise of what is kept."""
    random = np.random.default_rng(0)
    levels = random.uniform(0.0, 0.2, 6)
    here = {str(run): np.full(30, 2 * level) for run, level in enumerate(levels)}
    there = {str(run): np.full(20, level) for run, level in enumerate(levels)}
    found = kept(here, there)
    assert found.high - found.low < 1e-9
    mixed = kept(here, {str(run): np.full(20, level) for run, level in enumerate(levels[::-1])})
    assert mixed.high - mixed.low > 0.01


def test_noise_of_training_makes_it_less_sure() -> None:
    calm, wild = (kept(noisy(0.04, 5, 48, 0, noise), noisy(0.03, 5, 48, 1, noise)) for noise in (0.0, 0.03))
    assert wild.high - wild.low > 2 * (calm.high - calm.low)


def test_too_few_have_no_interval() -> None:
    assert not kept(noisy(0.04, 3, 48, 0), noisy(0.04, 3, 48, 1)).known
    assert not kept(noisy(0.04, 5, 4, 0), noisy(0.04, 5, 48, 1)).known
    assert kept(noisy(0.04, 1, 48, 0), noisy(0.04, 1, 48, 1)).known


def lines_of(path: Path, scores: dict[str, list[float]]) -> Path:
    rows = [
        {
            "env_id": "SSDKD/Digits-v2", "sampler": name, "group": name.split("-")[0], "seed": seed, "env_kwargs": {},
            "return": value, "final": {}, "actions": [], "held_out_accuracy": value,
        }
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_table_of_two_evaluations(tmp_path: Path) -> None:
    constant = [0.5, 0.6, 0.7, 0.8, 0.9]
    here = lines_of(tmp_path / "here.jsonl", {"constant": constant, "ppo-0": [value + 0.04 for value in constant]})
    there = lines_of(tmp_path / "there.jsonl", {"constant": constant, "ppo-0": [value + 0.03 for value in constant]})
    result = in_this_process("measure_transfer", "--here", here, "--there", there, "--against", "constant")
    assert result.code == 0, result.stderr
    assert "| ppo | 1 | 0.0400 [0.0400, 0.0400] | 0.0300 [0.0300, 0.0300] | 0.0100 [0.0100, 0.0100] |" in result.stdout
    renamed = lines_of(
        tmp_path / "renamed.jsonl", {"constant": constant, "ppo-far": [value + 0.03 for value in constant]}
    )
    assert in_this_process("measure_transfer", "--here", here, "--there", renamed, "--against", "constant").code == 0
    several = lines_of(tmp_path / "several.jsonl", {"constant": constant, "ppo-1": constant, "ppo-2": constant})
    other = in_this_process("measure_transfer", "--here", here, "--there", several, "--against", "constant")
    assert_refused(other, "row 'ppo' has other training runs than --here")
    wrong = in_this_process("measure_transfer", "--here", here, "--there", there, "--against", "nobody")
    assert_refused(wrong, "against='nobody' is unknown")
    short = lines_of(tmp_path / "short.jsonl", {"constant": constant, "ppo-0": constant[:3]})
    refused = in_this_process("measure_transfer", "--here", here, "--there", short, "--against", "constant")
    assert_refused(refused, "has no episode of seed 3")
