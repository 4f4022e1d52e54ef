"""What commands take for the same: the content of files, not how they are called or from where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.analysis.results import read_results
from ssdkd_agents.lines import append_line, read_lines

from tests.agents.benchmarking.test_sampler_report import line
from tests.agents.test_inputs import OTHER_TEACHER, sha256, teacher
from tests.agents.trainings import interrupt_after
from tests.scripts.bad_files import SHIPPED_TEACHER
from tests.scripts.commands import ENV_BUDGET, SMALL_PPO, assert_refused, contents, in_this_process

__all__ = ["teacher"]
PROBE = ("--env.probe.batches", 1, "--env.probe.kept", 1, "--env.probe.steps", 1)
RESUMED: dict[str, tuple[object, ...]] = {
    "train_sampler": ("--timesteps", 18, "--evaluate-every-steps", 0, "--hyperparameters", *SMALL_PPO),
    "search_plan": ("--episodes", 6, "--num-envs", 2, "--vectorization", "loop"),
    "evaluate_sampler": ("--episodes", 2, "--processes", 1, "--samplers", "paper", "uniform"),
    "benchmark": ("--seeds", 2, "--processes", 1, "--methods", "ssdkd", "fast2"),
}


@pytest.mark.parametrize("command", RESUMED)
def test_teacher_that_was_replaced_is_refused_and_put_back_goes_on_from_any_folder(
    command: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same, relative, path; the run is then continued from another folder."""
    monkeypatch.chdir(tmp_path)
    with interrupt_after(7):
        arguments = (*ENV_BUDGET, *PROBE, "--env.teacher", "tea.safetensors", *RESUMED[command])
        began = in_this_process(command, "--out", "run", *arguments)
    assert began.code == 130, began.stderr
    shutil.copy(SHIPPED_TEACHER, teacher)
    before = contents(tmp_path / "run")
    refused = in_this_process(command, "--out", "run", "--resume")
    first = sha256(OTHER_TEACHER)[:12]
    assert_refused(refused, f"{teacher} was changed since run began with it (SHA-256 {first}, now ")
    assert contents(tmp_path / "run") == before

    shutil.copy(OTHER_TEACHER, teacher)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = in_this_process(command, "--out", "../run", "--resume")
    assert result.code == 0, result.stderr
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert recorded["inputs"][str(teacher)] == sha256(OTHER_TEACHER)


