"""`search_plan`: finds an action that `evaluate_sampler` takes, stops cleanly on Ctrl-C, goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ssdkd_agents.lines import read_lines

from tests.scripts.commands import ENV_BUDGET, assert_refused, assert_resumes, contents, in_this_process, press_ctrl_c

SMALL = (*ENV_BUDGET, "--vectorization", "loop", "--num-envs", "2", "--no-progress-bar")


def test_search_ends_with_an_action_that_can_be_evaluated(tmp_path: Path) -> None:
    out = tmp_path / "cma"
    result = in_this_process(
        "search_plan", "--out", out, "--searcher", "cma", "--episodes", 5, "--population", 4, "--seed", 7, *SMALL
    )
    assert result.code == 0, result.stderr
    config = json.loads((out / "config.json").read_text())
    assert (config["searcher"], config["episodes"], config["seed"], config["num_envs"]) == ("cma", 5, 7, 2)
    assert config["env_kwargs"]["budget"]["rounds"] == 3
    assert len(read_lines(out / "episodes.jsonl")) == 5
    assert f"curves: tensorboard --logdir {out}" in result.stdout
    (name,) = re.findall("name for ssdkd evaluate: '(constant:.*)'", result.stdout)

    before = contents(out)
    assert_refused(in_this_process("search_plan", "--out", out, *SMALL), f"out={str(out)!r} is not empty")
    assert in_this_process("search_plan", "--out", out, "--resume").code == 0, "nothing is left to do"
    assert contents(out) == before

    result = in_this_process(
        "evaluate_sampler", "--out", tmp_path / "evaluation", "--samplers", name, "--episodes", 1, "--processes", 1,
        *ENV_BUDGET,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    (line,) = read_lines(tmp_path / "evaluation" / "results.jsonl")
    assert line["actions"][0] == pytest.approx(json.loads((out / "constant.json").read_text())["action"])


def test_interrupted_search_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = press_ctrl_c(out / "episodes.jsonl", "search_plan", "--out", out, "--episodes", 60, *SMALL)
    assert result.code == 130, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert_resumes(result, "search_plan", out)
    episodes = read_lines(out / "episodes.jsonl")
    assert len(episodes) >= 2
    assert json.loads((out / "constant.json").read_text())["episodes"] == len(episodes)

    result = in_this_process("search_plan", "--out", out, "--resume", "--no-progress-bar")
    assert result.code == 0, result.stderr[-3000:]
    assert "finished; best constant" in result.stdout
    played = read_lines(out / "episodes.jsonl")
    assert (played[: len(episodes)], len(played)) == (episodes, 60)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--env-id", "SSDKD/Nope-v2"), "env_id='SSDKD/Nope-v2' is unknown"),
        (("--env-id", "CartPole-v1"), "env_id='CartPole-v1' is no distillation environment"),
        (("--searcher", "grid"), "searcher='grid' is unknown; choose one of: cma, random"),
        (("--searcher", "cma", "--episodes", "15"), "episodes=15: expected at least population=16"),
        (("--env-kwargs", "action=full"), "give --env.action full"),
        (("--env.student.lr", "-1"), "student['lr']=-1.0: expected a number of at least 0"),
        (("--seed", "1000"), "seed=1000"),
        (("--episodes", "0"), "episodes=0"),
        (("--num-envs", "0"), "num_envs=0"),
        (("--final-share", "1"), "final_share=1.0"),
        (("--vectorization", "threads"), "vectorization='threads' is unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_argument_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], match: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert_refused(in_this_process("search_plan", "--out", out, *arguments), match)
    assert not out.exists()


def test_folder_that_holds_no_search_is_not_resumed(tmp_path: Path) -> None:
    assert_refused(in_this_process("search_plan", "--out", tmp_path, "--resume"), "holds no run")
    (tmp_path / "config.json").write_text('{"env_id": "SSDKD/Digits-v2", "algorithm": "ppo"}')
    assert_refused(in_this_process("search_plan", "--out", tmp_path, "--resume"), "was not made by ssdkd search")
    assert set(contents(tmp_path)) == {"config.json"}
