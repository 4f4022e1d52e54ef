"""`measure_plans` and `measure`, end to end with tiny runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector.utils import batch_space
from laboratory.statistics import between_group_share
from scipy.stats import spearmanr

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.envs.observations import ENTRIES
from tests.scripts.commands import ENV_BUDGET, Result, assert_refused, in_this_process

PROBE = ("--env.probe.generators", 1, "--env.probe.batches", 2, "--env.probe.kept", 1, "--env.probe.steps", 2)
SMALL = (*ENV_BUDGET, *PROBE)


def measure(out: Path, *arguments: object) -> Result:
    return in_this_process("measure_plans", "--out", out, "--seeds", 2, "--num-envs", 4, *SMALL, *arguments)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    path = tmp_path_factory.mktemp("plans") / "plans.jsonl"
    result = measure(path, "--plans", 3, "--vectorization", "loop")
    assert result.code == 0, result.stderr
    return path, result


def test_every_plan_meets_every_seed_at_as_many_images(out: tuple[Path, Result]) -> None:
    *lines, summary = map(json.loads, out[0].read_text().splitlines())
    assert len(lines) == 8 * 2 == len({(line["label"], line["seed"]) for line in lines})
    assert {line["seed"] for line in lines} == {2_000_000, 2_000_001}
    assert summary["synthesized"] == [4 * 16]
    assert summary["settings"]["plans"] == 3 and "out" not in summary["settings"]
    assert summary["backend"].startswith("loop")


def test_summary_and_tables_follow_from_the_lines(out: tuple[Path, Result]) -> None:
    *lines, summary = map(json.loads, out[0].read_text().splitlines())
    accuracy: dict[str, list[float]] = {}
    gains: dict[str, list[float]] = {}
    for line in lines:
        accuracy.setdefault(line["label"], []).append(line["final"]["accuracy"])
        gains.setdefault(line["label"], []).append(line["gains"]["probe_discrepancy"])
    means = [np.array([np.mean(values[label]) for label in accuracy]) for values in (gains, accuracy)]
    assert summary["probe_discrepancy"]["rank_correlation"]["mean"] == pytest.approx(spearmanr(*means).statistic)
    deviation = float(np.median([np.std(values, ddof=1) for values in accuracy.values()]))
    assert summary["seed_deviation_median"] == pytest.approx(deviation)
    shares = between_group_share(*gains.values())
    assert summary["probe_discrepancy"]["plan_share"]["mean"] == pytest.approx(shares)
    better = sorted(accuracy, key=lambda label: -float(np.mean(accuracy[label])))[:4]
    share = summary["probe_discrepancy"]["plan_share_better_half"]["mean"]
    assert share == pytest.approx(between_group_share(*(gains[label] for label in better)))
    table = out[1].stdout
    assert f"| share of the return's variance between plans, probe_discrepancy | {shares:.2f} |" in table, (
        "two seeds have no interval"
    )
    best = max(accuracy, key=lambda label: float(np.mean(accuracy[label])))
    assert f"| {best} | {np.mean(accuracy[best]):.4f} (" in table.splitlines()[3]
    assert f"| rank correlation of plan means, probe_discrepancy | {spearmanr(*means).statistic:.2f} |" in table
    assert (out[0].parent / "plans.png").read_bytes().startswith(b"\x89PNG")


def test_discrete_scheme_plays_every_named_plan_in_a_group(tmp_path: Path) -> None:
    result = measure(tmp_path / "plans.jsonl", "--action", "plans", "--vectorization", "grouped")
    assert result.code == 0, result.stderr
    *lines, _ = map(json.loads, (tmp_path / "plans.jsonl").read_text().splitlines())
    assert [line["label"] for line in lines[: len(NAMED_PLANS)]] == list(NAMED_PLANS)
    assert [line["action"] for line in lines[: len(NAMED_PLANS)]] == list(range(len(NAMED_PLANS)))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--plans", -1), "--plans -1: expected at least 0"),
        (("--seeds", 1), "--seeds 1: expected at least 2"),
        (("--num-envs", 0), "--num-envs 0: expected at least 1"),
        (("--action", "exponent"), "action='exponent' is unknown"),
        (("--env-id", "SSDKD/None-v2"), "env_id='SSDKD/None-v2' is unknown"),
        (("--vectorization", "groups"), "vectorization='groups' is unknown"),
        (("--env.action", "full"), "--env.action full: give --action"),
        (("--env.rounds-per-step", 4), "--env.rounds-per-step 4: leave it out"),
        (("--env.evaluate-every-rounds", 2), "--env.evaluate-every-rounds 2: leave it out"),
        (("--env.task", "tests.envs.own_networks:DIGITS_WITHOUT_DATA"), "no real images to measure accuracy on"),
        (("--env-kwargs", "action=full"), "give --env.action full"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_before_anything_is_played(
    arguments: tuple[object, ...], match: str, tmp_path: Path
) -> None:
    assert_refused(in_this_process("measure_plans", "--out", tmp_path / "x.jsonl", *arguments), match)
    assert list(tmp_path.iterdir()) == []


def test_results_are_not_written_over(out: tuple[Path, Result]) -> None:
    before = out[0].read_bytes()
    assert_refused(measure(out[0]), "exists; choose another file")
    assert out[0].read_bytes() == before


@pytest.mark.parametrize("name", ["plans.png", "plans", "plans.json"])
def test_results_are_not_drawn_over(name: str, tmp_path: Path) -> None:
    assert_refused(measure(tmp_path / name), "expected a name that ends in .jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["observations", "overhead"])
def test_measurements_of_nothing_are_refused(kind: str, tmp_path: Path) -> None:
    result = in_this_process("measure", kind, "--out", tmp_path / "x.jsonl", "--episodes", 0)
    assert_refused(result, "--episodes 0: expected at least 1")


def test_constants_of_observations_are_mean_and_deviation_of_an_episode_alone(tmp_path: Path) -> None:
    result = in_this_process("measure", "observations", "--out", tmp_path / "o.jsonl", "--episodes", 1)
    assert result.code == 0, result.stderr
    *lines, about = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert "torch" in about["versions"]
    assert [line["entry"] for line in lines] == list(ENTRIES)
    env = SSDKDEnv(observation="unscaled")
    actions = batch_space(env.action_space, 1)
    actions.seed(0)
    seen = [env.reset(seed=2_000_000)[0]]
    seen += [env.step(actions.sample()[0])[0] for _ in range(env.budget.rounds)]
    for line, column in zip(lines, np.array(seen, dtype=np.float64).T, strict=False):
        assert line["mean"] == pytest.approx(sum(column) / len(column), abs=1e-5)
        squares = ((column - column.mean()) ** 2).sum() / len(column)
        assert line["deviation"] == pytest.approx(squares**0.5, abs=1e-5)
        assert f"| {line['entry']} | {line['mean']:.3f} | {line['deviation']:.3f} |" in result.stdout
