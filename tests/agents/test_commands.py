"""`ssdkd`: subcommands, what is said where there is none, and the line that continues a run."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest
import ssdkd_agents
from ssdkd_agents.commands import command_line
from ssdkd_agents.commands.command_line import resuming
from ssdkd_agents.commands.endings import one_line_for_the_user
from ssdkd_agents.commands.main import COMMANDS, SHELLS, main
from ssdkd_agents.runs import RunFolder

import ssdkd_env
from tests.scripts.commands import assert_refused, in_this_process

NO_SUCH_FILE = os.strerror(errno.ENOENT)


def outcome(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself_under_its_own_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(*name.split(), "--help") == 0
    assert f"usage: ssdkd {name} " in " ".join(capsys.readouterr().out.split())


def test_arguments_reach_the_subcommand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (module, _) in COMMANDS.items():
        seen: list[list[str]] = []
        monkeypatch.setattr(importlib.import_module(f"ssdkd_agents.commands.{module}"), "run", seen.append)
        main([*name.split(), "--out", "a b"])
        assert seen == [["--out", "a b"]]


def test_help_lists_all_and_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"ssdkd {name} " in shown for name in COMMANDS)
    main(["results", "--help"])
    assert capsys.readouterr().out.count("ssdkd results ") == 9
    main(["--version"])
    assert capsys.readouterr().out == f"ssdkd-env {ssdkd_env.__version__}\n"


@pytest.mark.parametrize("words", [(), ("results",), ("result",), ("results", "plots"), ("--out", "x")])
def test_what_is_no_subcommand_exits_with_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    if words and words != ("results",):
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
    else:
        assert "ssdkd results rank" in captured.err


@pytest.mark.parametrize("shell", SHELLS)
def test_one_completion_knows_every_subcommand(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("--print-completion", shell) == 0
    script = capsys.readouterr().out
    assert "ssdkd" in script
    for name in COMMANDS:
        assert name.split()[-1] in script, name
    for option in ("--env.budget.rounds", "--budget.rounds", "--env.method-options.gamma", "--settings.epochs"):
        assert option in script, "parts that the help leaves out are completed"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ssdkd ", {"distill", "train", "results"}),
        ("ssdkd results pl", {"plot"}),
        ("ssdkd train --env.budget.r", {"--env.budget.rounds"}),
        ("ssdkd distill --budget.r", {"--budget.rounds"}),
    ],
)
def test_bash_completes_words(
    typed: str, offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome("--print-completion", "bash") == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    words = typed.split(" ")
    code = (
        f"source {shlex.quote(str(tmp_path / 'completion'))}\n"
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(typed)}\n"
        "COMP_POINT=${#COMP_LINE}; function=$(complete -p ssdkd | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        '$function ssdkd "${COMP_WORDS[COMP_CWORD]}" ""; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    found = {word.strip() for word in done.stdout.splitlines()}
    assert offered <= found, done
    assert all(word.startswith(words[-1]) for word in found)


@pytest.mark.parametrize(
    "words", [("--print-completion",), ("--print-completion", "csh"), ("--print-completion", "a", "b")]
)
def test_shell_without_a_completion_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(*words) == 2
    assert capsys.readouterr().err.startswith("error: --print-completion: expected one of bash, zsh, fish, not ")


def without_a_reader(command: list[str], stream: str) -> subprocess.CompletedProcess[str]:
    """As of `command | head`: the pipe is closed before anything is written to one of the two streams."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        to = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: writes}
        buffered = os.environ | {"PYTHONUNBUFFERED": ""}  # the text is written when the process ends, if not before
        return subprocess.run(command, **to, text=True, timeout=120, env=buffered)  # type: ignore[call-overload,no-any-return]
    finally:
        os.close(writes)


@pytest.mark.parametrize("words", ["--help", "results index --help", "--print-completion bash"])
def test_reader_who_has_enough_ends_help_quietly(words: str) -> None:
    done = without_a_reader([sys.executable, "-m", "ssdkd_agents", *words.split()], "stdout")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_work_outlives_who_reads_what_it_prints(stream: str, tmp_path: Path) -> None:
    """Both streams, because `2>&1 | head` is as usual; what the command ends with is its own."""
    code = (
        "import sys\n"
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from ssdkd_agents.commands.command_line import Plugins, launch\n"
        "from ssdkd_env.errors import InvalidInputError\n"
        "def main(arguments):\n"
        "    for number in range(20):\n"
        "        print('x' * 5000, file=sys.stdout)\n"
        "        print('y' * 5000, file=sys.stderr)\n"
        "    Path(sys.argv[1]).write_text('done')\n"
        "    raise InvalidInputError('as it must be')\n"
        "launch(Plugins, main, 'x', words=[])\n"
    )
    done = without_a_reader([sys.executable, "-c", code, str(tmp_path / "result")], stream)
    assert (tmp_path / "result").read_text() == "done"
    assert done.returncode == 2
    other = done.stderr if stream == "stdout" else done.stdout
    assert len(other) >= 20 * 5000
    assert ("error: as it must be" in other) == (stream == "stdout")


