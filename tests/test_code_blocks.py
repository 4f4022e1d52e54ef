"""Every code block of every document is checked. How:

- `python` is run. The blocks of a page are one program, in a temporary folder; one that begins with `# NAME.py` is also
  written there as that file, which later blocks import.
- `bash`: each command `ssdkd …` is run in the same folder, with the words of `SMALLER` behind its own, which make a
  training or a comparison one of seconds. Below a line `<!-- checked, not run: REASON -->` its words go through
  the subcommand's own parser, and no further.
- `bash` that is no `ssdkd`: words of scripts and of TensorBoard go through their parsers, those of the recipe of a
  target of make, too; extras of pip must exist; options of another library (`python -m …`) are those that its example
  under `examples/clients` gives, which `make clients` runs. Other commands are refused, so that nobody forgets to check
  them.
- `text` is a sketch: of the files that it names at the ends of lines, each must exist.
- Directives of the site (`{toctree}`, `{include}`, …) are checked by its build (`make docs`).
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest
import tomllib
import tyro
from ray.scripts.scripts import get_auth_token
from ray.scripts.scripts import start as ray_start
from ssdkd_agents.commands import main as ssdkd
from tensorboard.program import TensorBoard  # type: ignore[import-untyped]
from torch.distributed.run import get_args_parser as torchrun_parser

from ssdkd_env import registry
from tests.test_documents import DOCUMENTS
from tests.test_registry import REGISTRIES

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / "examples" / "clients"
FENCE = re.compile(
    r"(?:^<!-- checked, not run: (?P<reason>[^\n]+) -->\n+)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
BUDGET = {"rounds": 2, "warmup_rounds": 1, "candidates": 16, "inversion_steps": 2, "student_steps": 2, "batch_size": 8}
BUDGET |= {"buffer_capacity": 24}
OWN_BUDGET = tuple(
    word for name, value in BUDGET.items() for word in (f"--budget.{name.replace('_', '-')}", str(value))
)
ENV_BUDGET = tuple(word.replace("--budget", "--env.budget") for word in OWN_BUDGET)
OWN_PROBE = ("--probe.generators", "1", "--probe.batches", "2", "--probe.kept", "1", "--probe.steps", "1")
#: What is put behind the words of a documented command: counts, never what the command shows.
SMALLER: dict[str, tuple[str, ...]] = {
    "train": (
        *("--timesteps", "4", "--evaluate-every-steps", "4", "--evaluation-episodes", "1", "--vectorization", "loop"),
        *("--no-progress-bar", *ENV_BUDGET, "--hyperparameters", "n_envs=1"),
    ),
    "evaluate": ("--episodes", "1", "--processes", "1", *ENV_BUDGET),
    "search": ("--episodes", "4", "--population", "4", "--num-envs", "1", "--vectorization", "loop", *ENV_BUDGET),
    "benchmark": ("--seeds", "1", "--processes", "1", *ENV_BUDGET),
    "distill": (*OWN_BUDGET, *OWN_PROBE),
    "probe": OWN_PROBE,
}
#: The same of algorithms, by the word behind `--algo`.
SMALLER_ALGORITHM = {"ppo": ("n_steps=4", "batch_size=4", "n_epochs=1"), "sac": ("learning_starts=2",)}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    page: Path
    line: int
    language: str
    code: str
    run: bool

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    assert text.count("\n```") + text.startswith("```") == 2 * len(list(FENCE.finditer(text))), "a fence is left open"
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], not found["reason"])
        for found in FENCE.finditer(text)
    ]


PAGES = [page for page in DOCUMENTS if blocks_of(page)]
SITE = [page for page in PAGES if page.parent != ROOT and "results" not in page.parts]
#: Characters of a line of code that the site shows on a window of 1,280 pixels.
WIDEST = 88


class Parsed(Exception):
    """A command line was understood, and its work is not begun."""


def commands_of(code: str) -> Iterator[list[str]]:
    """The words of each command of a bash block."""
    for line in code.replace("\\\n", " ").splitlines():
        for command in re.split(r"\s&&\s", line):
            words = shlex.split(command, comments=True)
            if words:
                yield words


def parse(words: list[str]) -> None:
    """Let a command of this project parse its words, and stop it there."""
    understand = tyro.cli

    def stop(*args: Any, **kwargs: Any) -> NoReturn:
        understand(*args, **kwargs)
        raise Parsed

    def start() -> None:
        if words[0] == "ssdkd":
            ssdkd.main(words[1:])
        else:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")

    with mock.patch.object(tyro, "cli", stop), mock.patch.object(sys, "argv", words), pytest.raises(Parsed):
        start()


def without(extra: tuple[str, ...], budget: Iterable[str]) -> tuple[str, ...]:
    """What is put behind a command's words, less numbers of the budget and their values."""
    options = {f"--env.budget.{name.replace('_', '-')}" for name in budget}
    left_out = {place + after for place, word in enumerate(extra) if word in options for after in (0, 1)}
    return tuple(word for place, word in enumerate(extra) if place not in left_out)


