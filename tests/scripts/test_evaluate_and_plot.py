"""`evaluate_sampler` and `plot`: from a trained sampler to a table and a picture."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image
from matplotlib.figure import Figure
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episode
from ssdkd_agents.benchmarking.replay import replay
from ssdkd_agents.benchmarking.sampler_report import make_sampler_table
from ssdkd_agents.commands.evaluate import Evaluation
from ssdkd_agents.lines import read_lines
from ssdkd_agents.plotting import plots
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.samplers import RandomSampler, Sampler, make_sampler
from ssdkd_agents.seeds import HELD_OUT_SEED, shared_out, unequally_shared

from ssdkd_env.envs import SSDKDEnv
from tests.agents.trainings import interrupt_after
from tests.envs.episodes import SMALL_PROBE, WORK_BUDGET
from tests.scripts.commands import (
    ENV_BUDGET,
    SMALL_PPO,
    Result,
    assert_refused,
    assert_resumes,
    contents,
    in_process_of_its_own,
    in_this_process,
    press_ctrl_c,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trained sampler."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    result = in_this_process(
        "train_sampler", "--out", out, "--timesteps", 12, "--no-progress-bar", "--checkpoint-every-steps", 6,
        *ENV_BUDGET, "--hyperparameters", *SMALL_PPO,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def evaluated(run: Path) -> tuple[Path, Result]:
    """Folder of an evaluation of that sampler beside the paper's, by a process of its own."""
    out = run.parent / "evaluation"
    result = in_process_of_its_own(
        "evaluate_sampler", "--out", out, "--samplers", run, "paper", "--episodes", 2, "--processes", 1,
        *ENV_BUDGET,
    )  # fmt: skip
    assert result.code == 0, result.stderr[-3000:]
    return out, result


def evaluate(out: Path, *arguments: object) -> Result:
    return in_this_process("evaluate_sampler", "--out", out, "--processes", 1, "--episodes", 1, *ENV_BUDGET, *arguments)


@pytest.mark.parametrize(("first", "said"), [(HELD_OUT_SEED - 1, True), (HELD_OUT_SEED, False)])
def test_seeds_that_may_have_been_trained_on_are_said(first: int, said: bool, tmp_path: Path) -> None:
    result = evaluate(tmp_path / "out", "--samplers", "uniform", "--first-seed", first)
    assert result.code == 0, result.stderr
    for text in (result.stdout, (tmp_path / "out" / "table.md").read_text()):
        assert ("a trained sampler may have been made on these episodes" in text) == said


def test_folder_holds_lines_table_and_settings(evaluated: tuple[Path, Result]) -> None:
    out, result = evaluated
    assert {path.name for path in out.iterdir()} == {"config.json", "command.txt", "results.jsonl", "table.md", ".lock"}
    table = make_sampler_table(read_lines(out / "results.jsonl"))
    assert table in result.stdout
    assert (out / "table.md").read_text().startswith(table)
    assert "4/4" in result.stderr
    assert "Intervals: 95 % percentile bootstrap, 10,000 resamples, over the seeds" in result.stdout


def test_samplers_play_the_same_held_out_seeds(evaluated: tuple[Path, Result], run: Path) -> None:
    lines = read_lines(evaluated[0] / "results.jsonl")
    played = sorted((line["sampler"], line["seed"]) for line in lines)
    assert played == sorted((s, HELD_OUT_SEED + i) for s in (str(run), "paper") for i in range(2))
    config = json.loads((evaluated[0] / "config.json").read_text())
    assert config["samplers"] == [str(run), "paper"]


def test_lines_can_be_played_again(evaluated: tuple[Path, Result]) -> None:
    """By another process than the one that made them."""
    for line in read_lines(evaluated[0] / "results.jsonl"):
        again = run_episode(EpisodeConfig(**{key: line[key] for key in ("env_id", "sampler", "seed", "env_kwargs")}))
        for name in ("return", "final", "held_out_accuracy", "actions", "distributions", "buffer_bytes"):
            assert again[name] == line[name]


