"""Experiments as pure functions: a JSON-able config in, a result line out, nothing shared between episodes."""

from __future__ import annotations

import glob
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ssdkd_agents.environments import make_env
from ssdkd_agents.inputs import digests, inputs_of
from ssdkd_agents.lines import read_checked, write_checked
from ssdkd_agents.machine import forget_peak_memory, machine, peak_device_memory_mib, peak_memory_mib
from ssdkd_agents.manifests import is_number
from ssdkd_agents.policies.places import sampler_digest, sampler_files
from ssdkd_agents.policies.storage import load_sampler
from ssdkd_agents.runs import versions
from ssdkd_agents.samplers import Sampler, decide, write_decision
from ssdkd_agents.workers import Outcome, run_jobs
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.distillation import Action
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.executors import Executor
from ssdkd_env.files import file_digest
from ssdkd_env.reading import conform
from ssdkd_env.settings import check_seed
from ssdkd_env.tasks.probe import probe_set

#: Seconds between two checkpoints of a long episode: what a killed process loses.
SAVE_EVERY = 120.0
#: Clocks of an episode; see `Trace`.
EPISODE_SECONDS = ("synthesis", "distillation", "wall", "processor")
#: What of a curve is clock values, with the clock.
CURVE_SECONDS = {"seconds": "wall", "processor_seconds": "processor"}


@dataclass(frozen=True)
class EpisodeConfig:
    """One episode of one sampler.

    Attributes:
        env_id: registered id.
        sampler: baseline by name, or path of a trained sampler.
        seed: of the episode.
        env_kwargs: JSON-able arguments of the environment.
        instance: of a set; None draws it.
    """

    env_id: str
    sampler: str
    seed: int
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    instance: int | None = None


def validate(configs: Sequence[EpisodeConfig]) -> dict[str, str]:
    """Make every environment and sampler once, so that bad input is refused before the first episode is played.

    Returns:
        The files that they depend on; see `inputs_of`.

    Raises:
        InvalidInputError: for an unknown environment id, argument or sampler, or a seed out of range.
    """
    if not configs:
        raise InvalidInputError("samplers: none given; name at least one, such as paper")
    for config in configs:
        check_seed("seed", config.seed)
    seen: dict[str, EpisodeConfig] = {f"{c.env_id} {c.env_kwargs} {c.sampler}": c for c in configs}
    inputs: dict[str, str] = {}
    for config in seen.values():
        env = make_env(config.env_id, config.env_kwargs)
        load_sampler(config.sampler, env, config.seed)
        inputs |= inputs_of(env) | digests(map(str, sampler_files(config.sampler)))
    return inputs


@dataclass
class Trace:
    """What has happened in an episode so far, JSON-able.

    Attributes:
        observations: what the sampler saw, one a step.
        actions: what it answered: lists of numbers, one whole number each from a discrete scheme, or plans that no
            action can say; see `samplers.write_decision`.
        rewards: what each step gave.
        curve: after the warm-up and after each step: `probe_agreement`, `accuracy` (where there are real data),
            `progress`, `synthesized`, `seconds` and `processor_seconds`, the wall and the processor time since the
            start of the episode.
        seconds: wall time of `synthesis` (warm-up included), of `distillation`, and of all of it (`wall`); the time
            that processors spent on all of it (`processor`), which on a busy machine is still near what a quiet one
            takes.
        peak_memory_mib: largest resident memory of a process that played a part of the episode.
        peak_device_memory_mib: largest memory of tensors on the CUDA device; None on the CPU.
    """

    observations: list[list[float]] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    curve: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EPISODE_SECONDS, 0.0))
    peak_memory_mib: float = 0.0
    peak_device_memory_mib: float | None = None