def smaller(words: list[str]) -> list[str]:
    """The words of a command, and what makes it one of seconds."""
    if "--resume" in words:  # which takes the rest from the run's folder
        return [*words, "--timesteps", "8", "--no-progress-bar"]
    extra = SMALLER.get(words[1], ())
    if words[1] == "train":
        algorithm = words[words.index("--algo") + 1] if "--algo" in words else "ppo"
        extra = (*extra, *SMALLER_ALGORITHM[algorithm])
    if any(word.startswith(("relative_", "standardized_")) for word in words):
        extra = without(extra, BUDGET)  # references are shipped for the sets' own
    elif "--env.instances" in words:  # which choose these two themselves
        extra = without(extra, ("rounds", "buffer_capacity"))
    return [*words, *extra]


def run_bash(block: Block) -> None:
    """Run or parse each command of a block."""
    for words in commands_of(block.code):
        program, *rest = words
        if program == "ssdkd" and block.run:
            with mock.patch.object(sys, "argv", words):
                ssdkd.main(smaller(words)[1:])
        elif program == "ssdkd":
            parse(words)
        elif program == "python" and rest[0].startswith("scripts/"):
            parse(rest)
        elif program == "python" and rest[:1] == ["-m"]:  # of a client, which is not installed; its example runs it
            known = {word for path in CLIENTS.glob("*.py") for word in re.findall(r'"(--[\w-]+)"', path.read_text())}
            assert {word for word in rest if word.startswith("--")} <= known
        elif program == "ray":
            known = {option for parameter in ray_start.params for option in parameter.opts}
            assert rest[0] == "start" and {word for word in rest if word.startswith("--")} <= known
        elif program == "torchrun":
            started = torchrun_parser().parse_args(rest)
            assert started.no_python and started.training_script == "ssdkd"
            parse(["ssdkd", *started.training_script_args])
        elif program == "sbatch":
            place = next(place for place, word in enumerate(rest) if word.endswith(".sh"))
            assert (ROOT / rest[place]).is_file() and all(
                word.startswith("--") or word.isdigit() for word in rest[:place]
            )
            if rest[place + 1 :]:
                parse(rest[place + 1 :])
        elif program == "tensorboard":
            TensorBoard().configure(words)
        elif program == "make":
            recipe = re.search(rf"^{rest[0]}:.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert recipe, f"{block.place}: make has no target {rest[0]}"
            for line in re.findall(r"python (scripts/.*)", re.sub(r"\$\(\w+\)", "1", recipe[1])):
                parse(shlex.split(line))
        elif words[:3] == ["pip", "install", "-e"]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert re.fullmatch(r"\.(\[\w+\])?", rest[2]) and set(re.findall(r"\[(\w+)\]", rest[2])) <= set(extras)
        else:
            pytest.fail(f"{block.place}: nobody checks {program!r}; say in this file how")


def run_python(block: Block, folder: Path, namespace: dict[str, Any]) -> None:
    """Run a block where the page's others have run."""
    named = re.match(r"# (\w+\.py)\n", block.code)
    if named:
        (folder / named[1]).write_text(block.code)
    else:
        exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), namespace)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a page's blocks are run; what they register, import and put into a cache is forgotten after them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_trusted", set())
    for each in REGISTRIES.values():
        monkeypatch.setattr(each, "_entries", dict(each))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_do_what_the_page_says(page: Path, folder: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language == "python":
            run_python(block, folder, namespace)
        elif block.language == "bash":
            run_bash(block)
        elif block.language == "text":
            named = re.findall(r"(\w+\.py)(?:, (\w+\.py))?$", block.code, re.MULTILINE)
            files = {name for names in named for name in names if name}
            assert files, f"{block.place}: a sketch names the files that it is of"
            assert not [name for name in files if not list(ROOT.rglob(name))]
        else:
            assert re.fullmatch(r"\{[\w-]+\}.*", block.language), f"{block.place}: nobody checks {block.language!r}"


@pytest.mark.parametrize("page", SITE, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_code_is_wider_than_the_site(page: Path) -> None:
    wide = [line for block in blocks_of(page) for line in block.code.splitlines() if len(line) > WIDEST]
    assert not wide


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_registry_has_a_page_whose_example_registers_and_is_short(name: str) -> None:
    page = ROOT / "docs" / "extend" / f"{name}.md"
    example, *others = blocks_of(page)
    assert re.match(rf"# my_{name}\.py\n", example.code)
    assert ".register(" in example.code and example.code.count("\n") <= 35
    assert any(f"--plugins my_{name}" in block.code for block in others if block.language == "bash" and block.run)


def test_options_that_documents_name_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Those in a line of text, which are in no block, such as `--patience 4`; commands of results have those of old."""
    with pytest.raises(SystemExit):
        ssdkd.main(["--print-completion", "bash"])
    known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    known |= {option for action in torchrun_parser()._actions for option in action.option_strings}
    known |= {option for parameter in get_auth_token.params for option in parameter.opts}
    pages = [page for page in PAGES if page.parent.name != "results"]
    spans = {span for page in pages for span in re.findall(r"(?<!`)`([^`\n]*--[a-z][^`\n]*)`(?!`)", page.read_text())}
    named = {option for span in spans if "extra-index-url" not in span for option in re.findall(r"--[\w.-]+", span)}
    assert "--patience" in named
    assert not {option for option in named if option not in known} - {"--help", "--print-completion"}
