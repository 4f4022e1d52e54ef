"""Commands that fail say so, and what is damaged is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from laboratory.builds import CommandError, Environment, copy_sources, damaged_files, run

#: Nothing listens there.
NO_INDEX = ("--index-url", "http://127.0.0.1:9/simple", "--retries", "0")


@pytest.fixture
def installed(tmp_path: Path) -> Environment:
    """An environment in which a package of two files is installed."""
    environment = Environment(tmp_path)
    about = tmp_path / "lib" / "python3.11" / "site-packages" / "thing-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    digest = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"  # of "abc"
    (about / "RECORD").write_text(f"one.py,sha256={digest},3\ntwo.py,sha256={digest},3\nthing-1.0.dist-info/RECORD,,\n")
    for name in ("one.py", "two.py"):
        (environment.packages / name).write_text("abc")
    return environment


def test_what_is_gone_or_another_is_found(installed: Environment) -> None:
    thing = installed.distributions()["thing"]
    assert list(damaged_files(thing)) == []
    (installed.packages / "one.py").unlink()
    (installed.packages / "two.py").write_text("abd")
    assert list(damaged_files(thing)) == ["one.py is gone", "two.py is another one"]


def test_package_without_a_list_of_files_is_not_taken_for_whole(installed: Environment) -> None:
    (installed.packages / "thing-1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(CommandError, match="thing has no list of files"):
        list(damaged_files(installed.distributions()["thing"]))


def test_failure_says_what_the_command_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"(?s)^exit code 3 of .*\nout\n+bad"):
        run([sys.executable, "-c", "import sys; print('out'); print('bad', file=sys.stderr); sys.exit(3)"], tmp_path)


def test_index_out_of_reach_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    this = Environment(Path(sys.prefix))
    with pytest.raises(CommandError, match=r"^pip failed \(is a package index within reach\?\): download .*agents"):
        this.pip("download", *NO_INDEX, "--no-cache-dir", "--dest", tmp_path, "openai-agents")


def test_borrowing_ends(installed: Environment, tmp_path: Path) -> None:
    with installed.borrowing(tmp_path):
        assert (installed.packages / "borrowed.pth").read_text() == f"{tmp_path}\n"
    assert not (installed.packages / "borrowed.pth").exists()


def test_command_sees_no_source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    code = "import os; print(sorted(name for name in os.environ if name.startswith(('PYTHON', 'PYTEST'))))"
    assert run([sys.executable, "-c", code], tmp_path) == "[]\n"


def test_copy_leaves_out_what_is_ignored(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("kept/module.py", "build/lib/module.py", "kept/__pycache__/module.pyc", ".git/config"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / ".gitignore").write_text("build/\n__pycache__/\n")
    copy_sources(root, tmp_path / "copy")
    found = sorted(
        str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()
    )
    assert found == [".gitignore", "kept/module.py"]
