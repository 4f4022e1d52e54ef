"""What an environment is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict, get_type_hints

from ssdkd_env.distillation.execution import PRECISION_CHOICES, choose_backend
from ssdkd_env.envs.actions import ACTION_SCHEMES
from ssdkd_env.envs.observations import OBSERVATIONS
from ssdkd_env.envs.rewards import REWARDS
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.renamed import refuse_old_names
from ssdkd_env.settings import hold_plain, is_whole

#: Settings that an agent must find as it was trained with.
FACE = ("action", "observation", "history", "rounds_per_step")
#: Settings that are `load_task`'s.
OF_TASK = (
    "task",
    "teacher",
    "teacher_arch",
    "teacher_weights",
    "mean",
    "std",
    "student_arch",
    "generator_arch",
    "budget",
    "student",
    "evaluation",
    "buffer_scale",
    "work_scale",
    "data_root",
    "probe",
)

#: Largest numbers of steps and rounds.
MOST = {"history": 1_000, "rounds_per_step": 1_000_000, "evaluate_every_rounds": 1_000_000_000}


@dataclass(frozen=True)
class EnvSettings:
    """The arguments of `SSDKDEnv`, by the same names in Python, on the command line and in files.

    NumPy's numbers serve wherever Python's do.

    Attributes:
        task: name of a task, or import path `"package.module:spec"` of a `TaskSpec`.
        method: preset of the inversion engine: `"ssdkd"`, `"fast2"`, `"fast5"`, `"fast10"` (each also `_plain`),
            `"cmi"`, `"deepinversion"`, `"dafl"`, `"zskt"`, `"dfad"`, `"dfq"`, `"nayer"`, `"vanilla_kd"` (real images).
        method_options: settings of the preset to replace.
        instances: name of an instance set (`tasks.INSTANCE_SETS`) or import path of an `InstanceSet`: every episode
            draws its teacher, student, buffer and budget from it. None: every episode plays the same task.
        action: action scheme.
        observation: `"scaled"`, or `"unscaled"` in the bounds of the table of `SSDKDEnv`; `"work"` (`"work_unscaled"`)
            sees also what the last step cost and what its halves brought, `"instance"` (`"instance_unscaled"`) also
            what the task is like (buffer, amount of work, warm-up, student), `"facts"` only that and the progress.
        history: observations of so many steps are stacked, the newest first.
        rounds_per_step: rounds of a step, which all follow its action (of the last step, those that are left). With few
            decisions an episode, an agent sees better what each of them did; with all rounds in one step the problem
            is a bandit's. Observation and info are of the step's last round (trends are means over its rounds), and
            whatever stops between steps, such as Ctrl-C in a script, waits for as long.
        reward: score whose gain is the reward.
        device: `"auto"` (CUDA where present), or a torch device.
        teacher: weights file in place of the task's teacher.
        teacher_arch: its network, by name or import path.
        teacher_weights: key of the weights in that file, where it has several, or `"ema"` for averaged ones. Without it
            the raw ones are taken, and it is said where there are others.
        mean: what the teacher's inputs were normalised with, a number for each channel of images in [0, 1]. Without it
            what the card beside the file says, or else the task.
        std: likewise, the standard deviations; 1 where nothing was divided.
        student_arch: the student's network, by name or import path.
        generator_arch: the generator's network, by name or import path.
        budget: settings of the task's budget to replace; its `preset` names another budget of the task, such as
            `"cpu"` for CIFAR.
        student: settings of the student's optimiser to replace.
        evaluation: real images and labels (`.npz`, folder, archive or `"hub:owner/name"`), for reported accuracy, in
            place of the task's own.
        buffer_scale: capacity of the buffer as a share of the teacher's training set, in place of the budget's.
        work_scale: the episode ends when so many times the work of SSD-KD with the task's own budget (or its preset) is
            spent, in multiply-adds, however many steps divide it; in place of the budget's rounds. Schemes that divide
            work need it.
        data_root: folder with the task's real data (CIFAR), else `SSDKD_DATA`. Without it no accuracy is reported.
        probe: settings of the probe set to replace, such as 5 for its `steps` where a CPU has to make it.
        backend: `"auto"`, `"fast"`, `"compiled"` or `"plain"`: the same numbers but for rounding; see
            `DistillationRun`.
        precision: `"float32"`, or `"bfloat16"` for the products in the hot loops; `"auto"`, bfloat16 where the device
            computes it natively and the images are large enough to gain; see `DistillationRun`.
        evaluate_every_rounds: rounds between measurements of the reported `accuracy`, which on CIFAR costs as much as
            many minibatches; in between the last one is repeated. They are made at the ends of steps; the last round
            is always measured.
        clock: add `info["seconds"]`, wall time of synthesis and distillation. Off by default, because clock
            values differ between equal runs.
        render_mode: `"rgb_array"` draws buffer, histograms and learning curve.

    Raises:
        InvalidInputError: when a count, a choice or a name does not fit.
    """

    task: str = "digits"
    method: str = "ssdkd"
    method_options: Mapping[str, Any] | None = None
    instances: str | None = None
    action: str = "exponents"
    observation: str = "scaled"
    history: int = 1
    rounds_per_step: int = 1
    reward: str = "probe_agreement"
    device: str = "auto"
    teacher: str | None = None
    teacher_arch: str | None = None
    teacher_weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    student_arch: str | None = None
    generator_arch: str | None = None
    budget: Mapping[str, Any] | None = None
    student: Mapping[str, Any] | None = None
    evaluation: str | None = None
    buffer_scale: float | None = None
    work_scale: float | None = None
    data_root: str | None = None
    probe: Mapping[str, Any] | None = None
    backend: str = "auto"
    precision: str = "auto"
    evaluate_every_rounds: int = 1
    clock: bool = False
    render_mode: str | None = None

    def __post_init__(self) -> None:
        hold_plain(self)
        for name, most in MOST.items():
            count = getattr(self, name)
            if not is_whole(count) or not 1 <= count <= most:
                raise InvalidInputError(f"{name}={count!r}: expected a whole number of at least 1 and at most {most:,}")
        if not isinstance(self.clock, bool):
            raise InvalidInputError(f"clock={self.clock!r}: expected True or False")
        if self.render_mode is not None:
            check_choice("render_mode", self.render_mode, ("rgb_array",))
        choose_backend(self.backend)
        check_choice("precision", self.precision, PRECISION_CHOICES)
        REWARDS.find(self.reward)
        ACTION_SCHEMES.find(self.action)
        OBSERVATIONS.find(self.observation)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> EnvSettings:
        """Settings of an environment's arguments.

        Raises:
            TypeError: when an argument is unknown.
            InvalidInputError: when it has a new name, or a value does not fit.
        """
        refuse_old_names(arguments)
        unknown = [name for name in arguments if name not in {field.name for field in fields(cls)}]
        if unknown:
            # In Python's words, by which clients know that they may leave out an argument of their own.
            raise TypeError(f"SSDKDEnv.__init__() got an unexpected keyword argument {unknown[0]!r}")
        return cls(**arguments)

    @property
    def face(self) -> dict[str, Any]:
        """Argument → value for each of `FACE`."""
        return {name: getattr(self, name) for name in FACE}

    @property
    def task_arguments(self) -> dict[str, Any]:
        """The arguments of `load_task`."""
        return {name: getattr(self, name) for name in OF_TASK}


#: Schema of an environment's arguments in a file, any of which may be left out; see `ssdkd_env.reading`.
EnvArguments = TypedDict("EnvArguments", get_type_hints(EnvSettings), total=False)  # type: ignore[misc]
