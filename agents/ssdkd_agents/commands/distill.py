"""A student out of a teacher whose data are gone: one distillation run with any sampler.

Examples:
  ssdkd distill --out runs/student
  ssdkd distill --out runs/mine --teacher my.safetensors --teacher-arch mypkg.nets:make --sampler uniform
  ssdkd distill --out runs/learnt --sampler runs/ppo
  ssdkd distill --out runs/long --budget.rounds 80 --student.lr 0.1 --method-options.adversarial-weight 1

Writes student.safetensors, picture.png, results.jsonl, config.json and command.txt into the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.commands.dialect import ARGUMENTS, make_env_options
from ssdkd_agents.commands.given import Given
from ssdkd_agents.policies.storage import face_of, load_sampler
from ssdkd_agents.runs import RunFolder, versions
from ssdkd_agents.samplers import decide, write_decision
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.extras import load_extra
from ssdkd_env.files import write_atomically
from ssdkd_env.networks.checkpoints import save_weights

#: Of an environment's arguments all that matter to one run: nobody learns from its rewards.
OPTIONS = make_env_options([name for name in ARGUMENTS if name not in ("reward", "clock", "render_mode")])


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd distill`."""

    out: Path
    """Folder for the results; must be new or empty."""
    sampler: str = "own"
    """own (the method's: the paper's for ssdkd), paper, uniform, …, or the file or run folder of a trained sampler."""
    seed: int = 0
    """Of everything in the run."""
    env: Annotated[Given, tyro.conf.arg(constructor=OPTIONS, name="")] = field(default_factory=OPTIONS)
    """What the run is made of, by the names that `SSDKDEnv` has for it."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if args.seed < 0:
        raise InvalidInputError(f"--seed {args.seed}: expected a number of at least 0")
    env = SSDKDEnv(**{**face_of(args.sampler), **args.env.settings()}, clock=True, render_mode="rgb_array")
    pictures = load_extra("matplotlib.image", "the picture of the run")  # before the hours, not after them
    sampler = load_sampler(args.sampler, env, args.seed)
    config = {"out": str(args.out), "sampler": args.sampler, "seed": args.seed} | asdict(env.settings)
    folder = RunFolder(args.out, config)
    print("making the probe set (once for a teacher) and filling the buffer …", flush=True)

    observation, info = env.reset(seed=args.seed)
    state = None
    seconds = {"synthesis": info["seconds"]["synthesis"], "distillation": 0.0}
    actions: list[Any] = []
    finished = False
    total, unit = (100, "%") if env.budget.work else (env.budget.rounds, "round")
    with tqdm(total=total, unit=unit) as bar:
        while not finished:
            decision, state = decide(sampler, env, observation, state, begins=not actions)
            observation, _, finished, _, info = env.step(decision)
            actions.append(write_decision(env, decision))
            for part, value in info.pop("seconds").items():
                seconds[part] += value
            shown = [key for key in ("probe_agreement", "accuracy", "mean_iou") if key in info]
            bar.set_postfix({key: f"{info[key]:.3f}" for key in shown})
            bar.update((round(100 * info["progress"]) if env.budget.work else info["round"]) - bar.n)

    assert env.run is not None
    save_weights(folder.path / "student.safetensors", env.run.student)
    frame = env.render()
    assert frame is not None
    picture = folder.path / "picture.png"
    write_atomically(picture, lambda temporary: pictures.imsave(temporary, frame))
    folder.append(config | {"final": info, "seconds": seconds, "actions": actions, "versions": versions()})
    if info["diverged"]:
        print("the student diverged (NaN): its weights are useless; try a smaller --student.lr")
    if "accuracy" in info:
        print(f"accuracy on real {'pixels' if 'mean_iou' in info else 'images'}: {info['accuracy']:.4f}")
    if "mean_iou" in info:
        print(f"mean IoU on real images: {info['mean_iou']:.4f}")
    print(f"agreement with the teacher on the probe set: {info['probe_agreement']:.4f}")
    print(f"student: {folder.path / 'student.safetensors'}\npicture: {picture}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd distill", arguments)
