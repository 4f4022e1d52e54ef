"""`SSDKDEnv`: one distillation run as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ssdkd_env.devices import select_device
from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.distillation.execution import PRECISIONS
from ssdkd_env.distillation.report import RoundReport
from ssdkd_env.distillation.run import choose_backend
from ssdkd_env.distillation.work import Course, perform
from ssdkd_env.envs.actions import ACTION_SCHEMES
from ssdkd_env.envs.episode_file import load_episode, save_episode
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.envs.instance_draw import InstanceDraw
from ssdkd_env.envs.judging import Judge
from ssdkd_env.envs.observations import OBSERVATIONS, Observer
from ssdkd_env.envs.rewards import DIVERGED_SCORE, REWARDS
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.renamed import refuse_old_names
from ssdkd_env.tasks import Task

#: An action of the scheme, or the plan itself.
Action = FloatArray | np.int64 | SamplingPlan
#: What `reset` returns: observation and info.
ResetResult = tuple[FloatArray, dict[str, Any]]
#: What `step` returns: observation, reward, terminated, truncated, info.
StepResult = tuple[FloatArray, float, bool, bool, dict[str, Any]]


#: Arguments that an agent must find as it was trained with.
FACE = ("action", "observation", "history", "rounds_per_step")


class SSDKDEnv(gym.Env[FloatArray, Any]):
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

    Other schemes, each with a table of its parts in its class:

    - `"full"` (`Full`, 8 numbers): also φ's two exponents in inversion, and the adversarial weight.
    - `"plans"` (`NamedPlans`, `Discrete`): one of the named plans of `NAMED_PLANS`: the paper's, uniform, hard
      first, first in first out, …
    - `"bins"` (`Bins`, 15 numbers): on top of δ a logit for each bin of class rarity × difficulty. `"class_bins"`
      (`ClassBins`): for each class × difficulty, the one scheme that depends on the number of classes.
    - `"samples"` (`Samples`, 36 numbers): the weights of a small network that scores every image alike.

    `paper_action` is the paper's sampler (1, 0, 0, β = 0.4, all candidates compete), `uniform_action` draws
    without any priority, `own_action` is what the method's authors do; every scheme can say them exactly. ρ acts on
    methods with a partial update (`ssdkd`); with a full one every candidate enters. `step` takes a `SamplingPlan`, too.

    ## Observation Space

    `Box` float32 with finite bounds; `observation_names` holds the names. It sees no real data and does not depend
    on the number of classes. KL divergences d appear as d / (1 + d). With `observation="unscaled"` the bounds are
    those of the table; by default (`"scaled"`) entries 0–19 are (value − mean) / deviation with the constants of
    `ENTRIES`, clipped to ±5, so that an agent needs no statistics of its own. `history` stacks steps.

    | Num   | Observation                                                              | Min | Max |
    |-------|--------------------------------------------------------------------------|-----|-----|
    | 0     | progress: rounds done / rounds (the rest is the remaining budget)        | 0   | 1   |
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

    The gain of a score since the last step, so that the return is score(end) − score(start). Names that begin with
    `terminal_` pay all of it in the last step. The probe set is synthesised from the teacher alone before the first
    episode and never trained on.

    - `"probe_agreement"` (default): share of the probe set on which the arg-maxes of student and teacher agree.
    - `"probe_discrepancy"`: 1 / (1 + KL(teacher ‖ student)) on the probe set.
    - `"candidate_agreement"`: agreement on the round's fresh images, before the student saw any. Noisier.
    - `"oracle_accuracy"`: accuracy on real evaluation data. An oracle, for research only.

    ## Starting State

    A fresh student and generator; the buffer is filled by `warmup_rounds` batches without adversary. With `instances`
    teacher, student, buffer and budget are drawn first. Everything follows from the seed given to `reset`.

    ## Episode End

    1. Termination: the budget of `rounds` is used up (the budget is the task; `truncated` is never set).
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
        method: preset of the inversion engine: `"ssdkd"`, `"fast2"`, `"fast5"`, `"fast10"` (each also `_plain`),
            `"cmi"`, `"deepinversion"`, `"dafl"`, `"zskt"`, `"dfad"`, `"dfq"`, `"nayer"`, `"vanilla_kd"` (real images).
        method_options: settings of the preset to replace.
        instances: name of an instance set (`tasks.INSTANCE_SETS`) or import path of an `InstanceSet`: every episode
            draws its teacher, student, buffer and budget from it. None: every episode plays the same task.
        action: action scheme.
        observation: `"scaled"` or `"statistics"`; see above.
        history: observations of so many steps are stacked, the newest first.
        rounds_per_step: rounds of a step, which all follow its action (of the last step, those that are left). With few
            decisions an episode, an agent sees better what each of them did; with all rounds in one step the problem
            is a bandit's. Observation and info are of the step's last round (trends are means over its rounds), and
            whatever stops between steps, such as Ctrl-C in a script, waits for as long.
        reward: score whose gain is the reward.
        device: `"auto"` (CUDA where present), or a torch device.
        teacher: weights file in place of the task's teacher.
        teacher_arch: its network, by name or import path.
        student_arch: the student's network, by name or import path.
        generator_arch: the generator's network, by name or import path.
        budget: settings of the task's budget to replace; `"preset"` names another budget of the task, such as
            `{"preset": "cpu"}` for CIFAR.
        student: settings of the student's optimiser to replace.
        evaluation: real images and labels (`.npz`, folder, archive or `"hub:owner/name"`), for reported accuracy, in
            place of the task's own.
        buffer_scale: capacity of the buffer as a share of the teacher's training set, in place of the budget's.
        data_root: folder with the task's real data (CIFAR), else `SSDKD_DATA`. Without it no accuracy is reported.
        probe: settings of the probe set to replace, such as `{"steps": 5}` where a CPU has to make it.
        backend: `"auto"`, `"fast"`, `"compiled"` or `"plain"`: the same numbers but for rounding; see
            `DistillationRun`.
        precision: `"float32"`, or `"bfloat16"` for the products in the hot loops; see `DistillationRun`.
        evaluate_every_rounds: rounds between measurements of the reported `accuracy`, which on CIFAR costs as much as
            many minibatches; in between the last one is repeated. They are made at the ends of steps; the last round
            is always measured.
        clock: add `info["seconds"]`, wall time of synthesis and distillation. Off by default, because clock
            values differ between equal runs.
        render_mode: `"rgb_array"` draws buffer, histograms and learning curve.

    Raises:
        InvalidInputError: (a `ValueError`) when an argument is unknown, missing, unreadable or does not fit.

    ## Vectorized environment

    `gymnasium.make_vec` (sync, async) and Stable-Baselines3's `SubprocVecEnv` work unchanged; with one process an
    environment, give each one torch thread. Spawned workers need the id `"ssdkd_env:SSDKD/Digits-v2"`.

    ## Version History

    - v2: importance weights have mean 1 over the draws and are truncated at √N, where they were divided by their
      maximum; a candidate enters with the weight of residents of its KL; SSD-KD's constants are the task's, on CIFAR
      those of Fast.
    - v1: scaled observations; a probe set of several kinds of images.
    - v0: first version, before the package was released.
    """

    metadata = {  # noqa: RUF012 (Gymnasium declares it on the instance)
        "render_modes": ["rgb_array"],
        "render_fps": 4,
    }

    def __init__(
        self,
        task: str = "digits",
        method: str = "ssdkd",
        *,
        method_options: Mapping[str, Any] | None = None,
        instances: str | None = None,
        action: str = "exponents",
        observation: str = "scaled",
        history: int = 1,
        rounds_per_step: int = 1,
        reward: str = "probe_agreement",
        device: str = "auto",
        teacher: str | None = None,
        teacher_arch: str | None = None,
        student_arch: str | None = None,
        generator_arch: str | None = None,
        budget: Mapping[str, Any] | None = None,
        student: Mapping[str, Any] | None = None,
        evaluation: str | None = None,
        buffer_scale: float | None = None,
        data_root: str | None = None,
        probe: Mapping[str, Any] | None = None,
        backend: str = "auto",
        precision: str = "float32",
        evaluate_every_rounds: int = 1,
        clock: bool = False,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> None:
        refuse_old_names({**unknown, "action": action, "observation": observation})
        if unknown:
            raise TypeError(f"SSDKDEnv has no argument {next(iter(unknown))!r}")
        counts = {
            "history": history,
            "rounds_per_step": rounds_per_step,
            "evaluate_every_rounds": evaluate_every_rounds,
        }
        for name, count in counts.items():
            if not isinstance(count, int) or count < 1:
                raise InvalidInputError(f"{name}={count!r}: expected a whole number of at least 1")
        self.rounds_per_step = rounds_per_step
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.clock = clock
        self.device = select_device(device)
        self.backend = choose_backend(backend)
        self.precision = check_choice("precision", precision, PRECISIONS)
        fixed = {
            "task": task,
            "teacher": teacher,
            "teacher_arch": teacher_arch,
            "student_arch": student_arch,
            "generator_arch": generator_arch,
            "budget": budget,
            "student": student,
            "evaluation": evaluation,
            "buffer_scale": buffer_scale,
            "data_root": data_root,
            "probe": probe,
        }
        self.instances = InstanceDraw(instances, fixed)
        self.task = self.instances.tasks[0]
        self.method = self.task.make_method(method, method_options)
        if self.method.memory == "real":
            self.task.training_images()  # refuses here, not at the first reset, where there are none
        self.reward_name = check_choice("reward", reward, REWARDS)
        self._reward = REWARDS[reward]
        if self._reward.oracle and self.task.spec.evaluation is None:
            raise InvalidInputError(
                f"reward={reward!r} needs real evaluation data, task {self.task.spec.name!r} has none; "
                "choose a data-free reward such as 'probe_agreement'"
            )
        self._judge = Judge(self.device, evaluate_every_rounds, always=self._reward.oracle)
        self._make_scheme = ACTION_SCHEMES[check_choice("action", action, ACTION_SCHEMES)]
        self._take_task(self.task)
        self.action_space = self.action_scheme.space
        self.action_names = self.action_scheme.names
        check_choice("observation", observation, OBSERVATIONS)
        #: Argument → value for each of `FACE`.
        self.face: dict[str, Any] = dict(zip(FACE, (action, observation, history, rounds_per_step), strict=True))
        self._observer = Observer(observation, history, self.action_scheme.observed_names)
        self.observation_names = self._observer.names
        self.observation_space = self._observer.space
        self.run: DistillationRun | None = None

    def action_of(self, action: Action) -> Any:
        """The action of the scheme: a plan's nearest one, or the action itself."""
        return self.action_scheme.from_plan(action) if isinstance(action, SamplingPlan) else action

    def _take_task(self, task: Task) -> None:
        """Play this task from now on; spaces and names stay as they are."""
        self.task = task
        self.budget = task.spec.budget
        self.action_scheme = self._make_scheme(self.budget, self.method, task.spec.num_classes)

    @property
    def paper_action(self) -> Any:
        """The action that is the paper's sampler."""
        return self.action_scheme.from_plan(SamplingPlan())

    @property
    def own_action(self) -> Any:
        """The action that samples as the method's authors do: the paper's for SSD-KD, uniform for the others."""
        return self.action_scheme.from_plan(self.method.own_plan)

    @property
    def uniform_action(self) -> Any:
        """The action that samples without any priority."""
        return self.action_scheme.from_plan(SamplingPlan(discrepancy_exponent=0.0, importance_exponent=0.0))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start a new run; see the class.

        Args:
            seed: of the environment's random stream; None goes on with it.
            options: `{"instance": 3}` takes that instance of the set instead of drawing one.

        Raises:
            InvalidInputError: when there is no such instance.
        """
        return perform(self.reset_course(seed=seed, options=options))

    def step(self, action: Action) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Do one round (`rounds_per_step` of them) with the sampling plan that `action` means; see the class.

        A `SamplingPlan` may be given in place of an action, for what the scheme cannot say; the observation then
        repeats the action that comes nearest.

        Raises:
            InvalidInputError: when the action is unusable; the episode can go on.
            ResetNeeded: before the first reset, and after the episode's end.
        """
        return perform(self.step_course(action))

    def plan_of(self, action: Action) -> SamplingPlan:
        """The sampling plan that an action means.

        Raises:
            InvalidInputError: when the action is unusable.
        """
        plan = action if isinstance(action, SamplingPlan) else self.action_scheme.to_plan(action)
        if plan.logits is not None and self.rounds_per_step > 1:
            raise InvalidInputError(
                "SamplingPlan.logits are of the images of one round; give a scorer, or make the environment with "
                "rounds_per_step=1"
            )
        return plan

    def reset_course(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Course[ResetResult]:
        """`reset` as a generator of work, of which several environments do equal pieces together."""
        self.instances.wanted(options)  # before the random stream begins anew
        super().reset(seed=seed)
        self._take_task(self.instances.choose(self.np_random, options))
        self.run = self._make_run(self.task, int(self.np_random.integers(2**62)))
        self._last_action = np.zeros(len(self.action_scheme.observed_names), dtype=np.float32)
        report = yield from self.run.warm_up_course()
        self._snapshot = self._previous = yield from self._judge.look(self.run, report, None)
        self._score = self._paid = self._score_now()
        self._observer.begin(self._snapshot, self.budget.rounds, self._last_action)
        self.curve = [self._curve_point()]
        return self._observer.observation(), self._info()

    def step_course(self, action: Action) -> Course[StepResult]:
        """`step` as a generator of work."""
        if self.run is None:
            raise gym.error.ResetNeeded("Cannot call env.step() before calling env.reset()")
        if self.run.done:
            raise gym.error.ResetNeeded(
                f"the budget of {self.budget.rounds} rounds is used up; call env.reset() to start a new episode"
            )
        plan = self.plan_of(action)
        report = yield from self._rounds(self.run, plan)
        self._last_action = self.action_scheme.observed(self.action_of(action))
        self._previous, self._snapshot = self._snapshot, (yield from self._judge.look(self.run, report, self._snapshot))
        self._score = self._score_now()
        terminated = self.run.done or self._snapshot.report.diverged
        self._observer.see(self._snapshot, self._previous, self.budget.rounds, self._last_action)
        self.curve.append(self._curve_point())
        return self._observer.observation(), self._pay(terminated), terminated, False, self._info()

    def _rounds(self, run: DistillationRun, plan: SamplingPlan) -> Course[RoundReport]:
        """The rounds of a step: the last one's report, with the seconds of all."""
        report = yield from run.step_course(plan)
        for _ in range(self.rounds_per_step - 1):
            if run.done or report.diverged:
                break
            earlier = report
            report = yield from run.step_course(plan)
            report = replace(
                report,
                seconds_synthesis=earlier.seconds_synthesis + report.seconds_synthesis,
                seconds_distillation=earlier.seconds_distillation + report.seconds_distillation,
            )
        return report

    def _pay(self, terminated: bool) -> float:
        """The gain of the score that has not been paid yet, or 0 when it is not due."""
        if self._reward.terminal and not terminated:
            return 0.0
        gain, self._paid = self._score - self._paid, self._score
        return gain

    def render(self) -> NDArray[np.uint8] | None:
        """Picture of the run so far, (H, W, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn(
                'render() was called without a render mode; make the environment with render_mode="rgb_array"'
            )
            return None
        from ssdkd_env.envs.rendering import draw_run

        return draw_run(self)

    def buffer_picture(self) -> NDArray[np.uint8]:
        """The buffer's images as one (H, W, 3) uint8 grid, for TensorBoard.

        Raises:
            ResetNeeded: before the first reset.
        """
        if self.run is None:
            raise gym.error.ResetNeeded("Cannot call env.buffer_picture() before calling env.reset()")
        from ssdkd_env.envs.rendering import draw_buffer

        return draw_buffer(self)

    def held_out_accuracy(self) -> float | None:
        """The student's accuracy on real images that no network was trained on; None where there are none.

        Raises:
            ResetNeeded: before the first reset.
        """
        if self.run is None:
            raise gym.error.ResetNeeded("Cannot call env.held_out_accuracy() before calling env.reset()")
        return self.task.held_out_accuracy(self.run.student, self.device)

    def save(self, path: str | Path) -> None:
        """Write the episode so far as one safetensors file; `load` continues it bit-identically on the CPU.

        Raises:
            ResetNeeded: before the first reset.
            InvalidInputError: when the file cannot be written.
        """
        save_episode(self, path)

    def load(self, path: str | Path) -> tuple[FloatArray, dict[str, Any]]:
        """Continue the episode that `save` wrote, in an environment made with the same arguments.

        Returns:
            Observation and info as they were after the last step before `save`.

        Raises:
            InvalidInputError: when the file is unreadable or belongs to another task, method or scheme.
        """
        load_episode(self, path)
        return self._observer.observation(), self._info()

    def _make_run(self, task: Task, seed: int) -> DistillationRun:
        return DistillationRun(task, self.method, seed, self.device, self.backend, self.precision)

    def _score_now(self) -> float:
        if self._snapshot.report.diverged:
            return DIVERGED_SCORE
        return self._reward.score(self._snapshot)

    def _info(self) -> dict[str, Any]:
        """Numbers of the last round, flat: see `Snapshot.numbers`."""
        info = self._snapshot.numbers() | {"score": self._score, "instance": self.instances.index}
        if self.clock:
            report = self._snapshot.report
            info["seconds"] = {"synthesis": report.seconds_synthesis, "distillation": report.seconds_distillation}
        return info

    def _curve_point(self) -> dict[str, float]:
        """What the rendered learning curve shows of a round."""
        info = self._info()
        return {key: info[key] for key in ("round", "probe_agreement", "accuracy") if key in info}
