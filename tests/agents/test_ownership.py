"""A folder has one owner, and a dead one is none."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssdkd_agents.ownership import LOCK, own, release, release_all
from ssdkd_agents.runs import RunFolder

from ssdkd_env.errors import InvalidInputError

HOLD = """
import sys
from ssdkd_agents.ownership import own
own(sys.argv[1])
print("owned", flush=True)
sys.stdin.read()
"""
REFUSED = """
import sys
from ssdkd_agents.ownership import own
from ssdkd_env.errors import InvalidInputError
try:
    own(sys.argv[1])
    print("owned\\nwithout being refused")
except InvalidInputError:
    print("refused")
"""
BEGIN = """
import sys, time
from ssdkd_agents.runs import RunFolder
from ssdkd_env.errors import InvalidInputError
print("ready", flush=True)
sys.stdin.readline()
try:
    RunFolder(sys.argv[1], {"number": int(sys.argv[2])})
    print("begun", flush=True)
except InvalidInputError as error:
    print(error, flush=True)
sys.stdin.read()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(HOLD, tmp_path)
    yield process
    process.kill()
    process.communicate()


def test_second_process_gets_a_line_with_the_owner(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    host = socket.gethostname()
    with pytest.raises(InvalidInputError, match=rf"is being written by process {holder.pid} on '{host}'; wait"):
        own(tmp_path)
    with pytest.raises(InvalidInputError, match="is being written by"):
        RunFolder(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_folder_of_a_dead_owner_is_taken_over_and_swept(
    tmp_path: Path, holder: subprocess.Popen[str], end: signal.Signals
) -> None:
    (tmp_path / "sub").mkdir()
    for name in (".ssdkd-x.json.abc.json", "sub/.ssdkd-y", "sub/mine"):
        (tmp_path / name).touch()
    holder.send_signal(end)
    holder.wait()
    own(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [LOCK, "sub", "sub/mine"]
    release(tmp_path)


def test_owner_may_ask_again_and_lets_go(tmp_path: Path) -> None:
    own(tmp_path / "a")
    own(tmp_path / "." / "a")
    release_all()
    process = start(HOLD, tmp_path / "a")
    with pytest.raises(InvalidInputError, match="is being written by"):
        own(tmp_path / "a")
    process.communicate()
    release(tmp_path / "a")  # which this process does not own


def test_folder_that_was_deleted_and_made_anew_is_owned_anew(tmp_path: Path) -> None:
    own(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    own(tmp_path / "a")
    process = start(REFUSED, tmp_path / "a")
    assert process.communicate()[0] == ""
    release(tmp_path / "a")


def test_of_several_starts_at_once_one_succeeds(tmp_path: Path) -> None:
    processes = [start(BEGIN, tmp_path / "run", number) for number in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = []
    for process in processes:
        assert process.stdout is not None
        said.append(process.stdout.readline().strip())
    for process in processes:
        process.communicate()
    assert said.count("begun") == 1
    assert RunFolder(tmp_path / "run", None).config["number"] == said.index("begun")
    assert all("is being written by" in line or "is not empty" in line for line in said if line != "begun")


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match=r"cannot write .*choose a folder that you may write"):
        own(tmp_path / "file" / "run")
