"""Make the probe set of a teacher and write it into a folder, for a task to ship.

Examples:
  python scripts/make_probe_set.py --task digits --out ssdkd_env/tasks/assets
  python scripts/make_probe_set.py --task mypkg.tasks:spec --teacher my_teacher.safetensors --out probes

The file's name is a hash of teacher and settings. A task finds it where its `probe_sets` names that folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from ssdkd_agents.commands.command_line import Plugins, launch, refuse_existing

from ssdkd_env.files import save_state
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.probe import file_name, synthesize


@dataclass
class Arguments(Plugins):
    """Command line of make_probe_set."""

    out: Path
    """Folder for the file."""
    task: str = "digits"
    """Task by name or import path."""
    teacher: str | None = None
    """Weights file in place of the task's own."""


def main(args: Arguments) -> None:
    torch.set_num_threads(1)  # the number of threads changes the rounding
    task = load_task(args.task, args.teacher)
    path = args.out / file_name(task)
    refuse_existing("out", path)
    images = synthesize(task, torch.device("cpu"))
    save_state(path, {"images": images})
    print(f"{path}: {len(images)} images")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
