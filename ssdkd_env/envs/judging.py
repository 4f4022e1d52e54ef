"""What a run's student is worth after a step: on the probe set, and on the real data that are there to report."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.report import RoundReport
from ssdkd_env.envs.snapshot import Snapshot
from ssdkd_env.tasks import Task
from ssdkd_env.tasks.probe import probe_set
from ssdkd_env.tasks.segmentation import scores_of
from ssdkd_env.tasks.task import share_right


class Judge:
    """Scores students.

    Args:
        device: where probe set and real data are.
        every: rounds between measurements of the accuracy on real data; in between the last one stands.
        always: measure it after every step all the same, because the reward is made of it.
    """

    def __init__(self, device: torch.device, every: int, always: bool) -> None:
        self._device, self._every, self._always = device, every, always

    def look(self, run: DistillationRun, task: Task, report: RoundReport, last: Snapshot | None) -> Snapshot:
        """What is known after a step.

        Args:
            run: whose student is scored.
            task: which it plays.
            report: of the step's last round.
            last: what was known before the step; None at the start of an episode.
        """
        probes = probe_set(task, self._device)
        probe = probes.judge(run.student_logits(probes.images))
        diverged = report.diverged or not math.isfinite(probe.discrepancy)
        return Snapshot(
            report=replace(report, diverged=diverged),
            probe=probe,
            **self._on_real_data(run, task, last, is_last=run.done or diverged),
        )

    def real_scores(self, task: Task) -> tuple[str, ...]:
        """Names in info of what is measured on a task's real images; none where it has none."""
        if task.evaluation(self._device) is None:
            return ()
        return ("accuracy", "mean_iou") if task.dense else ("accuracy",)

    def _on_real_data(self, run: DistillationRun, task: Task, last: Snapshot | None, is_last: bool) -> dict[str, Any]:
        """The student's scores; where no multiple of `every` has been passed since, the last measured ones."""
        fresh = last is None or run.round // self._every > last.report.round // self._every
        if last is not None and not (fresh or self._always or is_last):
            return last.on_real_data
        real = task.evaluation(self._device)
        if real is None:
            return {"accuracy": None}
        images, labels = real
        if not task.dense:
            return {"accuracy": share_right(run.student_logits(images), labels)}
        scores = scores_of(run.student_logits, images, labels, task.spec.num_classes)
        return {"accuracy": scores.pixel_accuracy, "mean_iou": scores.mean_iou, "class_iou": scores.class_iou}
