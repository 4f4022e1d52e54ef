"""A distillation's episode, whose checkpoints also hold what has lately been synthesised."""

from __future__ import annotations

from pathlib import Path

from ssdkd_agents.benchmarking.experiments import EpisodeConfig, ResumableEpisode, forget
from ssdkd_agents.distilling.recent import Recent
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.files import load_state, save_state
from ssdkd_env.reading import fitting

#: What lies beside a checkpoint, with the number of its steps.
_RECENT = "recent.{}.safetensors"


class DistillationEpisode(ResumableEpisode):
    """A resumable episode at which `Recent` looks.

    Args:
        config: which episode.
        env: that plays it.
        images: that `recent` holds.

    Attributes:
        recent: what has lately been synthesised.
    """

    def __init__(self, config: EpisodeConfig, env: SSDKDEnv, images: int) -> None:
        super().__init__(config, env=env)
        self.recent = Recent(images)

    def start(self) -> None:
        """Reset the environment, which includes the warm-up."""
        super().start()
        self._see()

    def advance(self) -> None:
        """Play one step."""
        super().advance()
        self._see()

    def _see(self) -> None:
        assert self._env.run is not None
        self.recent.see(self._env.run)

    def save(self, path: Path) -> None:
        """As `ResumableEpisode.save`, with what is recent before it; that of earlier checkpoints is then deleted."""
        recent = self._beside(path)
        save_state(recent, self.recent.state_dict())
        super().save(path)
        for older in _all_beside(path):
            if older != recent:
                older.unlink()

    def load(self, path: Path) -> None:
        """Continue the episode that `save` wrote.

        Raises:
            InvalidInputError: as of `ResumableEpisode.load`; also when what was recent does not fit.
        """
        super().load(path)
        with fitting(self._beside(path), f"delete {path} to start over"):
            self.recent.load_state_dict(load_state(self._beside(path)))

    def _beside(self, path: Path) -> Path:
        return path.with_name(_RECENT.format(len(self.trace.actions)))


def forget_distillation(checkpoint: Path) -> None:
    """Delete what `DistillationEpisode.save` wrote."""
    forget(checkpoint)
    for file in _all_beside(checkpoint):
        file.unlink()


def _all_beside(checkpoint: Path) -> list[Path]:
    return list(checkpoint.parent.glob(_RECENT.format("*")))
