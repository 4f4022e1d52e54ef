"""What is done between two iterations of a training: go on exactly, validate, keep the best, save, end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from ssdkd_agents.curves import validation_points
from ssdkd_agents.policies.storage import save_sampler
from ssdkd_agents.runs import BEST_FILE, EVALUATIONS_FILE, RunFolder
from ssdkd_agents.stopping import Stopper
from ssdkd_agents.training.checkpoints import Checkpoint, save_checkpoint
from ssdkd_agents.training.config import TrainingConfig
from ssdkd_agents.training.loop_state import restore
from ssdkd_agents.training.recording import EpisodeLog
from ssdkd_agents.training.validation import Evaluation, Validation
from ssdkd_env.reading import fitting

#: Is told what a validation gave; whether the training ends with it.
GivesUp = Callable[[Evaluation], bool]
#: Seconds after Ctrl-C that an iteration has to end, so that nothing of it is lost.
GRACE = 5.0


class TrainingStopped(Exception):
    """Ends a training between two steps of the environments; its text is the outcome."""


@dataclass
class Progress:
    """What the loop remembers from checkpoint to checkpoint.

    Attributes:
        seconds: that the run has taken.
        episodes: that have ended.
        evaluated: steps at which it was last validated.
        best_return: highest mean validation return so far.
        best_timesteps: steps after which it was reached.
        without_improvement: evaluations since then.
    """

    seconds: float = 0.0
    episodes: int = 0
    evaluated: int = 0
    best_return: float | None = None
    best_timesteps: int | None = None
    without_improvement: int = 0

    def improves(self, evaluation: Evaluation, learnt: bool) -> bool:
        """Take an evaluation into account; whether it is the best so far.

        Args:
            evaluation: what came of it.
            learnt: whether the agent has been updated at all; the best of a training is one that was.
        """
        self.evaluated = evaluation.timesteps
        if not learnt:
            return False
        if self.best_return is not None and evaluation.mean_return <= self.best_return:
            self.without_improvement += 1
            return False
        self.best_return, self.best_timesteps = evaluation.mean_return, evaluation.timesteps
        self.without_improvement = 0
        return True


class TrainingLoop:
    """Called between two iterations, when nothing of the algorithm is half done.

    Args:
        model: the agent.
        folder: the run's.
        config: says what is due when.
        hyperparameters: the file's and the config's.
        validation: plays episodes.
        stop: whether Ctrl-C was pressed.
        log: knows the run's wall time.
        progress: of the run so far.
        resumed: checkpoint from which the run goes on.
        gives_up: whether the run is to end early, asked after each validation.
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        folder: RunFolder,
        config: TrainingConfig,
        hyperparameters: dict[str, Any],
        validation: Validation,
        stop: Stopper,
        log: EpisodeLog,
        progress: Progress,
        resumed: Checkpoint | None,
        gives_up: GivesUp | None = None,
    ) -> None:
        self.progress = progress
        self._gives_up = gives_up
        self._model, self._folder, self._config = model, folder, config
        self._validation, self._stop, self._log, self._resumed = validation, stop, log, resumed
        self._sampler_config = {
            "algorithm": config.algorithm,
            "hyperparameters": hyperparameters,
            "env_id": config.env_id,
            "env_kwargs": config.env_kwargs,
        }
        self._saved = -1 if resumed is None else model.num_timesteps  # the first boundary is a checkpoint

    def __call__(self) -> None:
        """Do what is due.

        Raises:
            TrainingStopped: when the training ends here; a checkpoint has been saved then.
        """
        if self._catch_up() and self._is_tired():  # it was killed before it could say so
            raise TrainingStopped("stopped early")
        evaluation = self._evaluate()
        tired = evaluation is not None and self._is_enough(evaluation)
        if (
            tired
            or self._stop()
            or _crossed(self._config.checkpoint_every_steps, self._saved, self._model.num_timesteps)
        ):
            self.save()
        if 0 < self._config.episodes <= self._log.episodes:
            raise TrainingStopped("finished")
        if tired:  # also where Ctrl-C came meanwhile: a resumed training would not ask again
            raise TrainingStopped("stopped early")
        if self._stop():
            raise TrainingStopped("interrupted")

    def finish(self) -> bool:
        """Validate the last agent, so that what is kept can be the best, and save.

        Returns:
            Whether that was the end; false where Ctrl-C cut the validation short, which is due then.
        """
        self._catch_up()
        evaluation = self._evaluate(last=True)
        if evaluation is not None and self._gives_up is not None:
            self._gives_up(evaluation)
        self.save()
        return is_validated(self._config, self.progress, self._model.num_timesteps)

    def save(self) -> None:
        """Write a checkpoint."""
        self.progress.seconds, self.progress.episodes = self._log.seconds, self._log.episodes
        save_checkpoint(self._folder, self._model, self._sampler_config, asdict(self.progress))
        self._saved = self._model.num_timesteps

    def _catch_up(self) -> bool:
        """Put back, once, what a resumed training needs before anything else is done; whether that was now."""
        if self._resumed is None:
            return False
        with fitting("the checkpoint's state", "delete its manifest, to go on from the checkpoint before it"):
            restore(self._model, self._resumed.loop)
        self._resumed = None
        for tensorboard in _tensorboards(self._model):
            _hide_events_after(tensorboard, self._model.num_timesteps)
        return True

    def _is_tired(self) -> bool:
        """Whether patience has ended."""
        return 0 < self._config.patience <= self.progress.without_improvement

    def _is_enough(self, evaluation: Evaluation) -> bool:
        """Whether the run ends after this validation."""
        given_up = self._gives_up is not None and self._gives_up(evaluation)
        return given_up or self._is_tired()

    def _evaluate(self, last: bool = False) -> Evaluation | None:
        """Validate if it is due; what came of it, None otherwise. What Ctrl-C cuts short stays due."""
        steps = self._model.num_timesteps
        due = _crossed(self._config.evaluate_every_steps, self.progress.evaluated, steps)
        due = due or (last and not is_validated(self._config, self.progress, steps))
        if self._stop() or not due:
            return None
        evaluation = self._validation.play(self._model, self._stop)
        if evaluation is None:
            return None
        if self.progress.improves(evaluation, learnt=self._model._n_updates > 0):
            save_sampler(self._folder.path / BEST_FILE, self._model, self._sampler_config)
        self._folder.append(evaluation.line(), file=EVALUATIONS_FILE)
        # Not through the model's logger, which would write what the algorithm has recorded for its next log.
        for tensorboard in _tensorboards(self._model):
            for tag, value in validation_points(evaluation.line()).items():
                tensorboard.writer.add_scalar(tag, value, steps)
            tensorboard.writer.flush()
        return evaluation