def test_pipe_that_breaks_elsewhere_is_an_error() -> None:
    """What is printed may find no reader; in a run it is a failure like any other."""
    with pytest.raises(BrokenPipeError), one_line_for_the_user():
        raise BrokenPipeError


def test_help_is_shown_without_loading_torch() -> None:
    code = (
        "import sys, json; from ssdkd_agents.commands.main import main; main(['--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{}/ssdkd", "train", "--seed", "1"], ["{}/ssdkd", "train"]),
        (["{}/train_sampler.py", "--seed", "1"], [sys.executable, "{}/train_sampler.py"]),
        (["{}/__main__.py", "results", "plot", "--x"], [sys.executable, "{}/__main__.py", "results", "plot"]),
    ],
)
def test_line_that_continues_a_run_names_the_program_itself(
    argv: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "it's a place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [word.format(place) for word in argv])
    line = resuming(Path("runs") / "a b")
    assert shlex.split(line) == [*(word.format(place) for word in words), "--out", str(place / "runs/a b"), "--resume"]


def test_command_of_a_run_is_what_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/ssdkd", "train", "--hyperparameters", 'x={"rounds": 3}'])
    run = RunFolder(tmp_path / "run", {"a": 1})
    assert (run.path / "command.txt").read_text() == "ssdkd train --hyperparameters 'x={\"rounds\": 3}'\n"
    assert json.loads((run.path / "config.json").read_text())["a"] == 1


def test_line_that_continues_a_teachers_training_does(tmp_path: Path) -> None:
    """As typed: what follows the program is read by the subcommand, not by a parser of its own."""
    out = tmp_path / "teacher"
    settings = ("--settings.epochs", "2", "--settings.seed", "3")
    done = subprocess.run(
        [sys.executable, "-m", "ssdkd_agents", "teacher", "--out", str(out), *settings, "--minutes", "0.0001"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (line,) = (line for line in done.stdout.splitlines() if "continue with: " in line)
    words = [*shlex.split(line.partition("continue with: ")[2]), "--minutes", "5"]
    again = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert (out / "teacher.safetensors").exists()


def test_what_is_installed_speaks_of_the_command_and_not_of_scripts() -> None:
    """Who has installed the package has no `scripts/`."""
    old = r"scripts/|\b(train_sampler|search_plan|evaluate_sampler|export_sampler|compare_samplers)\b"
    for package in (ssdkd_env, ssdkd_agents):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            assert not re.search(old, path.read_text()), path


def test_file_that_cannot_be_used_is_named_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ending, one_line_for_the_user():
        (tmp_path / "red\x1b[31m").read_text()
    assert ending.value.code == 2
    assert (
        capsys.readouterr().err == f"error: cannot use {tmp_path}/red\\x1b[31m: {NO_SUCH_FILE}; make it what it was\n"
    )
    with pytest.raises(SystemExit), one_line_for_the_user():
        raise MemoryError
    assert "there is not enough memory for this" in capsys.readouterr().err
    with pytest.raises(OSError, match="of no file"), one_line_for_the_user():
        raise OSError("of no file")


def test_warning_of_a_command_is_a_line_without_code(capsys: pytest.CaptureFixture[str]) -> None:
    """It may quote a file's name."""
    text = warnings.formatwarning(UserWarning("plain"), UserWarning, "file.py", 3, "code()")
    assert "file.py:3" in text
    with mock.patch.object(warnings, "formatwarning", command_line._in_a_line):
        shown = warnings.formatwarning(UserWarning("two\nlines \x1b[2J"), UserWarning, "file.py", 3, "code()")
    assert shown == "warning: two lines \\x1b[2J\n"


def test_command_leaves_the_form_of_warnings_as_it_was(tmp_path: Path) -> None:
    """A test of this process, or a program that calls it, has its own."""
    before = warnings.formatwarning
    assert_refused(in_this_process("replay", "--results", tmp_path / "none.jsonl"), "none.jsonl")
    assert warnings.formatwarning is before
