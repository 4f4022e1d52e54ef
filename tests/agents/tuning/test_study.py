"""A study goes on as if it had never stopped, ends poor trials early and keeps what came of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.lines import append_line, read_lines
from ssdkd_agents.runs import EVALUATIONS_FILE, RunFolder
from ssdkd_agents.training.config import TrainingConfig
from ssdkd_agents.training.train import OUTCOME_FILE
from ssdkd_agents.training.validation import Evaluation
from ssdkd_agents.tuning import study
from ssdkd_agents.tuning.study import (
    BEST_TRIAL_FILE,
    TRIALS_FILE,
    StudyConfig,
    best_of,
    check_study,
    config_of_study,
    play_study,
)

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_json
from ssdkd_env.reading import read_json
from tests.agents.trainings import PPO

TRAINING = replace(PPO, timesteps=30, hyperparameters={}, evaluate_every_steps=10, evaluation_episodes=2)
CONFIG = StudyConfig(TRAINING, trials=14, startup=4)
STEPS = (10, 20, 30)


class Pretend:
    """A training in no time, whose return depends on two hyper-parameters, and rises with the steps."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.resumed: list[bool] = []
        #: Raises or interrupts, before the validation of so many steps of a trial.
        self.at: Callable[[int, int], str] = lambda trial, steps: ""

    def __call__(
        self, config: TrainingConfig, folder: RunFolder, resume: bool, progress_bar: bool, gives_up: Any
    ) -> str:
        number = int(folder.path.name)
        self.begun.append(config.hyperparameters)
        self.resumed.append(resume)
        state = folder.path / "checkpoints" / "0.state.safetensors"
        done = int(state.read_text()) if resume else 0
        for steps in (each for each in STEPS if each > done):
            happens = self.at(number, steps)
            if happens == "interrupted":
                write_json(folder.path / OUTCOME_FILE, {"outcome": happens})
                return happens
            if happens == "nan":
                raise ValueError("Expected parameter loc\nto satisfy")
            if happens == "killed":
                raise KeyboardInterrupt
            rate, clip = (config.hyperparameters[name] for name in ("learning_rate", "clip_range"))
            value = steps / 30 - (np.log10(rate) + 3) ** 2 - clip
            evaluation = Evaluation(steps, [1], [float(value)], [None], 0.1)
            append_line(folder.path / EVALUATIONS_FILE, evaluation.line())
            state.parent.mkdir(exist_ok=True)
            state.write_text(str(steps))
            if gives_up(evaluation):
                write_json(folder.path / OUTCOME_FILE, {"outcome": "stopped early"})
                return "stopped early"
        write_json(folder.path / OUTCOME_FILE, {"outcome": "finished"})
        return "finished"


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    made = Pretend()
    monkeypatch.setattr(study, "train", made)
    return made


def play(path: Path, config: StudyConfig = CONFIG) -> str:
    begun = (path / "config.json").is_file()
    return play_study(config, RunFolder(path, None if begun else asdict(config)))


def lines(path: Path) -> list[dict[str, Any]]:
    return read_lines(path / TRIALS_FILE)


def test_best_trial_is_that_of_the_highest_last_validation(tmp_path: Path, pretend: Pretend) -> None:
    assert play(tmp_path / "a") == "finished"
    trials = lines(tmp_path / "a")
    assert [trial["number"] for trial in trials] == list(range(14))
    finished = [trial for trial in trials if trial["state"] == "finished"]
    best = read_json(tmp_path / "a" / BEST_TRIAL_FILE)
    assert best["value"] == max(trial["value"] for trial in finished)
    expected = 1 - (np.log10(best["params"]["learning_rate"]) + 3) ** 2 - best["params"]["clip_range"]
    assert best["value"] == pytest.approx(expected)
    assert best["hyperparameters"]["learning_rate"] == best["params"]["learning_rate"]
    assert best["hyperparameters"]["policy_kwargs"]["net_arch"] == [32, 32], "what the file has beside it"


def test_poor_trials_end_early_but_not_the_first(tmp_path: Path, pretend: Pretend) -> None:
    play(tmp_path / "a")
    trials = lines(tmp_path / "a")
    assert all(trial["state"] == "finished" for trial in trials[:4])
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        steps = max(map(int, trial["values"]))
        # Optuna's median is that of the trials that were played to their end.
        earlier = [other for other in trials[: trial["number"]] if other["state"] == "finished"]
        assert trial["value"] < np.median([other["values"][str(steps)] for other in earlier])
    play(tmp_path / "b", replace(CONFIG, pruner="none"))
    assert all(trial["state"] == "finished" for trial in lines(tmp_path / "b"))