def test_second_evaluation_into_the_folder_is_refused(evaluated: tuple[Path, Result]) -> None:
    before = contents(evaluated[0])
    assert_refused(evaluate(evaluated[0], "--samplers", "paper"), "is not empty")
    assert contents(evaluated[0]) == before


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--samplers", "paper", "nope"), "sampler='nope'"),
        (("--samplers",), "samplers"),
        (("--env-id", "SSDKD/Nope-v2"), "env_id='SSDKD/Nope-v2' is unknown"),
        (("--env-id", "CartPole-v1"), "CartPole-v1"),
        (("--env-kwargs", "foo"), "give --env.NAME VALUE"),
        (("--env.method", "bogus"), "method='bogus' is unknown"),
        (("--env.budget.preset", "bogus"), "budget['preset']: task 'digits' has one budget only"),
        (("--processes", "0"), "--processes 0: expected at least 1"),
        (("--episodes", "0"), "--episodes 0: expected at least 1"),
        (("--executor", "dask"), "--executor='dask' is unknown; choose one of: local, ray"),
        (("--gpus-per-job", "0.5"), "--gpus-per-job is of a Ray cluster; give --executor ray, too, or leave it out"),
        (("--executor", "ray", "--cpus-per-job", "0"), "cpus_per_job=0.0: expected a number above 0"),
        (("--first-seed", "-1"), "seed=-1: expected a whole number from 0 to 2**63 - 1"),
        (("--first-seed", str(2**63)), f"seed={2**63}: expected a whole number from 0 to 2**63 - 1"),
        (("--episodes", "2", "--first-seed", str(2**63 - 1)), f"seed={2**63}: expected a whole number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_argument_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], match: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    base = {"--processes": "1", "--episodes": "1"}
    base.pop(arguments[0], None)
    flat = [part for pair in base.items() for part in pair]
    result = in_this_process("evaluate_sampler", "--out", out, *flat, *arguments)
    if result.stderr.startswith("error: "):
        assert_refused(result, match)
    else:  # the parser may refuse it itself, in a box of its own
        assert result.code == 2, result.stderr[-3000:]
        assert "Traceback" not in result.stderr
        assert match in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("runs", ["a=b,b", "a="])
def test_odd_groups_of_runs_are_refused_by_the_options_name(runs: str, tmp_path: Path) -> None:
    assert_refused(in_this_process("plot", "--out", tmp_path / "plot.png", "--runs", runs), "error: runs: '")


def test_bad_sampler_files_are_refused(run: Path, tmp_path: Path) -> None:
    whole = (run / "checkpoints" / "12.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    (tmp_path / "empty").mkdir()
    for name in ("cut.safetensors", "empty"):
        assert_refused(evaluate(tmp_path / "out", "--samplers", tmp_path / name), name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_place_that_cannot_be_written_is_refused(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(evaluate(tmp_path / out, "--samplers", "paper"), str(tmp_path / out))
    assert contents(tmp_path) == {"file": b"mine"}


def test_interrupted_evaluation_in_processes_keeps_its_lines(tmp_path: Path) -> None:
    lines = tmp_path / "out" / "results.jsonl"
    result = press_ctrl_c(
        lines, "evaluate_sampler", "--out", tmp_path / "out", "--samplers", "paper", "--episodes", 500,
        *ENV_BUDGET,
    )  # fmt: skip
    assert result.code == 130, result.stderr[-3000:]
    assert result.complaint == "stopped"
    assert "Traceback" not in result.stderr
    assert 1 <= len(read_lines(lines)) < 500
    assert "of 500 episodes are played; continue with:" in result.stdout
    assert_resumes(result, "evaluate_sampler", tmp_path / "out")


def lines_of(folder: Path) -> list[tuple[str, int, float]]:
    return sorted((line["sampler"], line["seed"], line["return"]) for line in read_lines(folder / "results.jsonl"))


TWO = ("--processes", 1, "--episodes", 2, *ENV_BUDGET, "--samplers", "paper", "uniform")


def test_interrupted_evaluation_writes_its_table_and_goes_on(tmp_path: Path) -> None:
    """Episodes have three steps: the third is cut short, and played again."""
    out = tmp_path / "out"
    with interrupt_after(7):
        result = in_this_process("evaluate_sampler", "--out", out, *TWO)
    assert (result.code, result.complaint) == (130, "stopped")
    assert "2 of 4 episodes are played; continue with:" in result.stdout
    assert_resumes(result, "evaluate_sampler", out)
    lines = read_lines(out / "results.jsonl")
    assert [(line["sampler"], line["seed"]) for line in lines] == [(s, HELD_OUT_SEED) for s in ("paper", "uniform")]
    assert (out / "table.md").read_text().startswith(make_sampler_table(lines))
    refused = in_this_process("evaluate_sampler", "--out", out, "--resume", "--episodes", 3)
    assert_refused(refused, "--episodes 3: --resume goes on with the run's own settings")

    result = in_this_process("evaluate_sampler", "--out", out, "--resume", "--processes", 1)
    assert result.code == 0, result.stderr
    assert "continue with" not in result.stdout and "4/4 episodes" in result.stderr
    in_this_process("evaluate_sampler", "--out", tmp_path / "whole", *TWO)
    assert lines_of(out) == lines_of(tmp_path / "whole")
    assert (out / "table.md").read_text().startswith(make_sampler_table(read_lines(out / "results.jsonl")))
    assert in_this_process("evaluate_sampler", "--out", out, "--resume").code == 0, "there is nothing left to play"


class Ill(RandomSampler):
    def predict(self, *arguments: Any, **keywords: Any) -> Any:
        raise RuntimeError("out of something")


def falls_ill(env: SSDKDEnv, seed: int) -> Sampler:
    """The paper's sampler, which cannot play one seed as long as a variable is set."""
    ill = seed == HELD_OUT_SEED + 1 and "ILL" in os.environ
    return Ill(env.action_space) if ill else make_sampler("paper", env, seed)


def test_episode_that_is_lost_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, name = tmp_path / "out", f"{falls_ill.__module__}:{falls_ill.__name__}"
    monkeypatch.setenv("ILL", "yes")
    result = in_this_process("evaluate_sampler", "--out", out, *TWO, name)
    assert_refused(result, f"1 of 6 episodes failed, the others are done; the first is sampler '{name}', seed ")
    assert "5 of 6 episodes are played; continue with:" in result.stdout
    assert "| paper | 2 |" in (out / "table.md").read_text()
    monkeypatch.delenv("ILL")
    result = in_this_process("evaluate_sampler", "--out", out, "--resume", "--processes", 1)
    assert result.code == 0, result.stderr
    assert len(lines_of(out)) == 6


def test_folder_of_something_else_is_not_evaluated_on(run: Path) -> None:
    before = contents(run)
    result = in_this_process("evaluate_sampler", "--out", run, "--resume")
    assert_refused(result, "was not made by ssdkd evaluate")
    assert contents(run) == before


def test_checkpoint_that_is_taken_is_said(run: Path, tmp_path: Path) -> None:
    """A run's folder stands for its last checkpoint, which need not be its best."""
    result = evaluate(tmp_path / "out", "--samplers", run, "paper")
    assert f"{run}: its last checkpoint, of 12 steps, is taken; its best in validation, too" in result.stdout
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (other / "best.safetensors").unlink()
    said = f"{other}: its last checkpoint, of 12 steps, is taken; it has no best, because none was validated"
    assert said in evaluate(tmp_path / "again", "--samplers", other, "paper").stdout
    shutil.copy(run / "checkpoints" / "6.safetensors", other / "best.safetensors")
    result = in_this_process("export_sampler", "--out", tmp_path / "exported", "--sampler", other)
    assert f"is taken; {other / 'best.safetensors'} is the best, of 6 steps" in result.stdout


# --- plot ---


def test_plot_of_run_and_evaluation(run: Path, evaluated: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "curve.png"
    result = in_process_of_its_own("plot", "--out", out, "--runs", run, "--results", evaluated[0] / "results.jsonl")
    assert result.code == 0, result.stderr
    assert f"plot: {out}" in result.stdout
    assert image.imread(out).std() > 0.01


def test_plot_of_runs_alone(run: Path, tmp_path: Path) -> None:
    assert in_this_process("plot", "--out", tmp_path / "curve.png", "--runs", run).code == 0
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_runs_of_one_name_in_two_folders_are_both_drawn(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / run.name
    other.mkdir()
    (other / "episodes.jsonl").write_bytes((run / "episodes.jsonl").read_bytes())
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    assert in_this_process("plot", "--out", tmp_path / "curve.png", "--runs", run, other).code == 0
    assert len(figures[0].axes[0].lines) == 4, "points and mean of two runs"


def lines_file(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_plot_of_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve.png"
    lines_file(tmp_path / "started" / "episodes.jsonl")
    lines_file(tmp_path / "foreign" / "episodes.jsonl", {"x": 1})
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "episodes.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for name, match in (
        ("none", "none"),
        ("empty", "empty"),
        ("started", "no finished training episode"),
        ("foreign", "foreign"),
        ("binary", "binary"),
    ):
        assert_refused(in_this_process("plot", "--out", out, "--runs", tmp_path / name), match)
    assert not out.exists()


def test_plot_of_what_are_no_results_is_refused(run: Path, tmp_path: Path) -> None:
    """Such as the lines of the training in place of those of an evaluation."""
    out = tmp_path / "curve.png"
    for path in (tmp_path / "none.jsonl", tmp_path, run / "episodes.jsonl", run / "config.json"):
        assert_refused(in_this_process("plot", "--out", out, "--runs", run, "--results", path), path.name)
    assert not out.exists()


def test_plot_into_a_place_that_cannot_be_written_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = in_this_process("plot", "--out", tmp_path / "file" / "curve.png", "--runs", run)
    assert_refused(result, "cannot write")


def test_mean_curves_of_groups_and_of_algorithms(run: Path, evaluated: tuple[Path, Result], tmp_path: Path) -> None:
    other = tmp_path / "second"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("checkpoints"))  # by which it is known to be the same
    for name, arguments in (("group", [f"mine={run},{other}"]), ("algorithm", [run, other, "--by-algorithm"])):
        out = tmp_path / f"{name}.png"
        result = in_this_process(
            "plot", "--out", out, "--runs", *arguments, "--results", evaluated[0] / "results.jsonl"
        )
        assert result.code == 0, result.stderr
        assert image.imread(out).std() > 0.01


def test_odd_settings_of_a_plot_are_refused(run: Path, tmp_path: Path) -> None:
    for arguments, match in ((("--window", 0), "--window 0"), (("--score", "loss"), "score='loss'")):
        assert_refused(in_this_process("plot", "--out", tmp_path / "x.png", "--runs", run, *arguments), match)
    assert_refused(in_this_process("plot", "--out", tmp_path / "x.png", "--runs", f"a={tmp_path / 'none'}"), "none")


def test_instances_of_a_set_take_turns() -> None:
    """For every sampler alike, and without a set each seed draws as ever."""
    rows = {"paper": "paper", "uniform": "uniform"}
    evaluation = Evaluation(rows, "SSDKD/Digits-v2", 26, HELD_OUT_SEED, {"instances": "digits-work-train"})
    for sampler in rows:
        own = [config for config in evaluation.configs() if config.sampler == sampler]
        assert [config.seed for config in own] == [*range(HELD_OUT_SEED, HELD_OUT_SEED + 26)]
        instances = [config.instance for config in own]
        assert sorted(instances[:24]) == [*range(24)]  # type: ignore[type-var]
        assert instances == shared_out(26, 24) and instances[:8] != [*range(8)]
    assert {config.instance for config in replace(evaluation, env_kwargs={}).configs()} == {None}


def test_a_seed_plays_one_instance_however_seeds_are_divided() -> None:
    rows, settings = {"paper": "paper"}, {"instances": "digits-train"}
    whole = Evaluation(rows, "SSDKD/Digits-v2", 12, HELD_OUT_SEED, settings).configs()
    parts = [Evaluation(rows, "SSDKD/Digits-v2", 6, HELD_OUT_SEED + skip, settings).configs() for skip in (0, 6)]
    assert [*parts[0], *parts[1]] == whole


def test_an_episode_plays_its_instance() -> None:
    kwargs = {"instances": "tests.envs.own_networks:SMALL_SET", "budget": WORK_BUDGET, "probe": SMALL_PROBE}
    for instance in (5, 2):
        line = run_episode(EpisodeConfig("SSDKD/Digits-v2", "paper", HELD_OUT_SEED, kwargs, instance))
        assert line["final"]["instance"] == line["instance"] == instance
        assert replay(line, "sampler", 0.0).difference == ""


def test_uneven_shares_are_said() -> None:
    assert unequally_shared(48, 24) is None
    assert "a multiple of 24 plays all of them equally often" in str(unequally_shared(20, 24))


def test_lines_of_another_instance_are_not_taken_for_what_is_wanted(tmp_path: Path) -> None:
    """As an earlier version drew them."""
    kwargs = ("--env.instances", "tests.envs.own_networks:SMALL_SET", "--plugins", "tests.envs.own_networks")
    small = [
        word for name in ("warmup-rounds", "inversion-steps", "student-steps") for word in (f"--env.budget.{name}", 1)
    ]
    probe = [word for name in ("generators", "batches", "kept", "steps") for word in (f"--env.probe.{name}", 1)]
    out = tmp_path / "out"
    options = ("--samplers", "paper", "--episodes", 2, "--processes", 1, *kwargs, *small, *probe)
    result = in_this_process("evaluate_sampler", "--out", out, *options)
    assert result.code == 0, result.stderr[-2000:]
    assert "2 episodes on 8 instances: some are played once more" in result.stdout
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    lines[0].pop("instance")
    lines[0].pop("crc32")
    (out / "results.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert_refused(in_this_process("evaluate_sampler", "--out", out, "--resume"), "was played on another instance")


def test_training_that_goes_on_meanwhile_is_seen(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder stands for the last checkpoint, which must not be another one from episode to episode."""
    going, hidden = tmp_path / "ppo", tmp_path / "hidden"
    shutil.copytree(run, going)
    later = going / "checkpoints" / "12.safetensors"
    later.rename(hidden)
    original = RunFolder.append

    def append(self: RunFolder, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if hidden.exists():
            hidden.rename(later)

    monkeypatch.setattr(RunFolder, "append", append)
    out = tmp_path / "out"
    options = ("--samplers", going, "--episodes", 2, "--processes", 1, *ENV_BUDGET)
    result = in_this_process("evaluate_sampler", "--out", out, *options)
    assert_refused(result, "is another one than in the episodes before: its training goes on")
    assert len(read_lines(out / "results.jsonl")) == 1
