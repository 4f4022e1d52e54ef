"""`measure_importance`: tables and lines of what a sampler reads and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.commands.given import as_words
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.algorithms import build_model
from ssdkd_agents.policies.storage import save_sampler
from ssdkd_agents.seeds import MEASUREMENT_SEED, shared_out
from ssdkd_agents.vec_env import DistillationVecEnv

from ssdkd_env.tasks import INSTANCE_SETS
from tests.agents.policies.test_storage import config_of
from tests.envs.episodes import BUDGET, SMALL_PROBE, make
from tests.scripts.commands import Result, assert_refused, in_this_process

KWARGS = as_words("--env.", {"budget": BUDGET, "probe": SMALL_PROBE})
SEEDS = 3
READ = "probe_agreement"
GROUPS = (
    "progress", "last_action", "trends", "buffer", "effective_sample_size", "candidate", "probe", "everything",
)  # fmt: skip


def measure(sampler: object, out: Path, *arguments: object) -> Result:
    return in_this_process(
        "measure_importance", "--sampler", sampler, "--out", out, "--seeds", SEEDS, "--num-envs", 2,
        "--vectorization", "loop", *KWARGS, *arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PPO policy that reads one entry only, in another scheme than the default."""
    config = config_of("ppo") | {"env_kwargs": {"action": "full"}}
    venv = DistillationVecEnv(1, {"budget": BUDGET, "probe": SMALL_PROBE, "action": "full"}, "loop")
    model = build_model("ppo", venv, config["hyperparameters"], seed=0)
    names = make(action="full").observation_names
    others = torch.arange(len(names)) != names.index(READ)
    policy: Any = model.policy
    with torch.no_grad():
        policy.mlp_extractor.policy_net[0].weight[:, others] = 0.0
        policy.action_net.weight.mul_(50.0)  # a fresh policy's actions hardly differ
    path = tmp_path_factory.mktemp("runs") / "reader.safetensors"
    save_sampler(path, model, config)
    venv.close()
    return path


@pytest.fixture(scope="module")
def measured(sampler: Path) -> tuple[Path, Result]:
    out = sampler.parent / "importance.jsonl"
    result = measure(sampler, out)
    assert result.code == 0, result.stderr
    return out, result


def table_of(text: str, first: str) -> dict[str, list[str]]:
    """Rows of the Markdown table whose header begins so."""
    lines = text[text.index(f"| {first} |") :].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: [*lines, ""].index("")]]
    return {row[0]: row[1:] for row in rows}


def test_only_the_entry_that_is_read_changes_the_action(measured: tuple[Path, Result]) -> None:
    names = make(action="full").observation_names
    read = read_lines(measured[0])[-1]["read"]
    assert {name for name, change in read.items() if change > 0} == {READ}
    rows = table_of(measured[1].stdout, "entry permuted")
    assert set(rows) == set(names)
    assert next(iter(rows)) == READ
    assert rows[READ] == [f"{read[READ]:.4f}"]


def test_only_its_group_changes_the_episodes(measured: tuple[Path, Result]) -> None:
    lines = [line for line in read_lines(measured[0]) if "replaced" in line]
    seeds = range(MEASUREMENT_SEED, MEASUREMENT_SEED + SEEDS)
    assert [(line["replaced"], line["seed"]) for line in lines] == [(g, s) for g in ("none", *GROUPS) for s in seeds]
    scores: dict[str, list[Any]] = {}
    for line in lines:
        scores.setdefault(line["replaced"], []).append((line["scores"], line["final"]["probe_discrepancy"]))
    assert {group for group in GROUPS if scores[group] != scores["none"]} == {"probe", "everything"}
    last = read_lines(measured[0])[-1]
    rows = table_of(measured[1].stdout, "entries of another episode")
    assert tuple(rows) == GROUPS
    for index, score in enumerate(last["differences"]):
        differences = [
            one[score] - calm[score] for (one, _), (calm, _) in zip(scores["probe"], scores["none"], strict=True)
        ]
        assert rows["probe"][index] == str(bootstrap_mean(differences))
        assert rows["buffer"][index] == str(bootstrap_mean([0.0] * SEEDS))
    assert {"return", "accuracy"} <= set(last["differences"])


def test_facts_of_instances_are_groups_of_their_own(tmp_path: Path) -> None:
    """And the instances take turns."""
    out = tmp_path / "importance.jsonl"
    budget = {name: value for name, value in BUDGET.items() if name not in ("buffer_capacity", "rounds")}
    options = {"budget": budget, "probe": SMALL_PROBE, "instances": "digits-train", "observation": "facts"}
    few = ("--seeds", SEEDS, "--num-envs", 2, "--vectorization", "loop", *as_words("--env.", options))
    result = in_this_process("measure_importance", "--sampler", "paper", "--out", out, *few)
    assert result.code == 0, result.stderr
    lines = [line for line in read_lines(out) if "replaced" in line]
    facts = ("buffer_batches", "own_rounds", "warm_up", "student_share")
    assert tuple(dict.fromkeys(line["replaced"] for line in lines)) == (
        "none", "progress", "last_action", *facts, "everything",
    )  # fmt: skip
    played = [[line["final"]["instance"] for line in lines if line["replaced"] == group] for group in ("none", *facts)]
    assert played == [shared_out(SEEDS, len(INSTANCE_SETS["digits-train"].instances))] * 5


def test_file_says_how_it_was_made(measured: tuple[Path, Result], sampler: Path) -> None:
    last = read_lines(measured[0])[-1]
    assert last["settings"]["sampler"] == str(sampler)
    assert last["settings"]["seeds"] == SEEDS
    assert len(last["sampler_digest"]) == 64
    assert {"versions", "machine", "backend"} <= last.keys()


@pytest.mark.parametrize("arguments", [("paper",), ("fifo", "--env.action", "plans")])
def test_control_reads_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "importance.jsonl"
    result = measure(arguments[0], out, *arguments[1:])
    assert result.code == 0, result.stderr
    assert set(read_lines(out)[-1]["read"].values()) == {0.0}
    for groups in read_lines(out)[-1]["differences"].values():
        assert all(value["mean"] == 0.0 and set(value["values"]) == {0.0} for value in groups.values())


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    out = tmp_path / "importance.jsonl"
    assert_refused(measure("random", out), "answers the same observations in another way the second time")
    assert_refused(measure("nobody", out), "sampler='nobody' is neither")
    assert_refused(measure("paper", out, "--seeds", 1), "--seeds 1: expected at least 2")
    assert_refused(measure("paper", out, "--num-envs", 0), "--num-envs 0: expected at least 1")
    assert_refused(measure("paper", out, "--vectorization", "warp"), "vectorization='warp'")
    assert_refused(measure("paper", out, "--env.rounds-per-step", 16), "it decides once an episode")
    assert not out.exists()
    out.touch()
    assert_refused(measure("paper", out), "exists; choose another file, or delete it first")