def test_suggestions_learn(tmp_path: Path, pretend: Pretend) -> None:
    play(tmp_path / "a", replace(CONFIG, trials=40, pruner="none"))
    values = [trial["value"] for trial in lines(tmp_path / "a")]
    assert np.mean(values[-10:]) > np.mean(values[:10]) + 0.1


@pytest.mark.parametrize("pruner", ["median"])
@pytest.mark.parametrize("how", ["interrupted", "killed"])
@pytest.mark.parametrize("steps", STEPS)
def test_study_goes_on_as_if_it_had_not_stopped(
    how: str, steps: int, pruner: str, tmp_path: Path, pretend: Pretend
) -> None:
    config = replace(CONFIG, pruner=pruner)
    play(tmp_path / "whole", config)
    whole = lines(tmp_path / "whole")
    stops = next(trial["number"] for trial in whole[5:] if str(steps) in trial["values"])
    pretend.at = lambda number, at: how if (number, at) == (stops, steps) else ""
    if how == "killed":
        with pytest.raises(KeyboardInterrupt):
            play(tmp_path / "part", config)
    else:
        assert play(tmp_path / "part", config) == "interrupted"
    assert lines(tmp_path / "part") == whole[:stops]
    pretend.at = lambda number, at: ""
    pretend.resumed.clear()
    assert play(tmp_path / "part", config) == "finished"
    assert lines(tmp_path / "part") == whole
    assert pretend.resumed[0] is (steps > 10), "from its checkpoint where it had one"


def test_trial_that_had_ended_before_its_line_was_written_is_not_played_again(tmp_path: Path, pretend: Pretend) -> None:
    play(tmp_path / "a")
    whole = (tmp_path / "a" / TRIALS_FILE).read_text()
    (tmp_path / "a" / TRIALS_FILE).write_text("".join(whole.splitlines(keepends=True)[:-1]))
    pretend.begun.clear()
    play(tmp_path / "a")
    assert (tmp_path / "a" / TRIALS_FILE).read_text() == whole
    assert pretend.begun == []


def test_trial_that_fails_is_told_and_the_study_goes_on(tmp_path: Path, pretend: Pretend) -> None:
    pretend.at = lambda number, at: "nan" if number in (0, 3) else ""
    play(tmp_path / "a")
    failed = [trial for trial in lines(tmp_path / "a") if trial["state"] == "failed"]
    assert [trial["number"] for trial in failed] == [0, 3]
    assert all(trial["error"] == "Expected parameter loc to satisfy" and trial["value"] is None for trial in failed)
    assert len(lines(tmp_path / "a")) == 14


def test_trial_that_was_killed_when_it_should_have_ended_ends_there(tmp_path: Path, pretend: Pretend) -> None:
    """Between its last validation and its outcome: nobody would ask the pruner again before the next."""
    config = replace(CONFIG, trials=14)
    play(tmp_path / "whole", config)
    pruned = next(trial["number"] for trial in lines(tmp_path / "whole") if trial["state"] == "pruned")
    play(tmp_path / "part", replace(config, trials=pruned))
    place = tmp_path / "part" / "trials" / str(pruned)
    shutil.copytree(tmp_path / "whole" / "trials" / str(pruned), place)
    (place / OUTCOME_FILE).unlink()
    (place / "checkpoints").mkdir(exist_ok=True)
    (place / "checkpoints" / "0.state.safetensors").write_text("10")
    begun = len(pretend.begun)
    play(tmp_path / "part", replace(config, trials=pruned + 1))
    assert len(pretend.begun) == begun
    assert lines(tmp_path / "part")[-1]["state"] == "pruned"


def test_trial_that_had_finished_is_not_pruned_afterwards(tmp_path: Path, pretend: Pretend) -> None:
    """A training that has done its episodes has finished, whatever its last validation says to the pruner."""
    config = replace(CONFIG, trials=14)
    play(tmp_path / "whole", config)
    pruned = next(trial["number"] for trial in lines(tmp_path / "whole") if trial["state"] == "pruned")
    play(tmp_path / "part", replace(config, trials=pruned))
    place = tmp_path / "part" / "trials" / str(pruned)
    shutil.copytree(tmp_path / "whole" / "trials" / str(pruned), place)
    write_json(place / OUTCOME_FILE, {"outcome": "finished", "timesteps": 10})
    play(tmp_path / "part", replace(config, trials=pruned + 1))
    assert lines(tmp_path / "part")[-1]["state"] == "finished"


