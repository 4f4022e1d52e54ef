"""Every command line explains itself and reads its arguments alike."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import ssdkd_agents.commands
import ssdkd_agents.commands.main as main_module
from ssdkd_agents.commands.given import parse_settings
from ssdkd_agents.policies.algorithms import ALGORITHMS

from ssdkd_env.errors import InvalidInputError
from tests.scripts.commands import SCRIPTS, in_process_of_its_own, in_this_process

NAMES = (
    "benchmark",
    "check_clients",
    "check_mutations",
    "check_pythons",
    "compare_fast_datafree",
    "compare_samplers",
    "distill",
    "estimate_campaign",
    "evaluate_sampler",
    "export_results",
    "export_sampler",
    "gpu_day",
    "headroom",
    "import_results",
    "index_results",
    "keep_results",
    "leaderboard",
    "make_probe_set",
    "make_references",
    "measure_decisions",
    "measure_importance",
    "measure_memory",
    "measure_nyuv2",
    "measure_plans",
    "measure_scaling",
    "measure_store",
    "measure_strangers",
    "measure_threads",
    "measure_transfer",
    "paper_protocol",
    "plot",
    "plot_policy",
    "profile_step",
    "replay",
    "search_plan",
    "train_agents",
    "train_sampler",
    "train_teacher",
    "tune_sampler",
)
#: Scripts with subcommands, whose arguments are a class each.
SUBCOMMANDS = {
    "measure": ("Observations", "Overhead"),
    "measure_cluster": ("Overhead", "Rate", "Kills", "Training"),
    "measure_durability": ("Kills", "Owners", "Bits", "Disk"),
    "measure_speed": ("Runs", "Versions", "Peak"),
}
#: The option that must be given, where it is not --out.
REQUIRED = {
    "measure_transfer": "--here",
    "compare_samplers": "--results",
    "export_results": "--store",
    "import_results": "--results",
    "index_results": "--into",
    "keep_results": "--name",
    "profile_step": "--trace",
    "replay": "--results",
}
#: Script → the subcommand of `ssdkd` that it is.
SUBCOMMAND_OF = {
    "benchmark": "benchmark",
    "compare_samplers": "results compare",
    "distill": "distill",
    "evaluate_sampler": "evaluate",
    "export_results": "results export",
    "export_sampler": "export",
    "import_results": "results import",
    "index_results": "results index",
    "keep_results": "results keep",
    "leaderboard": "results rank",
    "make_probe_set": "probe",
    "make_references": "reference",
    "plot": "results plot",
    "plot_policy": "results policy",
    "replay": "results replay",
    "search_plan": "search",
    "train_sampler": "train",
    "train_teacher": "teacher",
    "tune_sampler": "tune",
}
#: Script, its subcommand if it has any, class of the arguments.
COMMANDS = [
    *((name, (), "Arguments") for name in NAMES),
    *((name, (kind.lower(),), kind) for name, kinds in SUBCOMMANDS.items() for kind in kinds),
]


@pytest.mark.parametrize("script", [*NAMES, *SUBCOMMANDS])
def test_help_shows_an_example_that_parses(script: str) -> None:
    result = in_this_process(script, "--help")
    assert result.code == 0, result.stderr
    option = REQUIRED.get(script, "--out")
    command = f"ssdkd {SUBCOMMAND_OF[script]}" if script in SUBCOMMAND_OF else f"python scripts/{script}.py"
    assert re.findall(rf"{re.escape(command)} [^\n]*{option}", result.stdout)
    assert option in result.stdout


def test_help_works_from_the_command_line() -> None:
    result = in_process_of_its_own("train_sampler", "--help")
    assert result.code == 0, result.stderr
    assert "ssdkd train --out runs/ppo" in result.stdout
    assert result.stderr == ""


def test_every_script_is_tested_here() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} == {*NAMES, *SUBCOMMANDS}
    assert {SUBCOMMAND_OF[name] for name in NAMES if name in SUBCOMMAND_OF} == set(main_module.COMMANDS)


def test_help_of_training_names_every_algorithm() -> None:
    shown = re.sub(r"[^a-z0-9_]+", " ", in_this_process("train_sampler", "--help").stdout)
    assert set(ALGORITHMS) <= set(shown.split())


@pytest.mark.parametrize(("script", "subcommand", "kind"), COMMANDS)
def test_help_explains_every_argument(script: str, subcommand: tuple[str, ...], kind: str) -> None:
    shown = " ".join(in_this_process(script, *subcommand, "--help").stdout.split())
    path = SCRIPTS / f"{script}.py"
    if script in SUBCOMMAND_OF:
        module_name, _ = main_module.COMMANDS[SUBCOMMAND_OF[script]]
        path = Path(ssdkd_agents.commands.__file__).parent / f"{module_name}.py"
    module = ast.parse(path.read_text())
    (body,) = (node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == kind)
    fields = [index for index, node in enumerate(body) if isinstance(node, ast.AnnAssign)]
    assert fields
    for index in fields:
        help_text = body[index + 1]
        assert isinstance(help_text, ast.Expr), "each argument has its help"
        assert isinstance(help_text.value, ast.Constant)
        assert isinstance(help_text.value.value, str)
        name = ast.unparse(body[index].target)  # type: ignore[attr-defined]
        if name == "env":  # stands for options of its own
            assert re.search(r"--(env\.)?task STR", shown)
            continue
        assert f"--{name.replace('_', '-')}" in shown or f"--{name}" in shown or f"{name} " in shown


@pytest.mark.parametrize(("script", "subcommand", "kind"), COMMANDS)
def test_missing_and_unknown_arguments_exit_with_2(
    script: str, subcommand: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    option = REQUIRED.get(script, "--out")
    for arguments, complaint in (((), option), ((option, tmp_path / "out", "--bogus", "1"), "--bogus")):
        result = in_this_process(script, *subcommand, *arguments)
        assert result.code == 2
        assert "Traceback" not in result.stderr
        assert complaint in result.stderr
    assert not (tmp_path / "out").exists()


# --- settings ---


def test_settings_are_json_or_text() -> None:
    pairs = ["rounds=10", "lr=1e-1", "flip=true", "none=null", 'budget={"rounds": 3}', "name=wrn16_1", "x=[1, 2]"]
    expected = {
        "rounds": 10,
        "lr": 0.1,
        "flip": True,
        "none": None,
        "budget": {"rounds": 3},
        "name": "wrn16_1",
        "x": [1, 2],
    }
    assert parse_settings("budget", pairs) == expected
    assert parse_settings("budget", ()) == {}


def test_only_the_first_equals_sign_separates() -> None:
    assert parse_settings("env-kwargs", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}


@pytest.mark.parametrize("pair", ["rounds", "", "rounds:3"])
def test_setting_without_a_value_is_refused(pair: str) -> None:
    with pytest.raises(InvalidInputError, match=f"--budget '{pair}': expected NAME=VALUE, such as n_steps=64"):
        parse_settings("budget", [pair])
