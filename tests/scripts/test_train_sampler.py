"""`train_sampler`: trains, stops cleanly on Ctrl-C, goes on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import read_sampler
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from tests.scripts.commands import (
    ENV_BUDGET,
    SMALL_PPO,
    Result,
    assert_refused,
    assert_resumes,
    contents,
    in_this_process,
    press_ctrl_c,
)

SMALL = (*ENV_BUDGET, "--hyperparameters", *SMALL_PPO)


def train(out: Path, *arguments: object) -> Result:
    return in_this_process("train_sampler", "--out", out, "--no-progress-bar", *SMALL, *arguments)


def last_step(folder: Path) -> int:
    return int(find_sampler_file(folder).stem)


def press_ctrl_c_after_an_episode(out: Path, *arguments: object) -> Result:
    return press_ctrl_c(out / "episodes.jsonl", "train_sampler", "--out", out, "--timesteps", 100_000, *arguments)


def test_interrupted_run_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = press_ctrl_c_after_an_episode(out, *SMALL)
    assert result.code == 130, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert_resumes(result, "train_sampler", out)
    assert f"curves: tensorboard --logdir {out}" in result.stdout
    done = last_step(out)
    assert done >= 3
    assert read_sampler(find_sampler_file(out))["counters"]["num_timesteps"] == done
    assert len(read_lines(out / "episodes.jsonl")) >= done // 3

    rounded = (done + 12) // 6 * 6
    result = in_this_process("train_sampler", "--out", out, "--resume", "--timesteps", rounded)
    assert result.code == 0, result.stderr[-3000:]
    assert "finished; last checkpoint in" in result.stdout
    assert "best in validation: " in result.stdout, "the last agent is validated, however long the interval"
    assert last_step(out) >= rounded
    lines = [line["timesteps"] for line in read_lines(out / "episodes.jsonl")]
    assert lines == list(range(3, last_step(out) + 1, 3)), "none is missing, none is there twice"
    assert len({path.parent for path in out.rglob("events.out.tfevents.*")}) == 1


def test_interrupt_reaches_training_in_processes(tmp_path: Path) -> None:
    """Ctrl-C goes to every process of the group; only the first one may answer it, and none stays behind."""
    out = tmp_path / "run"
    result = press_ctrl_c_after_an_episode(out, *ENV_BUDGET, "--hyperparameters", "n_envs=2", "n_steps=3000")
    assert result.code == 130, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert last_step(out) == 0, "the long rollout was given up"


def test_run_leaves_its_configuration_and_can_be_extended(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(out, "--timesteps", 6, "--seed", 7, "--checkpoint-every-steps", 3)
    assert result.code == 0, result.stderr
    config = json.loads((out / "config.json").read_text())
    assert config["algorithm"] == "ppo"
    assert config["seed"] == 7
    assert config["env_kwargs"]["budget"]["rounds"] == 3
    assert config["hyperparameters"]["n_steps"] == 6
    samplers = [path.name for path in (out / "checkpoints").glob("*.safetensors") if path.stem.isdigit()]
    assert sorted(samplers) == ["0.safetensors", "6.safetensors"]
    assert (out / "command.txt").read_text().startswith("python ")

    before = contents(out)
    assert_refused(in_this_process("train_sampler", "--out", out, "--resume"), "has already done 6; ask for more")
    assert_refused(train(out, "--timesteps", 6), f"out={str(out)!r} is not empty")
    assert contents(out) == before

    result = in_this_process("train_sampler", "--out", out, "--resume", "--timesteps", 12, "--no-progress-bar")
    assert result.code == 0, result.stderr
    assert last_step(out) == 12
    state = read_sampler(find_sampler_file(out))
    assert state["config"]["hyperparameters"]["n_steps"] == 6, "the settings are the run's own"


def test_validation_names_the_best_and_patience_ends_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    # The first validation sets the best; without a learning rate no later one can be better.
    result = train(
        out, "learning_rate=0", "normalize=false", "--timesteps", 60, "--evaluate-every-steps", 6,
        "--evaluation-episodes", 1, "--patience", 1,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert "stopped early; last checkpoint in" in result.stdout
    assert f"best in validation: {out / 'best.safetensors'} (mean return " in result.stdout
    assert " after 6 steps)" in result.stdout
    assert last_step(out) == 12
    assert read_sampler(out / "best.safetensors")["counters"]["num_timesteps"] == 6
    assert [line["timesteps"] for line in read_lines(out / "evaluations.jsonl")] == [6, 12]


def test_run_without_a_best_says_so(tmp_path: Path) -> None:
    result = train(tmp_path / "run", "--timesteps", 7, "--evaluate-every-steps", 0)
    assert result.code == 0, result.stderr
    assert "steps: 12, because 7 are no whole number of rollouts of 6 (n_envs=1)" in result.stdout
    assert f"no best: evaluate_every_steps=0; {tmp_path / 'run'} stands for its last checkpoint" in result.stdout


def test_sac_trains(tmp_path: Path) -> None:
    out = tmp_path / "sac"
    result = in_this_process(
        "train_sampler", "--out", out, "--algo", "sac", "--timesteps", 6, "--no-progress-bar",
        *ENV_BUDGET, "--hyperparameters", "n_envs=1", "learning_starts=2", "batch_size=2",
        "buffer_size=20",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert last_step(out) == 6


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--env-id", "SSDKD/Nope-v2"), "env_id='SSDKD/Nope-v2' is unknown"),
        (("--env-id", "no_such_package:SSDKD/Digits-v2"), "env_id='no_such_package:SSDKD/Digits-v2' is unknown"),
        (("--env-id", "CartPole-v1"), "env_id='CartPole-v1' is no distillation environment"),
        (("--algo", "dqm"), "algo='dqm' is unknown; choose one of: a2c, ars, "),
        (("--algo", "dqn"), "add --env.action plans"),
        (("--env-kwargs", "action=full"), "give --env.action full"),
        (("--env.method-options.gamma", "-1"), "method_options['gamma']=-1.0: expected"),
        (("--env-kwargs", "budget=3"), "give --env.budget 3"),
        (("--env.budget.rounds", "0"), "budget['rounds']=0"),
        (("--env.reward", "nope"), "reward='nope' is unknown"),
        (("--env.teacher", "missing.safetensors"), "teacher='missing.safetensors'"),
        (("--hyperparameters", "foo"), "--hyperparameters 'foo': expected NAME=VALUE"),
        (("--hyperparameters", "bogus=1", "n_envs=1"), "bogus"),
        (("--hyperparameters", "learning_rate=fast", "n_envs=1"), "learning_rate"),
        (("--hyperparameters", "policy=Nope", "n_envs=1"), "Nope"),
        (("--hyperparameters", "n_envs=0"), "n_envs"),
        (("--hyperparameters", "n_envs=many"), "n_envs"),
        (("--hyperparameters", "n_timesteps=many", "n_envs=1"), "n_timesteps"),
        (("--seed", "1000"), "seed=1000"),
        (("--seed", "-1"), "seed=-1"),
        (("--timesteps", "-1"), "timesteps"),
        (("--checkpoint-every-steps", "0"), "checkpoint_every_steps"),
        (("--image-every-episodes", "0"), "image_every_episodes"),
        (("--evaluate-every-steps", "-1"), "evaluate_every_steps"),
        (("--evaluation-episodes", "0"), "evaluation_episodes=0"),
        (("--patience", "-1"), "patience"),
        (("--hyperparameters", "n_envs=501"), "at most 500"),
        (("--algo", "sac", "--timesteps", "100"), "['learning_starts']=128: the training ends after 104 steps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_argument_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], match: str, tmp_path: Path
) -> None:
    """So that the mended command can go into the same folder."""
    out = tmp_path / "out"
    assert_refused(in_this_process("train_sampler", "--out", out, *arguments), match)
    assert not out.exists()


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_place_that_cannot_be_written_is_refused(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(train(tmp_path / out, "--timesteps", 6), str(tmp_path / out))
    assert contents(tmp_path) == {"file": b"mine"}


CONFIGS = {
    "no configuration": None,
    "cut short": '{"env_id": ',
    "a list": "[1]",
    "of another script": '{"task": "digits", "seed": 0, "versions": {}}',
    "without an environment": '{"algorithm": "ppo"}',
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_folder_that_holds_no_training_is_not_resumed(config: str | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    before = contents(tmp_path)
    assert_refused(in_this_process("train_sampler", "--out", tmp_path, "--resume"), str(tmp_path))
    assert contents(tmp_path) == before


def test_missing_folder_is_not_resumed(tmp_path: Path) -> None:
    assert_refused(in_this_process("train_sampler", "--out", tmp_path / "none", "--resume"), "none holds no run")
    assert not (tmp_path / "none").exists()


def test_number_of_steps_that_was_asked_for_last_is_the_runs(tmp_path: Path) -> None:
    """Also of a run that was continued and stopped again: its plain --resume goes as far."""
    out = tmp_path / "run"
    assert train(out, "--timesteps", 6).code == 0
    assert in_this_process("train_sampler", "--out", out, "--resume", "--timesteps", 12).code == 0
    assert json.loads((out / "config.json").read_text())["timesteps"] == 12
    assert_refused(in_this_process("train_sampler", "--out", out, "--resume"), "timesteps=12: the run in")


def test_fewer_steps_than_are_done_are_refused_and_not_noted(tmp_path: Path) -> None:
    """Also where the run was to go further: it would end with fewer than it has."""
    out = tmp_path / "run"
    assert train(out, "--timesteps", 12).code == 0
    config = json.loads((out / "config.json").read_text())
    for interrupted in (False, True):
        if interrupted:
            (out / "config.json").write_text(json.dumps(config | {"timesteps": 600}))
            (out / "outcome.json").write_text('{"outcome": "interrupted", "timesteps": 12}')
        before = contents(out)
        words = ("--resume", "--timesteps", 6)
        assert_refused(in_this_process("train_sampler", "--out", out, *words), "timesteps=6: the run in")
        assert contents(out) == before


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("--algo", "sac"), "--algo sac"),
        (("--seed", "7"), "--seed 7"),
        (("--env.history", "2"), "--env.history 2"),
        (("--hyperparameters", "n_envs=2"), "--hyperparameters n_envs=2"),
    ],
)
def test_option_that_a_continued_run_does_not_take_is_refused(
    words: tuple[str, ...], given: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train(out, "--timesteps", 6).code == 0
    before = (out / "config.json").read_bytes()
    result = in_this_process("train_sampler", "--out", out, "--resume", "--timesteps", 12, *words)
    assert_refused(result, f"{given}: --resume goes on with the run's own settings; leave it out")
    assert (out / "config.json").read_bytes() == before


def test_agent_that_diverges_is_an_outcome(tmp_path: Path) -> None:
    words = [word for word in SMALL_PPO if not word.startswith("learning_rate")]
    result = in_this_process(
        "train_sampler", "--out", tmp_path / "run", "--no-progress-bar", *ENV_BUDGET, "--timesteps", 400,
        "--hyperparameters", *words, "learning_rate=1e7",
    )  # fmt: skip
    assert result.code == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    assert "the agent's answers are no numbers any more" in result.stdout
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["outcome"] == "diverged"


def test_full_disk_met_by_tensorboards_thread_is_said_in_one_line(tmp_path: Path) -> None:
    """Its error names no file, and comes in a thread of its own first."""
    out, write, records = tmp_path / "run", RecordWriter.write, []

    def write_some(self: RecordWriter, data: bytes) -> None:
        records.append(data)
        if len(records) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordWriter, "write", write_some)
        result = train(out, "--timesteps", 12, "--evaluate-every-steps", 0)
        assert_refused(result, "cannot write any more: No space left on device; free some space")
    assert in_this_process("train_sampler", "--out", out, "--resume", "--no-progress-bar").code == 0
    assert [line["timesteps"] for line in read_lines(out / "episodes.jsonl")] == [3, 6, 9, 12]
