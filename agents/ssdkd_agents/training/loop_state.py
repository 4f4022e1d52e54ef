"""What a training's loop holds between two iterations, beside the agent: taken, and put back exactly.

The sampler file (`policies.storage`) holds the agent: parameters, optimisers, counters, normalisation, replay
buffer. The state here is the rest: random streams, last observations, recurrent states, running sums of the wrappers,
and what waits to be logged. The environments' episodes have files of their own (`DistillationVecEnv.save_episodes`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, unwrap_vec_wrapper

#: The method that is one iteration of an algorithm's loop: of all of Stable-Baselines3's, and of ARS.
ITERATIONS = ("collect_rollouts", "_do_one_update")
#: Numbers that loops keep from iteration to iteration, where they have them.
COUNTERS = ("_episode_num", "_current_progress_remaining", "old_count")
LAST = ("_last_obs", "_last_original_obs", "_last_episode_starts")


@runtime_checkable
class Strategic(Protocol):
    """An algorithm whose search goes on from more than its agent."""

    def strategy_state(self) -> dict[str, Any]:
        """Tensors and JSON values."""
        ...

    def load_strategy_state(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""
        ...


def before_each_iteration(model: BaseAlgorithm, act: Callable[[], None]) -> None:
    """Call `act` whenever nothing of the algorithm is half done: between an update and the next rollout.

    Callbacks are no such place. They are called in the middle of a rollout, or after noise was drawn for it. What
    `act` raises ends the training.

    Raises:
        TypeError: for an algorithm whose loop is not known.
    """
    name = next((name for name in ITERATIONS if hasattr(model, name)), None)
    if name is None:
        raise TypeError(f"{type(model).__name__} has none of {', '.join(ITERATIONS)}; add what its loop repeats")
    iterate = getattr(model, name)

    def act_and_iterate(*args: Any, **kwargs: Any) -> Any:
        act()
        return iterate(*args, **kwargs)

    setattr(model, name, act_and_iterate)


def loop_state(model: BaseAlgorithm) -> dict[str, Any]:
    """Tensors and JSON values from which `prepare` and `restore` go on bit-identically on the CPU."""
    env = _env(model)
    monitor, normalize = unwrap_vec_wrapper(env, VecMonitor), model.get_vec_normalize_env()
    assert isinstance(monitor, VecMonitor)
    lstm = getattr(model, "_last_lstm_states", None)
    return {
        "counters": {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)},
        "last": {name: _tensor(getattr(model, name)) for name in LAST},
        "lstm": None if lstm is None else tuple(tuple(part) for part in lstm),
        "monitor": [torch.from_numpy(monitor.episode_returns), torch.from_numpy(monitor.episode_lengths)],
        "discounted": None if normalize is None else torch.from_numpy(normalize.returns),
        "episodes": [{key: float(value) for key, value in info.items()} for info in model.ep_info_buffer or ()],
        "noise": [torch.from_numpy(noise.noise_prev) for noise in _noises(model)],
        "pending": _pending(model),
        "strategy": model.strategy_state() if isinstance(model, Strategic) else None,
        "random": random_state() | {"actions": model.action_space.np_random.bit_generator.state},
    }


def prepare(model: BaseAlgorithm, state: Mapping[str, Any]) -> None:
    """Put back what must be there before `learn(reset_num_timesteps=False)`, which then resets no environment.

    Raises:
        LookupError, TypeError, ValueError, RuntimeError: when something in it is of another kind or size.
    """
    monitor, normalize = unwrap_vec_wrapper(_env(model), VecMonitor), model.get_vec_normalize_env()
    assert isinstance(monitor, VecMonitor)
    for name in COUNTERS:  # and whatever else a file names is none
        if name in state["counters"]:
            setattr(model, name, state["counters"][name])
    # Copies, because what was read lies anywhere in memory, and products of unaligned matrices round otherwise.
    seen = model.observation_space.shape or ()
    for name in LAST:
        shape = (model.n_envs,) if name == "_last_episode_starts" else (model.n_envs, *seen)
        setattr(model, name, _array(name, state["last"][name], shape))
    if isinstance(model, Strategic):
        model.load_strategy_state(state["strategy"])
    if state["lstm"] is not None:
        lstm = (tuple(tensor.clone() for tensor in part) for part in state["lstm"])
        model._last_lstm_states = type(model._last_lstm_states)(*lstm)  # type: ignore[attr-defined]
    returns, lengths = (_array("monitor", value, (model.n_envs,)) for value in state["monitor"])
    monitor.episode_returns, monitor.episode_lengths = returns, lengths
    if normalize is not None:
        normalize.returns = _array("discounted", state["discounted"], (model.n_envs,))
    episodes = [{"r": np.float32(e["r"]), "l": np.int32(e["l"]), **_time(e)} for e in state["episodes"]]
    model.ep_info_buffer = deque(episodes, maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)


def restore(model: BaseAlgorithm, state: Mapping[str, Any]) -> None:
    """Put back, before the first iteration, what `learn` makes anew or may have drawn from."""
    for noise, value in zip(_noises(model), state["noise"], strict=True):
        noise.noise_prev = value.numpy().copy()
    for name, (value, count, excluded) in state["pending"].items():
        model.logger.name_to_value[name] = value
        model.logger.name_to_count[name] = count
        model.logger.name_to_excluded[name] = tuple(excluded)
    set_random_state(state["random"])
    model.action_space.np_random.bit_generator.state = state["random"]["actions"]


def random_state() -> dict[str, Any]:
    """The global random streams of Python, NumPy and PyTorch (CPU)."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (Stable-Baselines3 draws from it)
    return {
        "python": [version, list(words), gauss],
        "numpy": numpy_state["state"]["key"].tolist(),
        "numpy_rest": [int(numpy_state["state"]["pos"]), numpy_state["has_gauss"], numpy_state["gauss"]],
        "torch": torch.get_rng_state(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(("MT19937", np.array(state["numpy"], dtype=np.uint32), *state["numpy_rest"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])


@contextmanager
def random_streams_kept() -> Iterator[None]:
    """Whatever is drawn inside, the global random streams go on afterwards as if nothing had been."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def _env(model: BaseAlgorithm) -> VecEnv:
    assert model.env is not None
    return model.env


def _tensor(value: Any) -> torch.Tensor | None:
    return None if value is None else torch.from_numpy(np.asarray(value))


def _array(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """An array of this shape, which is its own; None where there is none."""
    if value is not None and value.shape != shape:
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, expected {shape}")
    return None if value is None else value.numpy().copy()


def _time(info: Mapping[str, float]) -> dict[str, float]:
    return {"t": info["t"]} if "t" in info else {}  # ARS has none


def _noises(model: BaseAlgorithm) -> list[Any]:
    """Processes of action noise that remember their last value (Ornstein-Uhlenbeck), one an environment."""
    noise = getattr(model, "action_noise", None)
    return [each for each in getattr(noise, "noises", [noise]) if hasattr(each, "noise_prev")]


def _pending(model: BaseAlgorithm) -> dict[str, list[Any]]:
    """Numbers recorded since the last log: value, count of a mean, outputs that do not show it."""
    logger = model.logger
    return {
        name: [float(value), logger.name_to_count.get(name, 0), list(logger.name_to_excluded[name] or ())]
        for name, value in logger.name_to_value.items()
        if isinstance(value, int | float | np.number)
    }