class ResumableEpisode:
    """An episode that can be put down after any step, and picked up by another process with the same result.

    Call `start` or `load`, then `advance` until `finished`, then `result`. Clock values are the only ones that
    differ between two episodes of the same config.

    Args:
        config: which episode.
        sampler: who acts in place of the config's sampler.
        env: that the config describes, with `clock`; made from the config where None.

    Attributes:
        info: of the last step.

    Raises:
        InvalidInputError: when the environment or the sampler cannot be made.
    """

    def __init__(self, config: EpisodeConfig, sampler: Sampler | None = None, env: SSDKDEnv | None = None) -> None:
        self.config = config
        self.finished = False
        self.trace = Trace()
        self._env = env or make_env(config.env_id, config.env_kwargs | {"clock": True})
        self.device = self._env.device
        self._sampler = sampler or load_sampler(config.sampler, self._env, config.seed)
        self._sampler_digest = None if sampler else sampler_digest(config.sampler)
        self._inputs = inputs_of(self._env)
        self._state: tuple[NDArray[np.float32], ...] | None = None
        self._begins = True
        _load_shared(self._env)
        forget_peak_memory(self._env.device)

    def start(self) -> None:
        """Reset the environment, which includes the warm-up."""
        started = _clocks()
        options = {"instance": self.config.instance}
        self._observation, self.info = self._env.reset(seed=self.config.seed, options=options)
        self._record(started)

    def advance(self) -> None:
        """Play one step: a round, or several with `rounds_per_step`."""
        started = _clocks()
        decision = self._ask(self._observation)
        self.trace.observations.append(self._observation.tolist())
        self._observation, reward, terminated, truncated, self.info = self._env.step(decision)
        self.trace.actions.append(write_decision(self._env, decision))
        self.trace.rewards.append(reward)
        self.finished = terminated or truncated
        self._record(started)

    def result(self) -> dict[str, Any]:
        """The result line: config, return, final info, action trace, curve, seconds, distributions, machine."""
        trace, run = self.trace, self._env.run
        assert run is not None
        held_out = self._env.held_out_accuracy()
        return asdict(self.config) | {
            "sampler_digest": self._sampler_digest,
            **({"inputs": self._inputs} if self._inputs else {}),
            "return": sum(trace.rewards),
            "final": {key: value for key, value in self.info.items() if key != "seconds"},
            **({} if held_out is None else {"held_out_accuracy": held_out}),
            "actions": trace.actions,
            "curve": trace.curve,
            "seconds": trace.seconds,
            "distributions": {
                "class_counts": run.synthesized_class_counts.tolist(),
                "difficulty": run.synthesized_difficulty.tolist(),
            },
            "buffer_images": len(run.buffer),
            "buffer_bytes": run.buffer.nbytes,
            "peak_memory_mib": trace.peak_memory_mib,
            "peak_device_memory_mib": trace.peak_device_memory_mib,
            "vectorization": "loop",  # one after the other, which is what each gives alone
            "machine": machine(self._env.device),
            "precision": run.precision._asdict(),
            "versions": versions(),
        }

    def save(self, path: Path) -> None:
        """Write the environment's state beside `path`, and to `path` the trace, as JSON that names the state's file.

        A process that is killed meanwhile leaves the checkpoint before, or this one.
        """
        state = path.with_suffix(f".{len(self.trace.actions)}.safetensors")
        self._env.save(state)
        named = {"state": state.name, "sha256": file_digest(state)}
        write_checked(path, {"config": asdict(self.config), "trace": asdict(self.trace)} | named)
        for older in _states(path):
            if older != state:
                older.unlink()

    def load(self, path: Path) -> None:
        """Continue the episode that `save` wrote.

        Raises:
            InvalidInputError: when a file is missing, damaged or of another episode, or the sampler answers
                otherwise than it did.
        """
        saved = read_checked(path)
        if saved.get("config") != json.loads(json.dumps(asdict(self.config))):
            raise InvalidInputError(f"{path} belongs to another episode; delete it to start over")
        state = path.with_name(Path(saved["state"]).name)
        if not state.is_file() or file_digest(state) != saved["sha256"]:
            raise InvalidInputError(f"{state} is missing or was changed since; delete {path} to start over")
        self._observation, self.info = self._env.load(state)
        conform(saved["trace"], Trace, path, "delete it to start over")
        self.trace = Trace(**saved["trace"])  # whose whole numbers stay what they are
        if self.trace.seconds.keys() != set(EPISODE_SECONDS):
            raise InvalidInputError(f"{path} is of another version, which took other times; delete it to start over")
        if self.info["round"] != len(self.trace.actions) * self._env.rounds_per_step:
            raise InvalidInputError(f"{path} and the trace beside it are of different rounds; delete both")
        for observation, action in zip(self.trace.observations, self.trace.actions, strict=True):
            again = self._ask(np.array(observation, dtype=np.float32))
            if write_decision(self._env, again) != action:
                raise InvalidInputError(f"sampler={self.config.sampler!r} is no longer the one that began {path}")

    def _ask(self, observation: NDArray[np.float32]) -> Action:
        """What the sampler wants done; it may keep a state from round to round."""
        decision, self._state = decide(self._sampler, self._env, observation, self._state, self._begins)
        self._begins = False
        return decision

    def _record(self, started: tuple[float, float]) -> None:
        trace, seconds = self.trace, self.trace.seconds
        for clock, start, now in zip(("wall", "processor"), started, _clocks(), strict=True):
            seconds[clock] += now - start
        for part, value in self.info["seconds"].items():
            seconds[part] += value
        for name in ("probe_agreement", "accuracy", "mean_iou", "progress", "synthesized"):
            if name in self.info:
                trace.curve.setdefault(name, []).append(self.info[name])
        for name, clock in CURVE_SECONDS.items():
            trace.curve.setdefault(name, []).append(seconds[clock])
        trace.peak_memory_mib = max(trace.peak_memory_mib, peak_memory_mib())
        on_device = peak_device_memory_mib(self._env.device)
        if on_device is not None:
            trace.peak_device_memory_mib = max(trace.peak_device_memory_mib or 0.0, on_device)


