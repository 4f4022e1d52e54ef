"""References of relative rewards: the method's own plan on the same task, played once and kept. Ours.

A task may ship those of its instances, so that every machine pays the same rewards; others are kept in the cache
folder, so that every process of a machine does and only the first one plays them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ssdkd_env import ENV_VERSION
from ssdkd_env.distillation import DistillationRun, Method
from ssdkd_env.distillation.work import helped_by
from ssdkd_env.envs.episode import Episode
from ssdkd_env.envs.judging import Judge
from ssdkd_env.envs.rewards import Reference, Reward
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import cache_folder, keep_if_possible, write_json
from ssdkd_env.progress import shown
from ssdkd_env.reading import read_json
from ssdkd_env.recent import Recent
from ssdkd_env.settings import essence, is_finite_number
from ssdkd_env.tasks import Task
from ssdkd_env.threads import one_at_a_time

#: To be raised when references of the same settings become others.
REFERENCE_FORMAT = 1
#: Runs that are averaged, and the first one's seed, far from those that agents play.
RUNS, FIRST_SEED = 8, 5_000_000
#: Rounds between measurements on real data that no run has.
NEVER = 10**9
#: Of a task's folder `probe_sets`.
SHIPPED = "references.json"
#: Made or read in this process, by fingerprint; they are small, and sets of instances are smaller than that.
_known: Recent[str, Reference] = Recent(1024)
_digests: WeakKeyDictionary[Task, dict[str, str]] = WeakKeyDictionary()


@one_at_a_time
class References:
    """Looks references up, and plays those that are missing.

    Args:
        method: whose own plan is the reference.
        reward: whose score is compared.
        device: of the runs.
        backend: of the runs.
        precision: of the runs, as the user gave it.

    Attributes:
        compares: whether the reward does.
    """

    def __init__(self, method: Method, reward: Reward, device: torch.device, backend: str, precision: str) -> None:
        self._method, self.compares = method, bool(reward.against)
        self._reward = replace(reward, against="", terminal=False)
        self._device, self._backend, self._precision = device, backend, precision

    def of(self, task: Task) -> Reference | None:
        """The task's reference, None where the reward compares with nothing.

        The first time on a machine it takes `RUNS` runs, unless the task ships it.
        """
        if not self.compares:
            return None
        key = self.fingerprint(task)
        # Beside no other run: of those that are done together each would find it missing, and play it for itself.
        with helped_by(None):
            return _known.get(key, lambda: _shipped(task, key) or _kept(key) or self._made(task, key))

    def fingerprint(self, task: Task) -> str:
        """Hash of what a reference depends on; how a device rounds, and what else a task offers, is left out."""
        score = self._reward.score
        settings = (ENV_VERSION, REFERENCE_FORMAT, RUNS, FIRST_SEED, f"{score.__module__}.{score.__qualname__}")
        spec = replace(task.identity(), budgets={}, methods={}, classes=(), dataset="", training_set_size=0)
        made_of: list[Any] = essence((settings, spec, replace(self._method, source="")))
        if self._reward.oracle:
            made_of.append(_digest(task, "evaluation"))
        if self._method.memory == "real":
            made_of += [task.spec.training_set_size, _digest(task, "training_images")]
        return hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]

    def play(self, task: Task) -> Reference:
        """Play the runs, whether the reference is known or not."""
        seeds = shown(range(FIRST_SEED, FIRST_SEED + RUNS), "reference of the reward", "run")
        curves = [self._curve(task, seed) for seed in seeds]
        progress = max((curve[0] for curve in curves), key=len)
        # A run that diverged is shorter, and stays where it ended.
        scores = np.array([np.interp(progress, *curve) for curve in curves])
        return Reference(tuple(progress), tuple(scores.mean(axis=0).tolist()), float(scores[:, -1].std(ddof=1)))

    def _curve(self, task: Task, seed: int) -> tuple[list[float], list[float]]:
        """Progress and score of a run, after the warm-up and after each round."""
        judge = Judge(self._device, every=NEVER, always=self._reward.oracle)
        run = DistillationRun(task, self._method, seed, self._device, self._backend, self._precision)
        episode = Episode(run, task, judge, self._reward)
        episode.begin()
        progress, scores = [0.0], [episode.score]
        while not episode.over:
            episode.play(self._method.own_plan, 1)
            progress.append(episode.snapshot.report.progress)
            scores.append(episode.score)
        return progress, scores

    def _made(self, task: Task, key: str) -> Reference:
        made = self.play(task)
        keep_if_possible(lambda: write_json(_path(key), asdict(made)), "the reference of the reward is played anew")
        return made


def _digest(task: Task, name: str) -> str:
    """SHA-256 of real images that a task lends, and their labels; computed once for each task object."""
    known = _digests.setdefault(task, {})
    if name not in known:
        data: Any = task.evaluation(torch.device("cpu")) if name == "evaluation" else task.training_images()
        digest = hashlib.sha256()
        for tensor in data if isinstance(data, tuple) else (data,):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        known[name] = digest.hexdigest()
    return known[name]


def _path(key: str) -> Path:
    return cache_folder() / f"reference-{key}.json"


def _kept(key: str) -> Reference | None:
    """What an earlier process played; None where that is missing or damaged, so that it is played anew."""
    try:
        return _reference(read_json(_path(key)))
    except InvalidInputError:
        return None


def _shipped(task: Task, key: str) -> Reference | None:
    path = Path(task.spec.probe_sets) / SHIPPED
    return read_references(path).get(key) if task.spec.probe_sets and path.is_file() else None


def read_references(path: Path) -> dict[str, Reference]:
    """The references of a file, by fingerprint.

    Raises:
        InvalidInputError: when it is unreadable or holds something else.
    """
    found = read_json(path)
    references = {key: _reference(values) for key, values in found.items()} if isinstance(found, dict) else {}
    good = {key: reference for key, reference in references.items() if reference is not None}
    if not isinstance(found, dict) or len(good) < len(found):
        raise InvalidInputError(f"{path} holds no references of rewards; make it anew with ssdkd reference")
    return good


def _reference(values: Any) -> Reference | None:
    """A reference of JSON values; None where they are none."""
    if not isinstance(values, Mapping) or set(values) != {"progress", "scores", "deviation"}:
        return None
    progress, scores, deviation = values["progress"], values["scores"], values["deviation"]
    lists = isinstance(progress, list) and isinstance(scores, list) and len(progress) == len(scores) >= 2
    if not lists or not all(is_finite_number(value) for value in (*progress, *scores, deviation)):
        return None
    ascending = all(a < b for a, b in pairwise(progress))
    return Reference(tuple(progress), tuple(scores), deviation) if ascending and deviation >= 0 else None