class PatienceEnds(BaseCallback):
    """Ends the training in the middle of an iteration that takes too long after Ctrl-C.

    It is then as if the iteration had not begun: `--resume` goes on from the checkpoint before it. An exception from
    the middle of a step would leave the workers' pipes with answers that nobody has read.

    Args:
        stop: takes Ctrl-C.
    """

    def __init__(self, stop: Stopper) -> None:
        super().__init__()
        self._stop = stop

    def _on_step(self) -> bool:
        if self._stop.waited() > GRACE:
            raise TrainingStopped("interrupted")
        return True


def is_validated(config: TrainingConfig, progress: Progress, steps: int) -> bool:
    """Whether the agent of so many steps has been validated, or none is."""
    return config.evaluate_every_steps == 0 or progress.evaluated >= steps


def _crossed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never where it is 0."""
    return every > 0 and now // every > before // every


def _tensorboards(model: BaseAlgorithm) -> list[TensorBoardOutputFormat]:
    return [output for output in model.logger.output_formats if isinstance(output, TensorBoardOutputFormat)]


def _hide_events_after(tensorboard: TensorBoardOutputFormat, steps: int) -> None:
    """Tell TensorBoard that what it has after `steps` will be written again: SummaryWriter's `purge_step`, later on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

    writer = tensorboard.writer.file_writer
    assert writer is not None
    writer.add_event(Event(step=steps + 1, session_log=SessionLog(status=SessionLog.START)))
