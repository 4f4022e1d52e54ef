"""What an environment is made of has the same names in Python, on command lines and in files."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

import pytest
import tyro
from ssdkd_agents.commands import distill, teacher, train
from ssdkd_agents.commands.command_line import Plugins, as_settings
from ssdkd_agents.commands.dialect import ARGUMENTS, ENV, NESTED, EnvOptions, first_sentences
from ssdkd_agents.commands.given import Given, abridged, as_words, parse_settings, refuse_settings
from ssdkd_agents.commands.old_options import OLD_OPTIONS, OLD_PAIRS, refuse_old_options

from ssdkd_env.distillation.methods import Method
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.settings import EnvSettings
from ssdkd_env.errors import InvalidInputError

#: A value of every argument and of every part of one, other than its default.
EVERYTHING: dict[str, Any] = {
    "task": "cifar10",
    "method": "cmi",
    "instances": "digits-train",
    "action": "full",
    "observation": "unscaled",
    "history": 2,
    "rounds_per_step": 3,
    "reward": "probe_discrepancy",
    "device": "cpu",
    "teacher": "t.safetensors",
    "teacher_arch": "resnet8",
    "teacher_weights": "ema",
    "mean": (0.5,),
    "std": (0.25,),
    "student_arch": "resnet20",
    "generator_arch": "a:b",
    "budget": {
        "rounds": 40,
        "warmup_rounds": 2,
        "candidates": 3,
        "inversion_steps": 4,
        "student_steps": 5,
        "batch_size": 6,
        "buffer_capacity": 7,
        "work": 8,
        "preset": "cpu",
    },
    "student": {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.25, "temperature": 2.0},
    "evaluation": "data folder",
    "buffer_scale": 0.1,
    "work_scale": 0.5,
    "data_root": "data",
    "probe": {"sources": "pixels", "generators": 1, "batches": 2, "kept": 1, "batch_size": 3, "steps": 5},
    "backend": "plain",
    "precision": "bfloat16",
    "evaluate_every_rounds": 12,
    "clock": True,
    "render_mode": "rgb_array",
}
METHOD_OPTIONS = {
    setting.name: not setting.default if isinstance(setting.default, bool) else setting.default
    for setting in fields(Method)
    if setting.default is not MISSING
}


@dataclass
class Arguments(Plugins):
    """For these tests."""

    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def parsed(*words: str) -> dict[str, Any]:
    return tyro.cli(Arguments, args=words).env.settings()


def test_every_argument_of_an_environment_has_an_option_of_its_name() -> None:
    everything = EVERYTHING | {"method_options": METHOD_OPTIONS}
    assert set(everything) == set(ARGUMENTS) == {setting.name for setting in fields(EnvSettings)}
    for name, kind in NESTED.items():
        names = {setting.name for setting in fields(kind)} - {"name", "source"}
        assert set(everything[name]) - {"preset"} == names
    words = as_words("--env.", everything)
    assert {"--env.budget.warmup-rounds", "--env.evaluate-every-rounds", "--env.method-options.no-augment"} < set(words)
    given = parsed(*words)
    assert given == everything
    assert all(type(given[name]) is type(everything[name]) for name in everything)


def test_only_what_was_given_is_handed_on() -> None:
    assert parsed() == {}
    assert parsed("--env.budget.rounds", "3", "--env.no-clock", "--env.student.lr", "0") == {
        "budget": {"rounds": 3},
        "clock": False,
        "student": {"lr": 0.0},
    }


def test_what_is_parsed_makes_an_environment() -> None:
    env = SSDKDEnv(**parsed("--env.budget.rounds", "3", "--env.action", "full", "--env.student.lr", "1"))
    assert (env.budget.rounds, env.settings.action, env.task.spec.student.lr) == (3, "full", 1.0)


def test_every_option_has_a_sentence_of_the_docstring() -> None:
    for kind in (EnvSettings, *NESTED.values()):
        sentences = first_sentences(kind)
        assert {setting.name for setting in fields(kind)} <= set(sentences)
        assert all(sentences.values())
        assert not any("`" in sentence or sentence.endswith(".") for sentence in sentences.values())
    assert first_sentences(EnvSettings)["task"] == "name of a task, or import path package.module:spec of a TaskSpec"
    assert first_sentences(Method)["tv_weight"] == first_sentences(Method)["l2_weight"]


def test_settings_are_frozen() -> None:
    given = ENV()
    assert is_dataclass(given)
    with pytest.raises(AttributeError):
        given.task = "digits"  # type: ignore[attr-defined]


def test_arguments_in_files_have_paths_as_text_and_of_the_environment_what_was_given() -> None:
    arguments = Arguments(env=tyro.cli(Arguments, args=["--env.budget.rounds", "3"]).env, plugins=("a",))
    assert as_settings(arguments) == {"plugins": ("a",), "env_kwargs": {"budget": {"rounds": 3}}}


# --- help ---


def shown(arguments: Any, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        tyro.cli(abridged(arguments), args=["--help"])
    return " ".join(capsys.readouterr().out.split())


def test_help_of_commands_with_an_id_leaves_parts_out_and_says_where_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(train.Arguments, capsys)
    assert "--env.action STR" in text and "--env.evaluate-every-rounds INT" in text
    assert "--env.budget.rounds INT" not in text and "--env.method-options.gamma FLOAT" not in text
    assert "--env.budget.rounds 40" in text and "ssdkd distill --help has all of them" in text.replace("│ │ ", "")


def test_help_of_distill_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(distill.Arguments, capsys)
    for option in ("--teacher STR", "--budget.rounds INT", "--budget.preset STR", "--method-options.gamma FLOAT"):
        assert option in text
    assert "None" not in text


def test_arguments_without_parts_and_unions_stay_what_they_are() -> None:
    assert abridged(teacher.Arguments) is teacher.Arguments
    both = abridged(train.Arguments | teacher.Arguments)
    assert [kind.__name__ for kind in both.__args__] == ["Arguments", "Arguments"]
    assert both.__args__[1] is teacher.Arguments


# --- what earlier versions had ---


@pytest.mark.parametrize(
    ("arguments", "line", "new"),
    [
        (train.Arguments, "--env SSDKD/Digits-v2", "--env-id SSDKD/Digits-v2"),
        (train.Arguments, "--env=SSDKD/Digits-v2", "--env-id SSDKD/Digits-v2"),
        (train.Arguments, "--env-kwargs action=full 'budget={\"rounds\": 9}' --seed 1",
         "--env.action full --env.budget.rounds 9"),
        (train.Arguments, "--env_kwargs clock=true evaluate_every=3", "--env.clock --env.evaluate-every-rounds 3"),
        (train.Arguments, "--env-kwargs 'task=my folder'", "--env.task 'my folder'"),
        (train.Arguments, "--env-kwargs", "--env.NAME VALUE"),
        (train.Arguments, "--budget rounds=9", "--env.budget.rounds 9"),
        (train.Arguments, "--vector-backend loop", "--vectorization loop"),
        (train.Arguments, "--evaluate-every 9", "--evaluate-every-steps 9"),
        (train.Arguments, "--image-every 9", "--image-every-episodes 9"),
        (teacher.Arguments, "--evaluate-every 9", "--evaluate-every-epochs 9"),
        (teacher.Arguments, "--checkpoint-every 9", "--checkpoint-every-epochs 9"),
        (distill.Arguments, "--budget rounds=9 preset=cpu", "--budget.rounds 9 --budget.preset cpu"),
        (distill.Arguments, "--method-options focal=false", "--method-options.no-focal"),
        (distill.Arguments, "--student lr", "--student.NAME VALUE"),
    ],
)  # fmt: skip
def test_old_option_is_refused_with_its_new_name(arguments: Any, line: str, new: str) -> None:
    words = shlex.split(line)
    with pytest.raises(InvalidInputError) as refused:
        refuse_old_options(arguments, ["--out", "x", *words])
    option = words[0].partition("=")[0].replace("_", "-")
    assert str(refused.value) == f"{option} is an option of an earlier version; give {new}"


@pytest.mark.parametrize("option", [*OLD_OPTIONS, *OLD_PAIRS])
def test_new_names_are_options_of_today(option: str) -> None:
    """Whatever an old option is said to be called now, some command takes it."""
    known = {name.replace("_", "-") for kind in (train.Arguments, teacher.Arguments) for name in kind.__annotations__}
    if option in OLD_PAIRS:
        assert OLD_PAIRS[option] in {"", *NESTED}
    else:
        assert {new[2:] for new in OLD_OPTIONS[option]} <= {*known, "searcher"}
        assert option[2:] == "env" or option[2:] not in known


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (train.Arguments, ["--env.action", "full", "--env-id", "a"]),
        (train.Arguments, ["--strategy", "cma"]),
        (teacher.Arguments, ["--budget", "rounds=3"]),
        (train.Arguments, []),
    ],
)
def test_other_words_are_left_to_the_parser(arguments: Any, words: list[str]) -> None:
    refuse_old_options(arguments, words)


# --- words and pairs ---


def test_words_leave_out_what_is_not_given() -> None:
    assert as_words("--", {"a_b": None, "c": {"d_e": 1.5, "f": False}, "g": True, "h": "x y"}) == [
        "--c.d-e", "1.5", "--c.no-f", "--g", "--h", "x y",
    ]  # fmt: skip


def test_settings_that_a_command_decides_are_refused_by_their_option() -> None:
    given: Given = tyro.cli(Arguments, args=["--env.rounds-per-step", "4"]).env
    refuse_settings(given, {"action": "give --action"})
    with pytest.raises(InvalidInputError, match=r"^--env\.rounds-per-step 4: leave it out$"):
        refuse_settings(given, {"rounds_per_step": "leave it out"})


def test_hyperparameters_stay_pairs() -> None:
    assert tyro.cli(train.Arguments, args=["--out", "x", "--hyperparameters", "a=1", "b=2"]).hyperparameters == (
        "a=1",
        "b=2",
    )
    assert parse_settings("hyperparameters", ["a=1", 'b={"c": 2}']) == {"a": 1, "b": {"c": 2}}
