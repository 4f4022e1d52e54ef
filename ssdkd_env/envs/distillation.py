"""`SSDKDEnv`: one distillation run as a Gymnasium environment."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ssdkd_env import ENV_VERSION
from ssdkd_env.devices import select_device
from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.execution import choose_backend, choose_precision
from ssdkd_env.envs.action_meanings import Action as Action
from ssdkd_env.envs.action_meanings import ActionMeanings
from ssdkd_env.envs.actions import ACTION_SCHEMES
from ssdkd_env.envs.beginnings import Beginnings
from ssdkd_env.envs.episode import Episode
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.envs.facts import Facts
from ssdkd_env.envs.instance_draw import InstanceDraw
from ssdkd_env.envs.judging import Judge
from ssdkd_env.envs.observations import OBSERVATIONS, Observer
from ssdkd_env.envs.references import References
from ssdkd_env.envs.rewards import find_reward
from ssdkd_env.envs.settings import EnvSettings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from ssdkd_env.reading import Seed, fitted, fitting
from ssdkd_env.settings import check_seed, essence
from ssdkd_env.tasks import Task
from ssdkd_env.threads import one_at_a_time

#: Attributes that a copy makes anew of the settings, or finds in memory: tasks and what belongs to them.
REMADE = (
    *("instances", "task", "references", "action_scheme", "episode"),
    *("_reward", "_judge", "_make_scheme", "_facts", "_observer"),
)
#: What `reset` and `load` return: observation and info.
ResetResult = tuple[FloatArray, dict[str, Any]]
#: What `step` returns: observation, reward, terminated, truncated, info.
StepResult = tuple[FloatArray, float, bool, bool, dict[str, Any]]


@one_at_a_time
class SSDKDEnv(ActionMeanings, gym.Env[FloatArray, Any]):
    """Data-free knowledge distillation with a sampler to control.

    ## Description

    A frozen teacher network has to teach a small student without the data that it was trained on. A generator
    inverts the teacher into images; a small replay buffer keeps some of them; the student studies minibatches
    drawn from the buffer. An episode is one such run, a step is one round: synthesise candidates → update the
    buffer → distil → refresh the priorities. The agent says how to sample in that round: which candidates enter
    the buffer, which residents leave, which images the student studies and with which weights. With
    `rounds_per_step` it says so for several rounds.

    Inversion, buffer, priority δ and modulation φ follow SSD-KD (CVPR 2024, arXiv 2406.07876), reconstructed
    where its equations were not available. The Markov decision process (observation, action, reward) is ours.

    ## Action Space

    `Box(-1, 1, (5,), float32)` with the default scheme `"exponents"`; `action_names` holds the names. The plan
    is ``P(x) ∝ (|δ(x)|+ε)^a · diversity(x)^b · difficulty(x)^c``, importance weights ``w = (N·P)^−β / Σ P·(N·P)^−β``,
    so that a drawn image has weight 1 on average, whatever β; none is above √N.

    | Num | Action                                              | -1 | +1                                   |
    |-----|-----------------------------------------------------|----|--------------------------------------|
    | 0   | discrepancy_exponent a of the priority δ            | -2 | 2                                    |
    | 1   | diversity_exponent b (rare classes first)           | -2 | 2                                    |
    | 2   | difficulty_exponent c (teacher unsure first)        | -2 | 2                                    |
    | 3   | importance_exponent β                               | 0  | 1                                    |
    | 4   | replaced_share ρ of the buffer, at most, this round | 0  | candidates / capacity (all of them)  |

    A number outside the box counts as the nearest one inside, in the observation too. NaN, infinity, what is no number
    and another shape are refused in one line, and the episode can go on.

    Other schemes, each with a table of its parts in its class:

    - `"full"` (`Full`, 8 numbers): also φ's two exponents in inversion, and the adversarial weight.
    - `"plans"` (`NamedPlans`, `Discrete`): one of the named plans of `NAMED_PLANS`: the paper's, uniform, hard
      first, first in first out, …
    - `"bins"` (`Bins`, 15 numbers): on top of δ a logit for each bin of class rarity × difficulty. `"class_bins"`
      (`ClassBins`): for each class × difficulty, the one scheme that depends on the number of classes.
    - `"samples"` (`Samples`, 36 numbers): the weights of a small network that scores every image alike.
    - `"work"` (`Work`, 7 numbers), `"division"` (`Division`, 2): also the step's inversion steps and minibatches.

    `paper_action` is the paper's sampler (1, 0, 0, β = 0.4, all candidates compete), `uniform_action` draws
    without any priority, `own_action` is what the method's authors do; schemes of sampling say them exactly. ρ acts on
    methods with a partial update (`ssdkd`); with a full one every candidate enters. `step` takes a `SamplingPlan`, too.

    ## Observation Space

    `Box` float32 with finite bounds; `observation_names` holds the names. It sees no real data and does not depend
    on the number of classes. KL divergences d appear as d / (1 + d). With `observation="unscaled"` the bounds are
    those of the table; by default (`"scaled"`) entries 0–19 are (value − mean) / deviation with the constants of
    `ENTRIES`, clipped to ±5, so that an agent needs no statistics of its own. `history` stacks steps.

    | Num   | Observation                                                              | Min | Max |
    |-------|--------------------------------------------------------------------------|-----|-----|
    | 0     | progress: share of the rounds, or of the work, that is spent             | 0   | 1   |
    | 1     | buffer_fill: share of the capacity in use                                | 0   | 1   |
    | 2     | buffer_class_imbalance: 1 − normalised entropy of the classes            | 0   | 1   |
    | 3–5   | buffer_difficulty_q10, q50, q90: quantiles of 1 − teacher's confidence   | 0   | 1   |
    | 6–8   | buffer_discrepancy_q10, q50, q90: quantiles of KL(teacher ‖ student)     | 0   | 1   |
    | 9     | buffer_agreement of the arg-maxes of teacher and student                 | 0   | 1   |
    | 10    | buffer_mean_age: rounds since synthesis / rounds                         | 0   | 1   |
    | 11    | effective_sample_size of the last P, as a share of the buffer            | 0   | 1   |
    | 12    | candidate_confidence: the teacher's, on this round's fresh images        | 0   | 1   |
    | 13    | candidate_discrepancy on them, before the student saw any                | 0   | 1   |
    | 14    | candidate_agreement on them, likewise                                    | 0   | 1   |
    | 15    | probe_discrepancy                                                        | 0   | 1   |
    | 16    | probe_agreement                                                          | 0   | 1   |
    | 17–19 | candidate_agreement_trend, probe_discrepancy_trend, probe_agreement_trend (per round) | -1 | 1 |
    | 20–24 | last_action, part by part (0 after a reset; one-hot of a named plan)     | -1  | 1   |

    ## Rewards

    The gain of a score since the last step, so that the return is score(end) − score(start). The probe set is
    synthesised from the teacher alone before the first episode and never trained on. Names that begin with
    `terminal_` pay all of it in the last step. Those with `relative_` pay the gain over what the method's own plan
    reaches at the same progress: the return is how far the student ends above it, so that returns of unlike instances
    compare; `standardized_` counts that in its deviations over seeds.

    - `"probe_agreement"` (default): share of the probe set on which the arg-maxes of student and teacher agree.
    - `"probe_discrepancy"`: 1 / (1 + KL(teacher ‖ student)) on the probe set.
    - `"candidate_agreement"`: agreement on the round's fresh images, before the student saw any. Noisier.
    - `"oracle_accuracy"`: accuracy on real evaluation data. An oracle, for research only.

    ## Starting State

    A fresh student and generator; the buffer is filled by `warmup_rounds` batches without adversary. With `instances`
    teacher, student, buffer and budget are drawn first. Everything follows from the seed given to `reset`.

    ## Episode End

    1. Termination: the `rounds` are used up, or with `work_scale` the multiply-adds (`truncated` is never set).
    2. Termination: the student has diverged (NaN). The score falls to 0 and `info["diverged"]` is true.

    ## Info

    Plain Python numbers with the same keys after every reset and step: `round`, `diverged`, `score` (whose gain is the
    reward), `instance` (its number in the set), `probe_agreement`, `probe_discrepancy`, and the round's losses and
    statistics of candidates and buffer (see `RoundReport`). `accuracy` (where the task has evaluation data) is measured
    on real images; it enters neither observation nor reward.

    ## Arguments

    ```python
    gymnasium.make("SSDKD/Digits-v2", reward="probe_discrepancy", budget={"rounds": 10})
    ```

    Args:
        task: name of a task, or import path `"package.module:spec"` of a `TaskSpec`.
        method: preset of the inversion engine.
        settings: everything else; see `EnvSettings`, which describes each argument.

    Raises:
        InvalidInputError: (a `ValueError`) when an argument is unknown, missing, unreadable or does not fit.

    ## Vectorized environment

    `gymnasium.make_vec(id, num_envs=16)`, without a `vectorization_mode`, makes an `SSDKDVectorEnv`, which does equal
    work of its runs together or divides them among processes. Its modes `"sync"` and `"async"` and Stable-Baselines3's
    `SubprocVecEnv` work unchanged; with one process an environment, give each one torch thread. Spawned workers need
    the id `"ssdkd_env:SSDKD/Digits-v2"`.

    ## Version History

    - v2: importance weights have mean 1 over the draws and are truncated at √N, where they were divided by their
      maximum; a candidate enters with the weight of residents of its KL; SSD-KD's constants are the task's, on CIFAR
      those of Fast.
    - v1: scaled observations; a probe set of several kinds of images.
    - v0: first version, before the package was released.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium declares it on the instance)

    #: What `help` and editors show: every argument by its name.
    __signature__ = inspect.signature(EnvSettings)

    def __init__(self, task: str = "digits", method: str = "ssdkd", **settings: Any) -> None:
        self.settings = made = EnvSettings.of({"task": task, "method": method} | settings)
        self.rounds_per_step, self.clock, self.render_mode = made.rounds_per_step, made.clock, made.render_mode
        self.device = select_device(made.device)
        self.backend = choose_backend(made.backend)
        self.instances = InstanceDraw(made.instances, made.task_arguments)
        self.task = self.instances.tasks[0]
        self.precision, self.precision_reason = choose_precision(
            made.precision, self.device, self.task.spec.image_shape
        )
        self.method = self.task.make_method(made.method, made.method_options)
        self.instances.check(made.action, self.method)
        self._reward = find_reward(made.reward, self.task)
        self._judge = Judge(self.device, made.evaluate_every_rounds, always=self._reward.oracle)
        self.references = References(self.method, self._reward, self.device, self.backend, made.precision)
        self._make_scheme = ACTION_SCHEMES.find(made.action)
        self._take_task(self.task)
        self.action_space, self.action_names = self.action_scheme.space, self.action_scheme.names
        self.face = made.face
        self._observer = Observer(OBSERVATIONS.find(made.observation), made.history, self.action_scheme.observed_names)
        self.observation_names = self._observer.names
        self.observation_space = self._observer.space
        self.beginnings = Beginnings(kept=0)
        self.episode: Episode | None = None

    @property
    def run(self) -> DistillationRun | None:
        """The episode's run; None before the first reset."""
        return None if self.episode is None else self.episode.run

    @property
    def real_scores(self) -> tuple[str, ...]:
        """Names in info of what is measured of the student on real images; none where there are no such images."""
        return self._judge.real_scores(self.task)

    @property
    def curve(self) -> list[dict[str, float]]:
        """Numbers after the reset and after each step that the picture's learning curve shows.

        Raises:
            AttributeError: before the first reset, which gives it.
        """
        if self.episode is None:
            raise AttributeError("curve: call env.reset() first")
        return self.episode.curve

    def _take_task(self, task: Task) -> None:
        """Play this task from now on; spaces and names stay as they are."""
        self.task = task
        self.budget, self._facts = task.spec.budget, Facts(task, self.method)
        self.action_scheme = self._make_scheme(self.budget, self.method, task.spec.num_classes)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> ResetResult:
        """Start a new run; see the class.

        Args:
            seed: of the environment's random stream, from 0 to 2**63 − 1; None goes on with it.
            options: `{"instance": 3}` takes that instance of the set instead of drawing one.

        Raises:
            InvalidInputError: when the seed is out of range, or there is no such instance.
        """
        seed = None if seed is None else check_seed("seed", seed)
        self.instances.wanted(options)  # before the random stream begins anew
        super().reset(seed=seed)
        index = self.instances.choose(self.np_random, options)
        task = self.instances.tasks[index]
        episode = self._new_episode(task, int(self.np_random.integers(2**62)))
        self.beginnings.begin(episode, index)
        # From here on nothing fails, so that an earlier episode goes on where this one cannot begin.
        self.instances.index, self.episode = index, episode
        self._take_task(task)
        self._last_action = np.zeros(len(self.action_scheme.observed_names), dtype=np.float32)
        self._observer.begin(episode.snapshot, self._facts, self._last_action)
        return self._observer.observation(), self._info()

    def step(self, action: Action) -> StepResult:
        """Do one round (`rounds_per_step` of them) with the sampling plan that `action` means; see the class.

        A `SamplingPlan` may be given in place of an action, for what the scheme cannot say; the observation then
        repeats the action that comes nearest.

        Raises:
            InvalidInputError: when the action is unusable.
            Exception: whatever stops the step in the middle. The episode is as it was before, and can go on.
            ResetNeeded: before the first reset, and after the episode's end.
        """
        episode = self._begun("step")
        if episode.over:
            raise gym.error.ResetNeeded(f"{episode.ending}; call env.reset() to start a new episode")
        plan, observed = self.plan_of(action), self.action_scheme.observed(self.action_of(action))
        reward = episode.play(plan, self.rounds_per_step)
        self._last_action = observed
        self._observer.see(episode.snapshot, episode.previous, self._facts, self._last_action)
        return self._observer.observation(), reward, episode.over, False, self._info()

    def _begun(self, method: str) -> Episode:
        if self.episode is None:
            raise gym.error.ResetNeeded(f"Cannot call env.{method}() before calling env.reset()")
        return self.episode

    def render(self) -> NDArray[np.uint8] | None:
        """Picture of the run so far, (H, W, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn(
                'render() was called without a render mode; make the environment with render_mode="rgb_array"'
            )
            return None
        from ssdkd_env.envs.rendering import draw_run

        return draw_run(self._begun("render"), self.action_scheme, self._last_action)

    def buffer_picture(self) -> NDArray[np.uint8]:
        """The buffer's images as one (H, W, 3) uint8 grid, for TensorBoard.

        Raises:
            ResetNeeded: before the first reset.
        """
        from ssdkd_env.envs.rendering import draw_buffer

        return draw_buffer(self._begun("buffer_picture"))

    def held_out_accuracy(self) -> float | None:
        """The student's accuracy on real images that no network was trained on; None where there are none.

        Raises:
            ResetNeeded: before the first reset.
        """
        return self.task.held_out_accuracy(self._begun("held_out_accuracy").run.student, self.device)

    def save(self, path: str | Path) -> None:
        """Write the episode so far as one safetensors file; `load` continues it bit-identically on the CPU.

        Raises:
            ResetNeeded: before the first reset.
            InvalidInputError: when the file cannot be written.
        """
        save_state(path, self._state(self._begun("save")))

    def _state(self, episode: Episode) -> dict[str, Any]:
        """The episode so far, copied."""
        state = {
            "arguments": self._fingerprint(self.task),
            "instance": self.instances.index,
            "np_random": self.np_random.bit_generator.state,
            "last_action": self._last_action.tolist(),
            "frames": [frame.tolist() for frame in self._observer.frames],
        }
        return state | episode.state_dict()

    def load(self, path: str | Path) -> ResetResult:
        """Continue the episode that `save` wrote, in an environment made with the same arguments.

        Returns:
            Observation and info as they were after the last step before `save`.

        Raises:
            InvalidInputError: when the file is unreadable or belongs to another task, method or scheme.
        """
        self._go_on(load_state(path), path)
        return self._observer.observation(), self._info()

    def _go_on(self, state: dict[str, Any], path: str | Path) -> None:
        number = state.get("instance") if isinstance(state, dict) else None
        task = self.instances.tasks[number] if isinstance(number, int) and 0 <= number < len(self.instances) else None
        if task is None or state.get("arguments") != self._fingerprint(task):
            raise InvalidInputError(
                f"{path} was saved by an environment with other arguments; make this one with the same task, networks, "
                "method, budget, backend, precision, kind of device, observation, action, rounds_per_step and reward"
            )
        # Nothing fails after it, so that a file that does not fit leaves the environment as it was.
        with fitting(path, "it is damaged; go on from an earlier one"):
            episode = self._new_episode(task, fitted(state["seed"], Seed))
            episode.load_state_dict(state)
            last_action = np.array(state["last_action"], dtype=np.float32)
            last_action = last_action.reshape(len(self.action_scheme.observed_names))
            frames = np.array(state["frames"], dtype=np.float32).reshape(self.observation_space.shape)
            self.np_random.bit_generator.state = state["np_random"]
        self.instances.index = state["instance"]
        self._take_task(task)
        self.episode = episode
        self._last_action, self._observer.frames = last_action, np.split(frames, self.settings.history)

    @one_at_a_time
    def __getstate__(self) -> dict[str, Any]:
        """What makes it anew, for pickles and copies: each has an episode of its own, at the same step."""
        own = {name: value for name, value in vars(self).items() if name not in REMADE}
        return copy.deepcopy({"own": own, "episode": None if self.episode is None else self._state(self.episode)})

    @one_at_a_time
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be what `__getstate__` describes."""
        SSDKDEnv.__init__(self, **vars(state["own"]["settings"]))
        vars(self).update(state["own"])
        if state["episode"] is not None:
            self._go_on(state["episode"], "the copied environment")

    def _fingerprint(self, task: Task) -> str:
        """What an episode depends on beside its state."""
        engine = (essence(self.method), self.backend, self.precision, self.device.type)
        scheme = type(self.action_scheme).__name__
        face = (self.instances.name, self.settings.reward, scheme, self.rounds_per_step)
        return repr((ENV_VERSION, task.identity(), *engine, *face, self.observation_names, self.observation_space))

    def _new_episode(self, task: Task, seed: int) -> Episode:
        run = DistillationRun(task, self.method, seed, self.device, self.backend, self.settings.precision)
        return Episode(run, task, self._judge, self._reward, self.references.of(task) if self._reward.against else None)

    def _info(self) -> dict[str, Any]:
        episode = self._begun("step")
        info = episode.numbers | {"instance": self.instances.index}
        if self.clock:
            report = episode.snapshot.report
            info["seconds"] = {"synthesis": report.seconds_synthesis, "distillation": report.seconds_distillation}
        return info