def test_suggestion_that_does_not_fit_what_is_fixed_costs_one_trial(
    tmp_path: Path, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(training: TrainingConfig) -> dict[str, Any]:
        if training.hyperparameters["n_epochs"] == 20:
            raise InvalidInputError("hyperparameters['n_epochs']=20: as sac says of a batch beyond the fixed buffer")
        return {}

    monkeypatch.setattr(study, "check_settings", check)
    play(tmp_path / "a", replace(CONFIG, trials=8, pruner="none"))
    states = {(trial["params"]["n_epochs"], trial["state"]) for trial in lines(tmp_path / "a")}
    assert (20, "failed") in states
    assert {state for epochs, state in states if epochs < 20} == {"finished"}
    failed = [trial for trial in lines(tmp_path / "a") if trial["state"] == "failed"]
    assert all("beyond the fixed buffer" in trial["error"] for trial in failed)
    assert not any((tmp_path / "a" / "trials" / str(trial["number"])).exists() for trial in failed)


def test_no_finished_trial_is_no_best() -> None:
    assert best_of([study.Trial(0, "pruned", 1.0, {}), study.Trial(1, "failed", None, {})]) is None


def test_settings_are_those_of_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a", asdict(CONFIG))
    assert config_of_study(RunFolder(folder.path, None)) == CONFIG
    with pytest.raises(InvalidInputError, match="was not made by ssdkd tune"):
        config_of_study(RunFolder(RunFolder(tmp_path / "b", asdict(TRAINING)).path, None))


@pytest.mark.parametrize("wrong", [{}, {"clip_range": 7.0}])
def test_lines_of_another_study_are_refused(wrong: dict[str, Any], tmp_path: Path, pretend: Pretend) -> None:
    play(tmp_path / "a", replace(CONFIG, trials=1))
    path = tmp_path / "a" / TRIALS_FILE
    (made,) = lines(tmp_path / "a")
    path.write_text(json.dumps(made | {"params": {**made["params"], **wrong} if wrong else {}}) + "\n")
    with pytest.raises(InvalidInputError, match=r"trials\.jsonl: trial 0 is none of this study's .*; delete its line"):
        play(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"trials": 0}, "trials=0: expected a whole number of at least 1"),
        ({"startup": 0}, "startup=0"),
        ({"seed": -1}, "seed=-1"),
        ({"pruner": "asha"}, "pruner='asha' is unknown"),
        ({"training": replace(TRAINING, evaluate_every_steps=0)}, "evaluate_every_steps=0: a study maximises"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        replace(CONFIG, **changes)


def test_what_no_trial_could_begin_with_is_refused() -> None:
    check_study(CONFIG)
    for training, match in (
        (replace(TRAINING, evaluate_every_steps=30), "a trial has 30 steps and is validated at its end alone"),
        (replace(TRAINING, hyperparameters={"bogus": 1}), "hyperparameters"),
        (replace(TRAINING, algorithm="pqo"), "algo='pqo' is unknown"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            check_study(replace(CONFIG, training=training))


def test_trials_that_none_ends_early_may_have_one_validation() -> None:
    """That of their last agent, which every training has."""
    check_study(replace(CONFIG, training=replace(TRAINING, evaluate_every_steps=1000), pruner="none"))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            TRIALS_FILE,
            {"number": 0, "state": "finished", "value": 1, "params": {}, "values": {"²": 1}, "error": ""},
            "steps",
        ),
        (TRIALS_FILE, {"number": 0, "state": "finished"}, "line 1: it lacks value"),
        ("trials/1/outcome.json", [], "expected object, got array"),
        ("trials/1/outcome.json", {}, "it lacks outcome"),
    ],
)
def test_damaged_file_of_a_study_is_a_line(
    file: str, content: object, said: str, tmp_path: Path, pretend: Pretend
) -> None:
    path = tmp_path / "a"
    pretend.at = lambda trial, steps: "interrupted" if (trial, steps) == (1, 20) else ""
    assert play(path) == "interrupted"
    (path / file).write_text(json.dumps(content) + "\n")
    with pytest.raises(InvalidInputError, match=said):
        play(path)


def test_trial_without_what_was_tried_is_a_line(tmp_path: Path, pretend: Pretend) -> None:
    pretend.at = lambda trial, steps: "interrupted" if (trial, steps) == (1, 20) else ""
    assert play(tmp_path / "a") == "interrupted"
    file = tmp_path / "a" / "trials" / "1" / "config.json"
    write_json(file, {**read_json(file), "hyperparameters": {}})
    with pytest.raises(
        InvalidInputError, match=r"config\.json does not fit \(KeyError: .+\); delete the folder of that"
    ):
        play(tmp_path / "a")
