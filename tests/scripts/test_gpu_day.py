"""`gpu_day`: what waits for a GPU, tried on the CPU."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_day
import pytest
import torch
from laboratory import correctness

from ssdkd_env.errors import InvalidInputError

CPU = torch.device("cpu")


def arguments(out: Path, *pieces: str, **settings: Any) -> gpu_day.Arguments:
    return gpu_day.Arguments(out=out, pieces=pieces, device="cpu", tiny=True, **settings)


def test_a_device_is_right_beside_itself_and_every_part_is_looked_at() -> None:
    rows = correctness.compare_devices(CPU)
    assert torch.get_default_dtype() == torch.float32
    assert len(rows) == 11
    assert all(row.right for row in rows)


@pytest.mark.parametrize("part", ["student after three steps", "inversion's gradient", "residents"])
def test_a_device_that_computes_otherwise_ends_everything(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = correctness.numbers_of
    calls: list[torch.device] = []

    def wrong_at_the_second(device: torch.device) -> dict[str, torch.Tensor]:
        calls.append(device)
        numbers = plain(device)
        return numbers if len(calls) == 1 else numbers | {part: numbers[part] * (1 + 1e-6)}

    monkeypatch.setattr(correctness, "numbers_of", wrong_at_the_second)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing else may be measured"))
    with pytest.raises(InvalidInputError, match=f"computes otherwise than the CPU: {part}; no figures"):
        gpu_day.main(arguments(tmp_path, "correctness", "peak"))
    assert not (tmp_path / "correctness.done").exists()


def test_pieces_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[str] = []
    codes = iter([0, 1, 0, 0, 0, 0, 0, 0])

    def run(command: list[str], stdout: Any, stderr: Any) -> SimpleNamespace:
        commands.append(Path(command[1]).name)
        stdout.write("everything is finished\n" if len(commands) > 6 else "working\n")
        return SimpleNamespace(returncode=next(codes))

    monkeypatch.setattr(subprocess, "run", run)
    args = arguments(tmp_path, "peak", "profile", "peer", "protocol", "scenes")
    with pytest.raises(InvalidInputError, match="peak failed: working"):
        gpu_day.main(args)
    gpu_day.main(args)  # peak anew, both of its commands, profile, and a first part of the protocol
    assert "not finished yet" in capsys.readouterr().out
    assert not (tmp_path / "protocol.done").exists()
    gpu_day.main(args)
    assert "all done" in capsys.readouterr().out
    speed, profile, protocol = "measure_speed.py", "profile_step.py", "paper_protocol.py"
    assert commands == [speed, speed, speed, speed, profile, protocol, protocol, protocol]
    gpu_day.main(args)
    assert len(commands) == 8


@pytest.mark.parametrize(
    ("pieces", "settings", "match"),
    [
        (("speed",), {}, "--pieces='speed' is unknown; choose one of: correctness"),
        (("protocol",), {"minutes": 0.1}, "--minutes 0.1: expected more than half a minute"),
    ],
)
def test_bad_arguments_are_refused(
    pieces: tuple[str, ...], settings: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=match):
        gpu_day.main(arguments(tmp_path / "out", *pieces, **settings))
    assert not (tmp_path / "out").exists()


def test_the_whole_of_it_runs_at_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the peer, which needs a checkout, the protocols, which need data, and the compiler, which is slow."""
    gpu_day.COMMANDS["peak"](arguments(tmp_path), 1.0)
    gpu_day.main(arguments(tmp_path, "correctness", "runs", "profile"))
    assert "all done" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"runs.jsonl", "profile.jsonl"}