def test_lines_name_files_by_their_content(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of teachers of one path and two contents, and of two paths and one content."""
    other = tmp_path / "copy"
    other.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(teacher.with_suffix(suffix), other / f"b{suffix}")
    monkeypatch.chdir(tmp_path)
    small = (*ENV_BUDGET, *PROBE, "--samplers", "paper", "--episodes", 1, "--processes", 1)
    for out, path in (("one", "tea.safetensors"), ("same", "copy/b.safetensors"), ("other", "tea.safetensors")):
        if out == "other":
            shutil.copy(SHIPPED_TEACHER, teacher)
        assert in_this_process("evaluate_sampler", "--out", out, "--env.teacher", path, *small).code == 0
    (found,) = read_lines(Path("one/results.jsonl"))
    assert found["env_kwargs"]["teacher"] == str(teacher)
    read = [teacher, teacher.with_suffix(".json")]
    assert found["inputs"] == {str(file): sha256(OTHER_TEACHER.with_suffix(file.suffix)) for file in read}

    files = [Path(out) / "results.jsonl" for out in ("one", "same", "other")]
    assert in_this_process("compare_samplers", "--results", *files[:2]).code == 0
    refused = in_this_process("compare_samplers", "--results", files[0], files[2])
    changed = f"{teacher} had another content (SHA-256 {sha256(OTHER_TEACHER)[:12]}, {sha256(SHIPPED_TEACHER)[:12]})"
    assert_refused(refused, f"which cannot be compared: {changed}; give files of one environment")
    assert in_this_process("leaderboard", "--out", "BOARD.md", "--results", *files).code == 0
    titles = [text for text in Path("BOARD.md").read_text().splitlines() if text.startswith("## ")]
    assert len(titles) == 2 and all("sha256:" in title and str(tmp_path) not in title for title in titles)


def test_lines_without_digests_are_read_and_compared_as_before(tmp_path: Path) -> None:
    files = []
    for name, sampler in (("a", "paper"), ("b", "uniform")):
        files.append(tmp_path / f"{name}.jsonl")
        for seed in range(5):
            kwargs = {"teacher": "tea.safetensors"}
            append_line(files[-1], line(sampler, seed, 0.1 * seed, env_kwargs=kwargs) | {"actions": []})
    assert "inputs" not in read_results(files[0])[0]
    assert in_this_process("compare_samplers", "--results", *files).code == 0
    assert in_this_process("leaderboard", "--out", tmp_path / "BOARD.md", "--results", *files).code == 0
    assert '`{"teacher": "tea.safetensors"}`' in (tmp_path / "BOARD.md").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ppo"
    small = ("--timesteps", 6, "--evaluate-every-steps", 0, "--no-progress-bar", *ENV_BUDGET)
    assert in_this_process("train_sampler", "--out", out, *small, "--hyperparameters", *SMALL_PPO).code == 0
    return out


def spellings(run: Path, folder: Path) -> list[str]:
    """Other names of one training."""
    (folder / "link").symlink_to(run)
    shutil.copytree(run, folder / "copy")
    checkpoint = run / "checkpoints" / "6.safetensors"
    files = (folder / "link", folder / "copy", checkpoint)
    return [f"{run}/", f"{run.parent}/./ppo", f"{run}/../ppo", *map(str, files)]


@pytest.mark.parametrize("spelling", range(6))
@pytest.mark.parametrize("form", ["{0}", "a={0}", "random_at_rate:{0}"])
def test_training_that_is_given_twice_is_refused(spelling: int, form: str, run: Path, tmp_path: Path) -> None:
    other = spellings(run, tmp_path)[spelling]
    first = str(run) if form != "random_at_rate:{0}" else f"random_at_rate:{run}"
    refused = in_this_process(
        "evaluate_sampler", "--out", tmp_path / "out", "--episodes", 1, "--samplers", first, form.format(other), "paper"
    )
    assert_refused(refused, f"is the same as '{first}'; give each once")
    if form != "random_at_rate:{0}":
        refused = in_this_process("plot", "--out", tmp_path / "x.png", "--runs", f"mine={run},{other}")
        assert_refused(refused, f"is the same as '{run}'; give each once")


def test_sampler_and_the_baseline_that_is_made_of_it_are_two(run: Path, tmp_path: Path) -> None:
    samplers = (run, f"random_at_rate:{run}")
    small = ("--episodes", 1, "--processes", 1, *ENV_BUDGET)
    result = in_this_process("evaluate_sampler", "--out", tmp_path / "out", *small, "--samplers", *samplers)
    assert result.code == 0, result.stderr


def test_training_under_two_names_in_two_files_counts_once(tmp_path: Path) -> None:
    """As a run that was evaluated by earlier versions, which wrote the path as it was typed."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, name, digest in zip(files, ("runs/a", "/home/me/runs/a"), ("d", "d"), strict=True):
        for seed in range(5):
            values: dict[str, Any] = {"group": "ppo", "sampler_digest": digest}
            append_line(file, line(name, seed, 0.1 * seed, **values) | {"actions": []})
        append_line(file, line("paper", 0, 0.5) | {"actions": []})
    table = in_this_process("compare_samplers", "--results", *files).stdout
    assert "| ppo | 5 |" in table
    append_line(files[0], line("other", 0, 0.1, group="ppo", sampler_digest="e") | {"actions": []})
    assert "| ppo | 6 (2 training runs) |" in in_this_process("compare_samplers", "--results", *files).stdout


def test_evaluation_does_not_go_on_with_an_agent_that_has_trained_on(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ppo"
    shutil.copytree(run, copy)
    small = ("--episodes", 2, "--processes", 1, *ENV_BUDGET, "--samplers", copy, "paper")
    with interrupt_after(4):
        assert in_this_process("evaluate_sampler", "--out", tmp_path / "out", *small).code == 130
    shutil.copy(copy / "checkpoints" / "6.safetensors", copy / "checkpoints" / "12.safetensors")
    refused = in_this_process("evaluate_sampler", "--out", tmp_path / "out", "--resume")
    assert_refused(refused, f"{copy / 'checkpoints' / '12.safetensors'} is what would be evaluated now")
    (copy / "checkpoints" / "12.safetensors").unlink()
    assert in_this_process("evaluate_sampler", "--out", tmp_path / "out", "--resume").code == 0
    lines = read_lines(tmp_path / "out" / "results.jsonl")
    assert {each["sampler"] for each in lines} == {str(copy), "paper"} and len(lines) == 4
