"""Train a teacher on real images, for a later run without them.

Example: python scripts/train_teacher.py --task digits --out runs/teacher

Writes teacher.safetensors, config.json, command.txt and results.jsonl into the folder.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from _cli import launch
from tqdm import tqdm

from agents.runs import RunFolder
from ssdkd_env.envs.distillation import select_device
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.data import load_npz
from ssdkd_env.tasks.registry import find_spec
from ssdkd_env.tasks.task import build_teacher, check_classifier, check_images, top1_accuracy
from ssdkd_env.tasks.teacher import TeacherSettings, train_teacher


@dataclass
class Arguments:
    """Command line of train_teacher."""

    out: Path
    """Folder for the results; must be new or empty."""
    task: str = "digits"
    """Task whose teacher architecture, image size and normalisation apply, or import path of a TaskSpec."""
    teacher_arch: str | None = None
    """Another architecture, by name or import path package.module:factory."""
    data: Path | None = None
    """.npz with images (N, C, H, W) and labels (N,) to train on, in place of the task's own data."""
    test_data: Path | None = None
    """.npz to measure top-1 on; needed with --data."""
    device: str = "auto"
    """auto, cpu or cuda."""
    settings: TeacherSettings = field(default_factory=TeacherSettings)
    """The optimiser."""


def main(args: Arguments) -> None:
    spec = find_spec(args.task)
    if args.teacher_arch is not None:
        spec = replace(spec, teacher_arch=args.teacher_arch, teacher_options={})
    if (args.data is None) != (args.test_data is None):
        raise InvalidInputError("--data and --test-data go together: top-1 is measured on images not trained on")
    if args.data is not None and args.test_data is not None:
        train, test = load_npz("--data", args.data), load_npz("--test-data", args.test_data)
    elif spec.teacher_data is not None:
        train, test = spec.teacher_data()
    else:
        raise InvalidInputError(f"task {spec.name!r} brings no real data; give --data and --test-data")
    device = select_device(args.device)
    label_dims = check_classifier("teacher", build_teacher(spec, seed=0).eval(), spec) - 1
    check_images("--data", *train, spec, label_dims)
    check_images("--test-data", *test, spec, label_dims)
    folder = RunFolder(
        args.out, {"task": args.task, "teacher_arch": spec.teacher_arch, "settings": asdict(args.settings)}
    )

    started = time.perf_counter()
    with tqdm(total=args.settings.epochs, unit="epoch") as bar:

        def on_epoch(epoch: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()

        teacher = train_teacher(spec, train, args.settings, device, on_epoch)
    result = {
        "test_top1": top1_accuracy(teacher, test, spec),
        "train_top1": top1_accuracy(teacher, train, spec),
        "test_images": len(test[0]),
        "seconds": time.perf_counter() - started,
        "torch_threads": torch.get_num_threads(),
    }
    save_weights(folder.path / "teacher.safetensors", teacher)
    folder.append(result)
    print(f"top-1 on {result['test_images']} held-out images: {result['test_top1']:.4f}")
    print(f"weights: {folder.path / 'teacher.safetensors'}")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
