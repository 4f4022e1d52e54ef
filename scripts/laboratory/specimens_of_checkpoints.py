"""What checkpoints of a stranger may hold, whose checksums a stranger can make, too."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ssdkd_agents.manifests import write_manifest

from laboratory.specimens import HUGE, Make, Specimen, put
from ssdkd_env.files import load_state, save_state

#: Of a training: which part, what is changed in it, and how.
_OF_TRAININGS: dict[str, tuple[str, str, Any]] = {
    "text as the loop's state": ("state", "loop", "x"),
    "no random streams": ("state", "loop.random", {}),
    "text as a random stream": ("state", "loop.random.torch", "x"),
    "text as observations": ("state", "loop.last._last_obs", "x"),
    "observations of another size": ("state", "loop.last._last_obs", torch.ones(1, 3)),
    "a monitor of one": ("state", "loop.monitor", [torch.ones(1)]),
    "episodes without returns": ("state", "loop.episodes", [{}]),
    "numbers to log that are none": ("state", "loop.pending", {"x": 3}),
    "noise where there is none": ("state", "loop.noise", [torch.ones(1)]),
    "text as progress": ("state", "progress", "x"),
    "a setting more in progress": ("state", "progress.stranger", 1),
    "no number as steps": ("", "counters.num_timesteps", math.nan),
    "infinitely many updates": ("", "counters.n_updates", math.inf),
    "a replay buffer where there is none": ("", "replay", {"pos": 3}),
    "moments of another size": ("", "parameters.policy.optimizer.state.0.exp_avg", torch.ones(3)),
    "text as an episode's round": ("episodes/0", "run.round", "x"),
    "a buffer of a billion": ("episodes/0", "run.buffer.size", HUGE),
    "generator's moments of another size": (
        "episodes/0",
        "run.inversion.source.optimizer.state.0.exp_avg",
        torch.ones(3),
    ),
}


def of_checkpoints() -> Iterator[Specimen]:
    """All of them."""
    for holds, (part, path, value) in _OF_TRAININGS.items():
        yield Specimen("training's checkpoint", holds, _training(part, path, value))


def _training(part: str, path: str, value: Any) -> Make:
    """A copy of a training whose newest checkpoint is changed, in a part of it, and has its manifest anew."""

    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        copy = folder / "run"
        shutil.copytree(runs["train"], copy)
        (copy / "outcome.json").unlink()
        checkpoints = copy / "checkpoints"
        steps = max(int(file.name.split(".")[0]) for file in checkpoints.glob("*.manifest.json"))
        for older in checkpoints.glob("*.manifest.json"):
            if older.name != f"{steps}.manifest.json":
                older.unlink()
        file = checkpoints / ".".join(filter(None, (str(steps), part, "safetensors")))
        save_state(file, put(load_state(file), path, value))
        identity = json.loads((checkpoints / f"{steps}.manifest.json").read_text())["run"]
        (checkpoints / f"{steps}.manifest.json").unlink()
        write_manifest(checkpoints, steps, identity)
        return ["train", "--out", str(copy), "--resume", "--timesteps", "24"]

    return make
