"""`check_clients`: what it reads out of an example; installing and running them all is what `make clients` does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from check_clients import EXAMPLES, ROOT, Client
from laboratory.builds import CommandError, Environment

from ssdkd_env.errors import InvalidInputError
from tests.scripts.commands import assert_refused, in_this_process

HERE = Environment(Path(sys.prefix))
HEAD = """# /// script
# dependencies = ["ssdkd-env", "torch==2.13.0", "a==1.2", "b[c]>=3", "d==4"]
#
# [tool.check_clients]
# without-requirements = ["d"]
# ///
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return tmp_path / "example.py"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_compile_and_their_versions_are_those_of_the_page(path: Path) -> None:
    compile(path.read_text(), path, "exec")
    client = Client.read(path)
    assert "torch==2.13.0" in client.requirements
    page = (ROOT / "docs" / "clients.md").read_text()
    (title,) = re.findall(rf"(?m)^\| \[(.*)\]\(#.*\) \| {re.escape(client.versions)} \|", page)
    assert f"\n## {title}\n\n[`{path.name}`](../examples/clients/{path.name})" in page


def test_head_says_what_to_install(example: Path) -> None:
    example.write_text(HEAD)
    client = Client.read(example)
    assert client.requirements == ("torch==2.13.0", "a==1.2", "b[c]>=3")
    assert client.bare == ("d==4",)
    assert client.versions == "d 4, a 1.2"


def test_example_without_a_head_is_refused(example: Path) -> None:
    example.write_text("print()\n")
    with pytest.raises(InvalidInputError, match=re.escape(f"{example}: there is no '# /// script' block")):
        Client.read(example)


def test_unknown_client_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    result = in_this_process("check_clients", "--out", tmp_path / "out", "--clients", "skrl_ppo", "skrl")
    assert_refused(result, "--clients skrl: there is no such example; choose among: cleanrl_ppo")
    assert not (tmp_path / "out").exists()


def test_existing_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(in_this_process("check_clients", "--out", tmp_path), f"--out {tmp_path} exists")


def test_example_runs_in_an_empty_folder_that_is_its_home(example: Path, tmp_path: Path) -> None:
    example.write_text("import os\nprint(os.getcwd(), os.path.expanduser('~'), os.listdir())\n")
    said = Client(example, (), ()).play(HERE, tmp_path / "played")
    assert said == f"{tmp_path / 'played'} {tmp_path / 'played'} []\n"


def test_example_whose_check_fails_is_an_error_with_its_last_words(example: Path, tmp_path: Path) -> None:
    example.write_text("assert 1 == 2, 'the last observation is lost'\n")
    with pytest.raises(CommandError, match=r"AssertionError: the last observation is lost$"):
        Client(example, (), ()).play(HERE, tmp_path / "played")
