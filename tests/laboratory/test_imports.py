"""Imports are tried one by one, also where PyTorch is lacking."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from check_pythons import IMPORTS
from laboratory.builds import run

GOOD = """
import abc, dataclasses
import lacking.nn.functional as F
from lacking import nn
from lacking.utils.data import Dataset

SHAPE = nn.Parameter | None

class Layer(nn.Module, abc.ABC):
    @nn.no_grad()
    def method(self): return 1

@dataclasses.dataclass
class Numbers(Dataset[int]):
    dtype: object = nn.float32
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name in ("ssdkd_env", "ssdkd_agents"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "ssdkd_agents" / "__main__.py").write_text("raise SystemExit(9)")
    return tmp_path


def import_all(packages: Path, *lacking: str) -> dict[str, Any]:
    told = run([sys.executable, IMPORTS, *lacking], packages, {"PYTHONPATH": str(packages)})
    return dict(json.loads(told))


def test_bodies_run_with_stand_ins(packages: Path) -> None:
    (packages / "ssdkd_env" / "good.py").write_text(f"{GOOD}\nassert Layer.method(None) == 1\n")
    told = import_all(packages, "lacking")
    assert told["faults"] == {}
    assert told["imported"] == 3
    assert told["loads_torch"] is False


def test_faults_are_told_of_each_module(packages: Path) -> None:
    (packages / "ssdkd_env" / "absent.py").write_text("import lacking, nowhere")
    (packages / "ssdkd_env" / "wrong.py").write_text("from typing import Nothing")
    faults = import_all(packages, "lacking")["faults"]
    assert faults["ssdkd_env.absent"] == "ModuleNotFoundError: No module named 'nowhere'"
    assert faults["ssdkd_env.wrong"].startswith("ImportError: cannot import name 'Nothing'")
    assert set(faults) == {"ssdkd_env.absent", "ssdkd_env.wrong"}


def test_torch_that_is_loaded_at_once_is_told(packages: Path) -> None:
    (packages / "torch.py").write_text("")
    (packages / "ssdkd_env" / "__init__.py").write_text("import torch")
    assert import_all(packages)["loads_torch"] is True
