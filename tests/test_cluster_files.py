"""The files of `examples/cluster`: what they start are commands of this project, with the Ray that tests have."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_code_blocks import parse

ROOT = Path(__file__).parents[1]
FILES = ROOT / "examples" / "cluster"
PINNED = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def job() -> dict[str, Any]:
    described, claim = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    assert claim["metadata"]["name"] == described["metadata"]["name"]
    return described["spec"]  # type: ignore[no-any-return]


def started() -> list[str]:
    """Every command of this project in the files, with what is put behind it."""
    script = (FILES / "slurm.sh").read_text().replace("\\\n", " ")
    (behind,) = re.findall(r'-- "\$\{command\[@\]\}" (.*)', script)
    behind = re.sub(r"\$\{SLURM_GPUS_ON_NODE:\+(.*?)\}", r"\1", behind)
    of_slurm = [f"{words} --minutes 5 {behind}" for words in re.findall(r"\((ssdkd .*?)\)", script)]
    of_kubernetes: list[str] = re.findall(r"exec (ssdkd .*?);", job()["entrypoint"])
    return [words.replace('"$out"', "runs/campaign") for words in (*of_slurm, *of_kubernetes)]


@pytest.mark.parametrize("command", started())
def test_command_is_one_of_ours(command: str) -> None:
    parse(shlex.split(command))


def test_both_begin_and_go_on() -> None:
    assert ["--resume" in command for command in started()] == [True, False, True, False]


def test_script_is_bash() -> None:
    subprocess.run(["bash", "-n", FILES / "slurm.sh"], check=True)


def test_ray_is_that_of_the_tests() -> None:
    assert PINNED is not None
    assert job()["rayClusterSpec"]["rayVersion"] == PINNED[1]
    image = re.search(r"^FROM rayproject/ray:(.*?)-", (FILES / "Dockerfile").read_text(), re.MULTILINE)
    assert image is not None and image[1] == PINNED[1]


def test_every_pod_has_the_disk_of_the_run() -> None:
    spec = job()["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert mount["mountPath"] == "/shared"
        assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]