EpisodeT = TypeVar("EpisodeT", bound=ResumableEpisode)


def forget(checkpoint: Path) -> None:
    """Delete what `ResumableEpisode.save` wrote."""
    checkpoint.unlink(missing_ok=True)
    for state in _states(checkpoint):
        state.unlink()


def _states(checkpoint: Path) -> list[Path]:
    numbered = checkpoint.parent.glob(f"{glob.escape(checkpoint.stem)}.*.safetensors")
    return [path for path in numbered if is_number(path.name.split(".")[-2])]


def _clocks() -> tuple[float, float]:
    """Wall seconds and this process's processor seconds, of all its threads, each since a time of its own."""
    return time.perf_counter(), time.process_time()


def _load_shared(env: SSDKDEnv) -> None:
    """Load now what a process loads once and keeps, so that its first episode is not seconds slower than the others."""
    probe_set(env.task, env.device)
    env.task.evaluation(env.device)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first optimiser imports some 800 modules


def run_episode(config: EpisodeConfig) -> dict[str, Any]:
    """Play one episode and describe it; see `ResumableEpisode.result`."""
    result = play(config, None, lambda: False)
    assert result is not None
    return result


def play(config: EpisodeConfig, checkpoint: Path | None, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """Play an episode, from its checkpoint where there is one, until it ends or `stop` says so.

    Args:
        config: which episode.
        checkpoint: JSON file to keep it in every `SAVE_EVERY` seconds and when it is stopped (its state lies beside
            it), and to continue from. One that does not fit is not used: the episode then starts over, with a warning.
        stop: asked after the warm-up and after every step.

    Returns:
        The result line, or None when the episode was stopped and kept.
    """
    episode = begin(lambda: ResumableEpisode(config), checkpoint)
    return episode.result() if play_on(episode, checkpoint, stop) else None


def play_on(
    episode: ResumableEpisode,
    checkpoint: Path | None,
    stop: Callable[[], bool],
    tell: Callable[[], None] = lambda: None,
) -> bool:
    """Play an episode that has begun to its end; false where `stop` said so before, and it was kept.

    Args:
        episode: which.
        checkpoint: as of `play`.
        stop: as of `play`.
        tell: called after every step.
    """
    saved = time.monotonic()
    while not episode.finished:
        if stop():
            if checkpoint is not None:
                episode.save(checkpoint)
            return False
        episode.advance()
        tell()
        if checkpoint is not None and not episode.finished and time.monotonic() - saved > SAVE_EVERY:
            episode.save(checkpoint)
            saved = time.monotonic()
    return True


def begin(make: Callable[[], EpisodeT], checkpoint: Path | None) -> EpisodeT:
    """An episode as its checkpoint left it, or else after its warm-up.

    Args:
        make: makes one that has not begun.
        checkpoint: as of `play`.
    """
    episode = make()
    if checkpoint is not None and checkpoint.exists():
        try:
            episode.load(checkpoint)
        except (InvalidInputError, KeyError, TypeError, ValueError, RuntimeError) as error:
            warnings.warn(f"{one_line(error)}; the episode starts over", stacklevel=2)
            episode = make()
        else:
            return episode
    episode.start()
    return episode


def run_episodes(
    configs: Sequence[EpisodeConfig],
    executor: Executor,
    stop: Callable[[], bool] = lambda: False,
    check: Callable[[], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Play episodes, in this process or side by side by workers of one torch thread each.

    Args:
        configs: which.
        executor: whose workers.
        stop: when to begin no more of them, and to give up those that are under way.
        check: picklable; called before each episode, where it is played, and raises what is wrong there.

    Yields:
        Result lines, in the order of `configs`, without those of episodes that failed or were given up.

    Raises:
        InvalidInputError: after the last line, when episodes have failed.
    """
    ended: dict[int, dict[str, Any] | None] = {}
    failed: list[Outcome[tuple[int, EpisodeConfig]]] = []
    due = 0
    for outcome in run_jobs(partial(_play_numbered, check), list(enumerate(configs)), executor, stop):
        ended[outcome.job[0]] = outcome.result
        if outcome.error:
            failed.append(outcome)
        while due in ended:
            line = ended.pop(due)
            due += 1
            if line is not None:
                yield line
    yield from (line for _, line in sorted(ended.items()) if line is not None)  # behind one that was never begun
    if failed:
        first = min(failed, key=lambda outcome: outcome.job[0])
        config = first.job[1]
        raise InvalidInputError(
            f"{len(failed)} of {len(configs)} episodes failed, the others are done; the first is sampler "
            f"{config.sampler!r}, seed {config.seed}: {first.error}"
        ) from (RuntimeError(f"in another process:\n{first.details}") if first.details else None)


def _play_numbered(
    check: Callable[[], None] | None, job: tuple[int, EpisodeConfig], stop: Callable[[], bool]
) -> dict[str, Any] | None:
    if check is not None:
        check()
    return play(job[1], None, stop)
