"""Training a teacher in a folder of its own: checkpoints, curves, measurements, weights and their card."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ssdkd_agents.curves import Curves, layout_of
from ssdkd_agents.lines import drop_lines
from ssdkd_agents.manifests import load_newest, previous, save_beside_previous
from ssdkd_agents.progress import progress
from ssdkd_agents.runs import RunFolder, versions
from ssdkd_agents.schemas import EpochLine
from ssdkd_agents.stopping import Stopper
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_json
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.reading import fitting, read_text
from ssdkd_env.tasks.cards import describe
from ssdkd_env.tasks.data.imbalance import ImbalanceSettings
from ssdkd_env.tasks.scores import class_names, real_scores, segmentation_scores
from ssdkd_env.tasks.task import LabelledImages, TaskSpec
from ssdkd_env.tasks.teacher import TeacherTraining

WEIGHTS, CARD, CHECKPOINT, RESULTS = "teacher.safetensors", "teacher.json", "checkpoint.safetensors", "results.jsonl"

#: The score that a teacher is known by, and what it is called.
REPORTED = {"top1": "top-1", "mean_iou": "mean IoU"}


@dataclass(frozen=True)
class RealData:
    """Images to train on and to measure on.

    Attributes:
        source: name for the teacher's card.
        train, test: images (N, C, H, W) uint8 and labels.
        imbalance: with which `train` was cut out of the source.
    """

    source: str
    train: LabelledImages
    test: LabelledImages
    imbalance: ImbalanceSettings = field(default_factory=ImbalanceSettings)

    def digests(self) -> dict[str, str]:
        """Hashes of both parts, by which a resumed run knows its data."""
        return {name: _digest(part) for name, part in (("train", self.train), ("test", self.test))}


def _digest(part: LabelledImages) -> str:
    digest = hashlib.sha256()
    for tensor in part:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def forget_checkpoint(folder: Path) -> None:
    """Delete the checkpoints of a training that is finished and needs them no more."""
    for file in (folder / CHECKPOINT, previous(folder / CHECKPOINT)):
        file.unlink(missing_ok=True)


class TeacherRun:
    """A training with its folder: checkpoints, curves, measurements and the finished teacher.

    Args:
        folder: of the run.
        spec: the task.
        data: real images.
        training: on the training part of `data`.
        checkpoint_every_epochs: epochs between checkpoints.
        evaluate_every_epochs: epochs between measurements on the test part; 0 measures at the end alone.
        progress_bar: show one.
    """

    def __init__(
        self,
        folder: RunFolder,
        spec: TaskSpec,
        data: RealData,
        training: TeacherTraining,
        checkpoint_every_epochs: int,
        evaluate_every_epochs: int,
        progress_bar: bool,
    ) -> None:
        self.checkpoint = folder.path / CHECKPOINT
        self._folder, self._spec, self._data, self._training = folder, spec, data, training
        self._checkpoint_every_epochs, self._evaluate_every_epochs = checkpoint_every_epochs, evaluate_every_epochs
        self._progress_bar, self._resumed = progress_bar, False
        self._test = data.test[0].to(training.device), data.test[1].to(training.device)
        self._started = time.perf_counter()

    def load(self) -> None:
        """Continue from the newest sound checkpoint, from the beginning where there is none yet.

        Measurements made after it are forgotten, for they will be made again.

        Raises:
            InvalidInputError: when no checkpoint is sound, or it belongs to other data or settings.
        """
        for part, digest in self._data.digests().items():
            if digest != self._folder.config["digests"].get(part):
                raise InvalidInputError(f"--resume: the {part} images are not those of the run; give the same data")
        saved = load_newest(self.checkpoint)
        if saved is None:
            print(f"{self._folder.path} has no checkpoint yet: it begins anew")
        else:
            with fitting(self.checkpoint, "delete it, to go on from the one before, or start anew in another folder"):
                self._training.load_state_dict(saved["training"])
                self._started -= saved["seconds"]
        self._resumed = True
        # The last epoch's line comes after the last checkpoint.
        kept = min(self._training.epochs_done, self._training.settings.epochs - 1)
        drop_lines(self._folder.path / RESULTS, lambda line: line["epoch"] <= kept, EpochLine)

    def train(self, stop: Stopper) -> bool:
        """Train to the end, or until `stop` says so with a checkpoint; returns whether this is the end."""
        training = self._training
        curves = self._begin_curves()
        with progress(training.settings.epochs, "epoch", training.epochs_done, self._progress_bar) as bar:
            while not training.done:
                loss = training.epoch(stop)
                if loss is None:
                    break
                self._log_epoch(loss, curves)
                bar.set_postfix({"loss": f"{loss:.3f}"}, refresh=False)
                bar.update(1)
                if stop():
                    break
                if training.epochs_done % self._checkpoint_every_epochs == 0:
                    self._save_checkpoint()
            self._save_checkpoint()
            if training.done:
                self._finish(curves)
        return training.done

    def _begin_curves(self) -> Curves:
        spec, training = self._spec, self._training
        curves = Curves(self._folder.path, training.epochs_done + 1 if self._resumed else 0)
        settings = asdict(training.settings)
        row = {
            "algorithm": f"teacher: {spec.teacher_arch}",
            "env_id": spec.name,
            "env_kwargs": spec.teacher_options,
            "hyperparameters": settings,
            "seed": settings["seed"],
        }
        score = "mean_iou" if self._test[1].dim() > 1 else "top1"
        losses = {"Losses of a teacher": ("train/loss", "train/learning_rate")}
        curves.describe(layout_of([f"test/{score}"], losses), row)
        return curves

    def _log_epoch(self, loss: float, curves: Curves) -> None:
        training, every = self._training, self._evaluate_every_epochs
        curves.scalars({"train/loss": loss, "train/learning_rate": training.learning_rate}, training.epochs_done)
        if every and training.epochs_done % every == 0 and not training.done:
            measured = {"train_loss": loss, "learning_rate": training.learning_rate} | self._measure(curves)
            self._folder.append(measured)

    def _measure(self, curves: Curves) -> dict[str, Any]:
        training = self._training
        scores = real_scores(training.network, self._test, self._spec)
        curves.scalars({f"test/{name}": score for name, score in scores.items()}, training.epochs_done)
        return {
            "epoch": training.epochs_done,
            **{f"test_{name}": score for name, score in scores.items()},
            "test_images": len(self._test[0]),
            "seconds": self._seconds(),
        }

    def _seconds(self) -> float:
        """Spent on this training by all commands that worked on it, from the moment the images were loaded."""
        return time.perf_counter() - self._started

    def _save_checkpoint(self) -> None:
        save_beside_previous(self.checkpoint, {"training": self._training.state_dict(), "seconds": self._seconds()})

    def _finish(self, curves: Curves) -> None:
        """Write weights, card and the last line of results; a finished run needs its checkpoint no more."""
        training, path = self._training, self._folder.path
        trained = real_scores(training.network, training.data, self._spec)
        result = self._measure(curves) | {
            **{f"train_{name}": score for name, score in trained.items()},
            "train_images": len(training.data[0]),
            "torch_threads": torch.get_num_threads(),
        }
        save_weights(path / WEIGHTS, training.network)
        self._folder.append(result)
        write_json(path / CARD, self._card(result))
        forget_checkpoint(path)
        score, shown = next((name, shown) for name, shown in REPORTED.items() if f"test_{name}" in result)
        print(f"{shown} on {result['test_images']} held-out images: {result[f'test_{score}']:.4f}")
        print(f"weights: {path / WEIGHTS}; card: {path / CARD}")

    def _card(self, result: dict[str, Any]) -> dict[str, Any]:
        """What a user of the weights needs to know, as JSON values."""
        spec, training = self._spec, self._training
        on_cuda = training.device.type == "cuda"
        return {
            **describe(WEIGHTS, training.network, spec.teacher_arch, spec.teacher_options, spec),
            "data": self._data.source,
            "imbalance": asdict(self._data.imbalance),
            **{
                name: {part: result[f"{part}_{name}"] for part in ("test", "train")} | _images(result)
                for name in REPORTED
                if f"test_{name}" in result
            },
            **self._classes(),
            "epoch": training.epochs_done,
            "settings": asdict(training.settings),
            "precision": training.precision,
            "command": read_text(self._folder.path / "command.txt").strip(),
            "versions": versions(),
            "seconds": result["seconds"],
            "device": torch.cuda.get_device_name(training.device) if on_cuda else "cpu",
            "torch_threads": result["torch_threads"],
        }

    def _classes(self) -> dict[str, Any]:
        """Of a teacher of label maps, each class's IoU on the test part; None where it is absent."""
        if self._test[1].dim() == 1:
            return {}
        scores = segmentation_scores(self._training.network, self._test, self._spec)
        known = [None if math.isnan(iou) else iou for iou in scores.class_iou]
        return {"class_iou": dict(zip(class_names(self._spec), known, strict=True))}


def _images(result: dict[str, Any]) -> dict[str, int]:
    return {name: result[name] for name in ("test_images", "train_images")}
