"""`compare_fast_datafree`: ours against a checkout of the user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from laboratory.equal_work import OurSide, Round, Seconds
from laboratory.fast_datafree import FILES
from ssdkd_agents.lines import read_lines

from tests.scripts.commands import SCRIPTS, assert_refused, in_process_of_its_own, in_this_process

TINY = (
    *("--teacher-arch", "resnet8", "--generator-channels", 8, "--candidates", 8, "--inversion-steps", 2),
    *("--student-steps", 3, "--batch-size", 8, "--pools", 16, 32, "--rounds", 2),
)
#: The folder of a checkout of Fast-Datafree, for the one test that needs it; kornia must be installed for it.
CHECKOUT = os.environ.get("FAST_DATAFREE", "")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--checkout", "missing"), "--checkout missing is no folder; give the folder of a checkout"),
        (("--checkout", "."), f"has no {FILES[0]}; give the folder of a checkout of Fast-Datafree: git clone https://"),
        (("--checkout", ".", "--pools", "100"), "--pools 100: expected more images than --candidates 128"),
        (("--checkout", ".", "--pools", "1281"), "and a multiple of --batch-size 128"),
        (("--checkout", ".", "--pools"), "--pools and --workers: give at least one number"),
        (("--checkout", ".", "--workers", "-1"), "--pools and --workers: give at least one number, and none below 0"),
        (("--checkout", ".", "--rounds", "0"), "--rounds 0"),
        (("--checkout", ".", "--batch-size", "0"), "--batch-size 0: expected at least 1"),
        (("--checkout", ".", "--student-arch", "resnet7"), "student_arch='resnet7' is unknown"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...], match: str, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    assert_refused(in_this_process("compare_fast_datafree", "--out", out, *arguments), match)
    assert not out.exists()


def test_kornia_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    out = tmp_path / "results.jsonl"
    assert_refused(in_this_process("compare_fast_datafree", "--out", out, "--checkout", tmp_path), "pip install kornia")
    assert not out.exists()


def test_earlier_results_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text("{}\n")
    result = in_this_process("compare_fast_datafree", "--out", out, "--checkout", tmp_path)
    assert_refused(result, "exists; choose another file")
    assert out.read_text() == "{}\n"


def test_help_shows_an_example() -> None:
    result = in_this_process("compare_fast_datafree", "--help")
    assert result.code == 0, result.stderr
    assert "python scripts/compare_fast_datafree.py --checkout Fast-Datafree --out " in result.stdout


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_fast_datafree

    return compare_fast_datafree


class OtherSide(OurSide):
    """Our engine in the place of the other side, without the passes that only ours may do more."""

    def round(self, workers: int = 0, autocast: bool = False) -> Seconds:
        return super().round()


@pytest.mark.parametrize(
    ("steps", "match"), [(2, "4 images at the place 'student, distillation', expected 6"), (3, "")]
)
def test_no_figure_without_equal_work(
    steps: int,
    match: str,
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = [
        Round("resnet8", generator_channels=8, candidates=2, inversion_steps=1, student_steps=k, batch_size=2)
        for k in (3, steps)
    ]

    def other(*_: Any) -> OtherSide:
        return OtherSide(sizes[1], sizes[1].task(), 4, torch.device("cpu"))

    plain = script.unequal_work
    monkeypatch.setattr(script, "PRECISIONS", ("float32",))
    monkeypatch.setattr(script, "TheirSide", other)
    monkeypatch.setattr(script, "different_networks", lambda *_: [])
    monkeypatch.setattr(script, "unequal_work", lambda side, work, size, _, __: plain(side, work, size, script.EXTRA))
    args = script.Arguments(
        checkout=tmp_path,
        out=tmp_path / "results.jsonl",
        workers=(0,),
        rounds=2,
        size=sizes[0],
    )
    if match:
        with pytest.raises(SystemExit, match="1"):
            script.compare(args, sizes[0].task(), None, 4, torch.device("cpu"), tmp_path)
        assert match in capsys.readouterr().err
    else:
        rows = script.compare(args, sizes[0].task(), None, 4, torch.device("cpu"), tmp_path)
        assert len(rows) == 2
    lines = read_lines(args.out)
    assert bool(lines[0]["problems"]) == bool(match)
    assert sum("seconds" in line for line in lines) == (0 if match else 2)


@pytest.mark.skipif(not CHECKOUT, reason="set FAST_DATAFREE to the folder of a checkout of Fast-Datafree")
def test_comparison_with_a_checkout(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    result = in_process_of_its_own(
        "compare_fast_datafree", "--checkout", CHECKOUT, "--out", out, *TINY, "--workers", 2, 0, "--autocast"
    )
    assert result.code == 0, result.stderr
    lines = read_lines(out)
    theirs = {f"Fast-Datafree, {workers} workers{more}" for workers in (0, 2) for more in ("", ", bfloat16")}
    sides = {"ours, auto", "ours, float32"} | theirs
    gates = [line for line in lines if "problems" in line]
    assert [(line["pool"], line["problems"]) for line in gates] == [(16, []), (32, [])]
    for gate in gates:
        assert set(gate["images"]) == sides
        assert {images["student, distillation"] for images in gate["images"].values()} == {24}
        assert {images["teacher, inversion, backward"] for images in gate["images"].values()} == {16}
    rounds = [line for line in lines if "seconds" in line]
    assert [(line["pool"], line["round"]) for line in rounds] == [(16, 0), (16, 1), (32, 0), (32, 1)]
    assert all(set(line["seconds"]) == sides for line in rounds)
    for line in (line for line in lines if "ratio" in line):
        pairs = [it["seconds"] for it in rounds if it["pool"] == line["pool"]]
        ratios = [sum(it[line["side"]].values()) / sum(it[line["over"]].values()) for it in pairs]
        assert line["ratio"]["mean"] == pytest.approx(sum(ratios) / len(ratios))
    assert sum("ratio" in line for line in lines) == 2 * 2 * 4
    changes = lines[-1]["changes"]
    assert any("2 loader workers where it writes 4" in change for change in changes)
    assert all(change in result.stdout for change in changes)
    assert CHECKOUT not in out.read_text()
    assert "| 32 | Fast-Datafree, 0 workers |" in result.stdout
