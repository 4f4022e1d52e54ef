"""A student out of a teacher whose data are gone: one distillation run with any sampler.

Examples:
  ssdkd distill --out runs/student
  ssdkd distill --out runs/mine --teacher my.safetensors --teacher-arch mypkg.nets:make --sampler uniform
  ssdkd distill --out runs/learnt --sampler runs/ppo

Writes student.safetensors, picture.png, results.jsonl, config.json and command.txt into the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssdkd_agents.commands.command_line import Plugins, launch, parse_settings
from ssdkd_agents.policies.storage import face_of, load_sampler
from ssdkd_agents.runs import RunFolder, versions
from ssdkd_agents.samplers import decide, write_decision
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.extras import load_extra
from ssdkd_env.files import write_atomically
from ssdkd_env.networks.checkpoints import save_weights


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd distill`."""

    out: Path
    """Folder for the results; must be new or empty."""
    sampler: str = "own"
    """own (the method's: the paper's for ssdkd), paper, uniform, …, or the file or run folder of a trained sampler."""
    task: str = "digits"
    """Task by name, or import path package.module:spec of a TaskSpec."""
    method: str = "ssdkd"
    """Preset of the inversion engine: ssdkd, fast5, cmi, nayer, …"""
    teacher: str | None = None
    """Weights file of your own teacher (.safetensors, or a PyTorch state dict)."""
    teacher_arch: str | None = None
    """Its network, by name or import path package.module:factory."""
    student_arch: str | None = None
    """The student's network, by name or import path."""
    generator_arch: str | None = None
    """The generator's network, by name or import path."""
    evaluation: str | None = None
    """Real images and labels (.npz, folder, archive) to report accuracy on. They influence nothing else."""
    data_root: str | None = None
    """Folder with the task's real data (CIFAR), to report accuracy on; else SSDKD_DATA."""
    buffer_scale: float | None = None
    """Capacity of the buffer as a share of the teacher's training set."""
    budget: tuple[str, ...] = ()
    """Settings of the budget to replace, such as rounds=40 candidates=96, or preset=cpu for CIFAR."""
    probe: tuple[str, ...] = ()
    """Settings of the probe set to replace, such as steps=5 where a CPU has to make it for CIFAR."""
    student: tuple[str, ...] = ()
    """Settings of the student's optimiser to replace, such as lr=0.1."""
    method_options: tuple[str, ...] = ()
    """Settings of the method to replace, such as adversarial_weight=1."""
    seed: int = 0
    """Of everything in the run."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if args.seed < 0:
        raise InvalidInputError(f"--seed {args.seed}: expected a number of at least 0")
    env = SSDKDEnv(
        task=args.task,
        method=args.method,
        method_options=parse_settings("method-options", args.method_options),
        device=args.device,
        teacher=args.teacher,
        teacher_arch=args.teacher_arch,
        student_arch=args.student_arch,
        generator_arch=args.generator_arch,
        budget=parse_settings("budget", args.budget),
        probe=parse_settings("probe", args.probe),
        student=parse_settings("student", args.student),
        evaluation=args.evaluation,
        buffer_scale=args.buffer_scale,
        data_root=args.data_root,
        **face_of(args.sampler),
        clock=True,
        render_mode="rgb_array",
    )
    pictures = load_extra("matplotlib.image", "the picture of the run")  # before the hours, not after them
    sampler = load_sampler(args.sampler, env, args.seed)
    config = asdict(args) | {"out": str(args.out)}
    folder = RunFolder(args.out, config)
    print("making the probe set (once for a teacher) and filling the buffer …", flush=True)

    observation, info = env.reset(seed=args.seed)
    state = None
    seconds = {"synthesis": info["seconds"]["synthesis"], "distillation": 0.0}
    actions: list[Any] = []
    finished = False
    with tqdm(total=env.budget.rounds, unit="round") as bar:
        while not finished:
            decision, state = decide(sampler, env, observation, state, begins=not actions)
            observation, _, finished, _, info = env.step(decision)
            actions.append(write_decision(env, decision))
            for part, value in info.pop("seconds").items():
                seconds[part] += value
            bar.set_postfix({key: f"{info[key]:.3f}" for key in ("probe_agreement", "accuracy") if key in info})
            bar.update(info["round"] - bar.n)

    assert env.run is not None
    save_weights(folder.path / "student.safetensors", env.run.student)
    frame = env.render()
    assert frame is not None
    picture = folder.path / "picture.png"
    write_atomically(picture, lambda temporary: pictures.imsave(temporary, frame))
    folder.append(config | {"final": info, "seconds": seconds, "actions": actions, "versions": versions()})
    if info["diverged"]:
        print("the student diverged (NaN): its weights are useless; try a smaller --student lr=...")
    if "accuracy" in info:
        print(f"accuracy on real images: {info['accuracy']:.4f}")
    print(f"agreement with the teacher on the probe set: {info['probe_agreement']:.4f}")
    print(f"student: {folder.path / 'student.safetensors'}\npicture: {picture}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd distill", arguments)
