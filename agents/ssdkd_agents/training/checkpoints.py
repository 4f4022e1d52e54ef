"""Checkpoints of a training, each enough to go on exactly.

| `checkpoints/`               | holds                                                                      |
|------------------------------|----------------------------------------------------------------------------|
| `<steps>.safetensors`        | the agent as a sampler (`policies.storage`), with its replay buffer        |
| `<steps>.state.safetensors`  | random streams and the loop's own state (`training.loop_state`)            |
| `<steps>.episodes/`          | the environments' episodes, in the middle of which the checkpoint may fall |

The sampler is written last and deleted first: where it is, the others are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm

from ssdkd_agents.policies.storage import find_sampler_file, read_sampler, save_sampler
from ssdkd_agents.runs import read_lines
from ssdkd_agents.training.loop_state import loop_state
from ssdkd_agents.vec_env import DistillationVecEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state, write_atomically

FORMAT = "ssdkd training 1"
#: Numbered checkpoints that are kept: replay buffers and episodes are large.
KEPT = 2


def save_checkpoint(run: Path, model: BaseAlgorithm, config: dict[str, Any], progress: dict[str, Any]) -> None:
    """Write a checkpoint between two iterations, and delete those before the last `KEPT`.

    Args:
        run: the run's folder.
        model: the agent, on a `DistillationVecEnv` inside wrappers.
        config: of the sampler; see `save_sampler`.
        progress: JSON-able; what else the training has to remember.
    """
    folder, steps = run / "checkpoints", model.num_timesteps
    _members(model).save_episodes(folder / f"{steps}.episodes")
    state = {"format": FORMAT, "loop": loop_state(model), "progress": progress}
    save_state(folder / f"{steps}.state.safetensors", state)
    save_sampler(folder / f"{steps}.safetensors", model, config, with_replay=True)
    _forget_old(folder)


class Checkpoint(NamedTuple):
    """What a training goes on from.

    Attributes:
        sampler: of `read_sampler`.
        loop: of `loop_state`.
        progress: as it was given to `save_checkpoint`.
        episodes: folder with the environments' episodes.
    """

    sampler: dict[str, Any]
    loop: dict[str, Any]
    progress: dict[str, Any]
    episodes: Path

    @property
    def steps(self) -> int:
        """Environment steps of the training so far."""
        return int(self.sampler["counters"]["num_timesteps"])


def read_checkpoint(run: Path) -> Checkpoint:
    """The last checkpoint of a run.

    Raises:
        InvalidInputError: when there is none, or a part of it is missing or damaged.
    """
    path = find_sampler_file(run)
    sampler = read_sampler(path)
    beside = path.with_suffix(".state.safetensors")
    if not beside.is_file():
        raise InvalidInputError(
            f"{beside} is missing, without which a training cannot go on; delete {path.name} beside it to go on from "
            "the checkpoint before, if there is one"
        )
    state = load_state(beside)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InvalidInputError(f"{beside} holds no state of a training; delete {path.name} beside it")
    return Checkpoint(sampler, state["loop"], state["progress"], path.with_suffix(".episodes"))


def load_episodes(model: BaseAlgorithm, folder: Path) -> None:
    """Let the training environments go on with the episodes of a checkpoint.

    Raises:
        InvalidInputError: when a file is missing or belongs to other environments.
    """
    _members(model).load_episodes(folder)


def drop_lines_after(path: Path, steps: int) -> None:
    """Delete the lines of a JSON-lines file that come after a checkpoint: they will be written again."""
    if not path.exists():
        return
    kept = [line for line in read_lines(path, ("timesteps",)) if line["timesteps"] <= steps]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    write_atomically(path, lambda temporary: temporary.write_text(text))


def _members(model: BaseAlgorithm) -> DistillationVecEnv:
    assert model.env is not None
    made = model.env.unwrapped
    assert isinstance(made, DistillationVecEnv)
    return made


def _forget_old(folder: Path) -> None:
    numbered = sorted((path for path in folder.glob("*.safetensors") if path.stem.isdigit()), key=lambda p: int(p.stem))
    for path in numbered[:-KEPT]:
        path.unlink()
    kept = {path.stem for path in numbered[-KEPT:]}
    for path in folder.iterdir():  # parts of deleted checkpoints, and of such as were cut short
        number = path.name.partition(".")[0]
        if number.isdigit() and number not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
