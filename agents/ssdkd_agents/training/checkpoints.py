"""Checkpoints of a training, each enough to go on exactly.

| `checkpoints/`               | holds                                                                      |
|------------------------------|----------------------------------------------------------------------------|
| `<steps>.safetensors`        | the agent as a sampler (`policies.storage`), with its replay buffer        |
| `<steps>.state.safetensors`  | random streams and the loop's own state (`training.loop_state`)            |
| `<steps>.episodes/`          | the environments' episodes, in the middle of which the checkpoint may fall |

A manifest (`manifests`) is written last and deleted first: where it is, the others are.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm

from ssdkd_agents.lines import drop_lines
from ssdkd_agents.manifests import forget_old, newest_sound, write_manifest
from ssdkd_agents.policies.storage import read_sampler, save_sampler
from ssdkd_agents.runs import BEST_FILE, EPISODES_FILE, EVALUATIONS_FILE, RunFolder
from ssdkd_agents.schemas import StepsLine, TrainingState
from ssdkd_agents.training.loop_state import loop_state
from ssdkd_agents.vec_env import DistillationVecEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.reading import conform

FORMAT = "ssdkd training 1"
#: Numbered checkpoints that are kept: replay buffers and episodes are large.
KEPT = 2
FOLDER = "checkpoints"


def save_checkpoint(run: RunFolder, model: BaseAlgorithm, config: dict[str, Any], progress: dict[str, Any]) -> None:
    """Write a checkpoint between two iterations, and delete those before the last `KEPT`.

    Args:
        run: the folder.
        model: the agent, on a `DistillationVecEnv` inside wrappers.
        config: of the sampler; see `save_sampler`.
        progress: JSON-able; what else the training has to remember.
    """
    folder, steps = run.path / FOLDER, model.num_timesteps
    _members(model).save_episodes(folder / f"{steps}.episodes")
    state = {"format": FORMAT, "loop": loop_state(model), "progress": progress}
    save_state(folder / f"{steps}.state.safetensors", state)
    save_sampler(folder / f"{steps}.safetensors", model, config, with_replay=True)
    write_manifest(folder, steps, run.identity)
    forget_old(folder, KEPT)


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


def read_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The newest checkpoint of a run that is as it was written; None where there is none yet.

    Raises:
        InvalidInputError: when there are some and none is sound, or it is of another version.
    """
    steps = newest_sound(run.path / FOLDER, run.identity)
    if steps is None:
        return None
    path = run.path / FOLDER / f"{steps}.safetensors"
    state = load_state(beside := path.with_suffix(".state.safetensors"))
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InvalidInputError(f"{beside} holds no state of a training of this version; start anew in another folder")
    conform(
        state, TrainingState, f"{beside} is damaged", "go on from the checkpoint before it: delete this one's manifest"
    )
    return Checkpoint(read_sampler(path), state["loop"], state["progress"], path.with_suffix(".episodes"))


def begin_anew(run: RunFolder) -> None:
    """Delete what a training has left that ended before its first checkpoint: it will be written again."""
    for pattern in (FOLDER, "tensorboard*"):
        for folder in run.path.glob(pattern):
            shutil.rmtree(folder)
    for name in (EPISODES_FILE, EVALUATIONS_FILE, BEST_FILE):
        (run.path / name).unlink(missing_ok=True)


def load_episodes(model: BaseAlgorithm, folder: Path) -> None:
    """Let the training environments go on with the episodes of a checkpoint.

    Raises:
        InvalidInputError: when a file is missing or belongs to other environments.
    """
    _members(model).load_episodes(folder)


def drop_lines_after(path: Path, steps: int) -> None:
    """Delete the lines of a JSON-lines file that come after a checkpoint: they will be written again."""
    drop_lines(path, lambda line: line["timesteps"] <= steps, StepsLine)


def _members(model: BaseAlgorithm) -> DistillationVecEnv:
    assert model.env is not None
    made = model.env.unwrapped
    assert isinstance(made, DistillationVecEnv)
    return made
