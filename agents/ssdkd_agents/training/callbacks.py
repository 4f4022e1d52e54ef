"""Stable-Baselines3 callbacks: what TensorBoard shows of a sampler in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image, TensorBoardOutputFormat
from stable_baselines3.common.vec_env import unwrap_vec_wrapper

from ssdkd_agents.curves import (
    BUFFER_CATEGORY,
    BUFFER_TAGS,
    PICTURE_TAG,
    STUDENT_TAGS,
    layout_of,
    result_tags,
    table_row,
)
from ssdkd_agents.progress import Bar
from ssdkd_agents.runs import RETURN_TAG
from ssdkd_agents.training.recording import EpisodeLog, StepRecorder
from ssdkd_agents.vec_env import is_resting

#: Tag → key of info after the last round of an episode, averaged over the episodes that ended since the last log.
EPISODE_TAGS = STUDENT_TAGS
#: Tag → key of info after each step (of its last round), averaged over the steps since the last log.
ROUND_TAGS = BUFFER_TAGS
_ACTOR_CRITIC = ("train/actor_loss", "train/critic_loss")
_PROXIMAL = ("train/loss", "train/policy_gradient_loss", "train/value_loss", "train/entropy_loss")
#: Class of an algorithm → what tells how its learning goes, as Stable-Baselines3 logs it.
LOSS_TAGS = {
    "A2C": ("train/policy_loss", "train/value_loss", "train/entropy_loss"),
    "CMAES": ("train/sigma",),
    "CrossQ": (*_ACTOR_CRITIC, "train/ent_coef"),
    "DQN": ("train/loss",),
    "GRPO": tuple(tag for tag in _PROXIMAL if tag != "train/value_loss"),
    "PPO": _PROXIMAL,
    "RecurrentPPO": _PROXIMAL,
    "SAC": (*_ACTOR_CRITIC, "train/ent_coef"),
    "TD3": _ACTOR_CRITIC,
    "TQC": (*_ACTOR_CRITIC, "train/ent_coef"),
    "TRPO": ("train/policy_objective", "train/value_loss", "train/kl_divergence_loss"),
    "VectorARS": ("train/delta_std", "train/step_size"),
}
#: Outputs that can show neither pictures nor tables of hyper-parameters.
TEXT_OUTPUTS = ("stdout", "log", "json", "csv")
#: A buffer is shown after the first step that has brought an episode so far, as shares of its budget.
LATE = 0.6


class DistillationCallback(BaseCallback):
    """Log students, buffers and actions of the environments that a sampler trains in.

    Scalars go to every output of the model's logger. Pictures, the table of hyper-parameters and the page *Custom
    scalars* need TensorBoard (`tensorboard_log=...` of the model); without it they are left out.

    | Tag                     | Meaning                                                                         |
    |-------------------------|---------------------------------------------------------------------------------|
    | `student/*`             | the student after the last round, mean over the episodes that ended             |
    | `student/accuracy`      | on real data, where the task has them; reported, never trained on               |
    | `student/mean_iou`      | likewise, of dense predictions                                                  |
    | `student/diverged`      | share of the episodes that ended with a diverged student                        |
    | `buffer/*`              | mean over the steps; `replaced` in images, `mean_age` in rounds                 |
    | `action/<part>`         | mean over the steps of each part of the action, as the environment received it  |
    |                         | (of a discrete scheme: the share of the steps in which each was chosen)         |
    | `buffer/images`         | buffer of the first environment, late in an episode                             |

    ARS hides its steps from callbacks; with it, place a `StepRecorder` around `VecMonitor`, as `train` does.

    The picture comes before the end because vectorised environments reset in the same call in which an episode ends.
    An episode of a single step (`rounds_per_step`) has none.

    Args:
        hyperparameters: row of the table *HParams*. None: no table.
        image_every_episodes: episodes of the first environment between two pictures; 0 for none.
        verbose: 1 to say when TensorBoard is off.
        validated: somebody writes `eval/mean_reward` (and `eval/mean_accuracy`, of dense predictions `eval/mean_iou`),
            as `train` and `EvalCallback` do: the page *Custom scalars* begins with it.
    """

    def __init__(
        self,
        hyperparameters: Mapping[str, Any] | None = None,
        image_every_episodes: int = 10,
        verbose: int = 0,
        validated: bool = False,
    ) -> None:
        super().__init__(verbose)
        self.validated = validated
        self.hyperparameters = hyperparameters
        self.image_every_episodes = image_every_episodes
        self._episodes = 0
        self._has_pictures = False
        self._is_pictured = False
        self._action_names: tuple[str, ...] = ()
        self._recorder: StepRecorder | None = None
        self._seen = 0

    def _on_training_start(self) -> None:
        env = self.training_env
        self._recorder = unwrap_vec_wrapper(env, StepRecorder)
        self._seen = 0 if self._recorder is None else self._recorder.steps
        if env.has_attr("action_names"):
            self._action_names = tuple(env.get_attr("action_names", indices=[0])[0])
        tensorboard = next((o for o in self.logger.output_formats if isinstance(o, TensorBoardOutputFormat)), None)
        if tensorboard is None:
            if self.verbose:
                print("TensorBoard is off (give the model tensorboard_log=...): scalars only, no pictures")
            return
        if self.image_every_episodes and env.has_attr("buffer_picture"):
            self._has_pictures = True
        tensorboard.writer.add_custom_scalars(self._layout())
        if self.hyperparameters is not None:
            writer = tensorboard.writer.file_writer
            assert writer is not None
            for part in table_row(self.hyperparameters):
                writer.add_summary(part)

    def _layout(self) -> dict[str, dict[str, list[Any]]]:
        """Charts of the page *Custom scalars*."""
        env = self.training_env
        scores = env.get_attr("real_scores", indices=[0])[0] if env.has_attr("real_scores") else ()
        results = result_tags(scores, self.validated)
        algorithm = type(self.model).__name__
        others = {
            f"Losses of {algorithm}": LOSS_TAGS.get(algorithm, ()),
            "Action (mean over the steps)": [f"action/{name}" for name in self._action_names],
            BUFFER_CATEGORY: ROUND_TAGS,
        }
        return layout_of(results, others)

    def _on_step(self) -> bool:
        step = self._new_step()
        if step is None:
            return True
        infos, dones, actions = step
        if not is_resting(infos[0]):
            self._record_picture(infos[0], bool(dones[0]))
        moved = [index for index, info in enumerate(infos) if not is_resting(info)]
        for info, done in ((infos[index], dones[index]) for index in moved):
            for tag, key in ROUND_TAGS.items():
                self._record_mean(tag, info.get(key))
            if done:
                for tag, key in EPISODE_TAGS.items():
                    self._record_mean(tag, info.get(key))
        self._record_actions(actions[moved])
        return True

    def _on_training_end(self) -> None:
        """Write what came after the algorithm's last log."""
        if any(tag in self.logger.name_to_value for tag in (*EPISODE_TAGS, *ROUND_TAGS)):
            returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
            if returns:
                self.logger.record(RETURN_TAG, float(np.mean(returns)))
            self.logger.dump(self.num_timesteps)

    def _new_step(self) -> tuple[list[dict[str, Any]], NDArray[np.bool_], NDArray[Any]] | None:
        """Infos, ends and actions of the last step; None where it was seen already, or the algorithm hides it."""
        if self._recorder is not None:
            if self._recorder.steps == self._seen:
                return None
            self._seen = self._recorder.steps
            return self._recorder.infos, self._recorder.dones, np.asarray(self._recorder.actions)
        if "infos" not in self.locals:  # ARS shows its callbacks no step
            return None
        # On-policy algorithms draw outside the box too; "clipped_actions" is what the environment received.
        actions = np.asarray(self.locals.get("clipped_actions", self.locals["actions"]))
        return self.locals["infos"], self.locals["dones"], actions

    def _record_actions(self, actions: NDArray[Any]) -> None:
        space = self.training_env.action_space
        if isinstance(space, spaces.Discrete):  # the mean of its one-hot is the share of each choice
            actions = np.eye(int(space.n))[actions.reshape(-1)]
        if actions.ndim == 2 and actions.shape[1] == len(self._action_names):
            for name, value in zip(self._action_names, actions.mean(axis=0), strict=True):
                self._record_mean(f"action/{name}", value)

    def _record_picture(self, info: dict[str, Any], done: bool) -> None:
        """Record the first environment's buffer, once in each episode whose turn it is."""
        wanted = self._has_pictures and not self._is_pictured and self._episodes % self.image_every_episodes == 0
        if wanted and not done and info["progress"] >= LATE:
            picture = self.training_env.env_method("buffer_picture", indices=[0])[0]
            self.logger.record(PICTURE_TAG, Image(picture, "HWC"), exclude=TEXT_OUTPUTS)
            self._is_pictured = True
        if done:
            self._is_pictured = False
        self._episodes += int(done)

    def _record_mean(self, tag: str, value: float | None) -> None:
        self.logger.record_mean(tag, None if value is None else float(value))


class StepsDone(BaseCallback):
    """Tells a bar how much is done, and the mean return of the last episodes.

    Args:
        bar: of the training.
        log: of its episodes, where the bar is of these; None counts steps.
    """

    def __init__(self, bar: Bar, log: EpisodeLog | None) -> None:
        super().__init__()
        self._bar, self._log = bar, log

    def _on_step(self) -> bool:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if returns:
            self._bar.set_postfix({"return": f"{np.mean(returns):.3f}"}, refresh=False)
        self._bar.update((self.num_timesteps if self._log is None else self._log.episodes) - self._bar.n)
        return True
