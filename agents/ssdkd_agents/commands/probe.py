"""Make the probe set of a teacher, on which rewards judge a student, and say what is in it.

Examples:
  ssdkd probe --out ssdkd_env/tasks/assets --task digits
  ssdkd probe --out probes --task mypkg.tasks:spec --teacher my_teacher.safetensors
  ssdkd probe --out probe.safetensors --task cifar10 --teacher my.safetensors --teacher-arch resnet20 --probe.steps 5

--out is a folder, or a name that ends in .safetensors. In a folder the file's name is a hash of teacher and settings:
a task finds it where its `probe_sets` names that folder, so that every machine judges by the same images. Made on the
CPU in one thread, because other numbers of threads round otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from ssdkd_agents.commands.command_line import Plugins, launch, refuse_existing
from ssdkd_agents.commands.dialect import make_env_options
from ssdkd_agents.commands.given import Given
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.distillation.priority import class_share, confidence
from ssdkd_env.files import save_state
from ssdkd_env.tasks import Task, load_task
from ssdkd_env.tasks.probe import file_name, synthesize

CPU = torch.device("cpu")
#: Of an environment's arguments those that a probe set depends on.
OPTIONS = make_env_options(("task", "teacher", "teacher_arch", "generator_arch", "probe"))
#: With more classes than this the images of each are not listed.
MOST_LISTED = 20


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd probe`."""

    out: Path
    """Folder for the file, or a name that ends in .safetensors; what is there is not written over."""
    env: Annotated[Given, tyro.conf.arg(constructor=OPTIONS, name="")] = field(default_factory=OPTIONS)
    """What the probe set is made of, by the names that `SSDKDEnv` has for it."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    torch.set_num_threads(1)
    task = load_task(**{"task": "digits", **args.env.settings()})
    path = args.out if args.out.suffix == ".safetensors" else args.out / file_name(task)
    refuse_existing("out", path)
    started = time.monotonic()
    images = synthesize(task, CPU)
    save_state(path, {"images": images})
    print(f"{path}: {len(images)} images of {task.spec.probe.sources}, {time.monotonic() - started:.1f} s")
    print(described(task, images))


def described(task: Task, images: Tensor) -> str:
    """What the teacher sees in the images: how many of each class, and how sure it is."""
    logits = logits_of(task.teacher_on(CPU), images, Normalize(task.spec.mean, task.spec.std, CPU))
    counts = class_share(logits).sum(dim=0).tolist()
    if len(counts) <= MOST_LISTED:
        classes = ", ".join(f"{number}: {count:g}" for number, count in enumerate(counts))
    else:
        seen = sum(count > 0 for count in counts)
        classes = f"{seen} of {len(counts)}, {min(counts):g} to {max(counts):g} images each"
    return f"classes by the teacher: {classes}\nmean confidence of the teacher: {confidence(logits).mean():.3f}"


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd probe", arguments)
