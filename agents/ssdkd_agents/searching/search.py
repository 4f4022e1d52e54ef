"""Searching a family of simple policies: what a trained sampler has to beat at the same budget of episodes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from ssdkd_agents.curves import REAL_SCORES, SEARCH_TAG, Curves, layout_of, mean_known, result_tags, validation_points
from ssdkd_agents.environments import env_arguments, make_env, use_one_thread
from ssdkd_agents.families import FAMILIES, Constants, make_family
from ssdkd_agents.lines import read_lines
from ssdkd_agents.playing import FloatArray, PlayedEpisode, play_side_by_side
from ssdkd_agents.progress import progress
from ssdkd_agents.runs import CONSTANT_FILE, EPISODES_FILE, EVALUATIONS_FILE, RETURN_TAG, RunFolder
from ssdkd_agents.schemas import SearchLine, ValidatedPlan, config_of
from ssdkd_agents.searching.searchers import (
    FIRST_SIGMA,
    SEARCHERS,
    SMALLEST_POPULATION,
    Recommendation,
    Searcher,
    Trial,
    make_searcher,
    plain,
)
from ssdkd_agents.seeds import VALIDATION_SEED, shared_out
from ssdkd_agents.stopping import Stopper
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.sub_environments import SubEnvironments, check_backend
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.executors import Executor
from ssdkd_env.files import write_json

#: Episodes of the mean return in TensorBoard, as many as Stable-Baselines3 takes for an agent.
RECENT = 100


@dataclass(frozen=True)
class SearchConfig:
    """What a search depends on; it lies as `config.json` in the run's folder.

    Attributes:
        env_id: registered id.
        searcher: `"random"` (a bandit where actions are numbers) or `"cma"`.
        episodes: budget; validation is not part of it, as it is not of a training's.
        seed: of candidates and episodes, below 1,000.
        env_kwargs: JSON-able arguments of the environment.
        vectorization: how the work of several environments is done; see `SubEnvironments`.
        num_envs: environments side by side. It changes the speed, not what is played.
        final_share: of random search's budget, for playing its best candidates again.
        population: candidates of a generation of CMA-ES. Twice the package's default for five numbers, against noise.
        evaluate_every_steps: environment steps between evaluations of the recommendation on validation seeds; 0 for
            none.
        evaluation_episodes: episodes of such an evaluation, seeds from 500,000 on.
        family: what is searched; a key of `FAMILIES`.
        plays: episodes of each candidate in a generation of CMA-ES, on seeds that all share, and on the instances of
            a set in turn.
        start: action around which CMA-ES begins; None is the middle of the box.
        sigma: standard deviation of its first generation, where the box is 2 wide; less suits a good start.
    """

    env_id: str
    searcher: str
    episodes: int = 400
    seed: int = 0
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    vectorization: str = "by_size"
    num_envs: int = 16
    final_share: float = 0.5
    population: int = 16
    evaluate_every_steps: int = 0
    evaluation_episodes: int = 8
    family: str = "constant"
    plays: int = 1
    start: list[float] | None = None
    sigma: float = FIRST_SIGMA

    def __post_init__(self) -> None:
        check_choice("searcher", self.searcher, SEARCHERS)
        check_choice("family", self.family, FAMILIES)
        check_backend(self.vectorization)
        if self.searcher != "cma" and (self.plays != 1 or self.start is not None or self.sigma != FIRST_SIGMA):
            raise InvalidInputError(f"plays, start, sigma: searcher={self.searcher!r} has none; choose searcher='cma'")
        if not 0 < self.sigma <= 1:
            raise InvalidInputError(f"sigma={self.sigma}: expected a number above 0 and at most 1")
        if not 0 <= self.seed < 1000:
            raise InvalidInputError(f"seed={self.seed}: expected a number from 0 to 999, as of a training")
        if not 0 <= self.final_share < 1:
            raise InvalidInputError(f"final_share={self.final_share}: expected a number from 0 to below 1")
        if not 1 <= self.episodes <= VALIDATION_SEED:
            raise InvalidInputError(f"episodes={self.episodes}: expected a number from 1 to {VALIDATION_SEED:,}")
        lowest = {
            "num_envs": 1,
            "plays": 1,
            "population": SMALLEST_POPULATION,
            "evaluate_every_steps": 0,
            "evaluation_episodes": 1,
        }
        for name, low in lowest.items():
            if not low <= getattr(self, name) <= VALIDATION_SEED:
                raise InvalidInputError(
                    f"{name}={getattr(self, name)}: expected a number of at least {low} and at most {VALIDATION_SEED:,}"
                )


def config_of_search(folder: RunFolder) -> SearchConfig:
    """The settings of an earlier search.

    Raises:
        InvalidInputError: when the folder was made by another command, or a setting does not fit.
    """
    return config_of(folder.config, SearchConfig, folder.path, "ssdkd search")


def searcher_of(config: SearchConfig, env: SSDKDEnv) -> Searcher:
    """The searcher that a config means, before any episode.

    Args:
        config: of the search.
        env: whose actions are searched.

    Raises:
        InvalidInputError: when the searcher does not fit.
    """
    budget = config.episodes, config.seed, config.final_share, config.population, config.plays
    more: dict[str, Any] = {"sigma": config.sigma, "instances": len(env.instances)}
    if config.family == Constants.name and config.start is None:
        # Of these actions a bandit has numbers of choices.
        return make_searcher(config.searcher, env.action_space, *budget, **more)
    if config.start is not None and not isinstance(env.action_space, gym.spaces.Box):
        raise InvalidInputError(f"start={config.start}: the actions are {env.action_space}; leave it out")
    family = make_family(config.family, env)
    start = None
    if config.start is not None:
        if len(config.start) != family.parts or not all(-1 <= part <= 1 for part in config.start):
            raise InvalidInputError(f"start={config.start}: expected {family.parts} numbers in [-1, 1], an action")
        start = family.around(np.array(config.start, dtype=np.float32))
    box = gym.spaces.Box(-1.0, 1.0, (family.size,), np.float32)
    return make_searcher(config.searcher, box, *budget, start=start, **more)


#: From what the trials want and the observations of their episodes: the actions.
Decide = Callable[[Sequence[Trial], FloatArray], Sequence[Any]]


def decider(config: SearchConfig, env: SSDKDEnv) -> Decide:
    """How trials of a search decide."""
    if config.family == Constants.name:
        return lambda trials, _: [trial.action for trial in trials]
    family = make_family(config.family, env)

    def decide(trials: Sequence[Trial], observations: FloatArray) -> list[FloatArray]:
        pairs = zip(trials, observations, strict=True)
        return [family.actions(np.asarray(trial.action), seen[None])[0] for trial, seen in pairs]

    return decide


def _play(
    pool: SubEnvironments, trials: Sequence[Trial], decide: Decide, stop: Callable[[], bool]
) -> list[PlayedEpisode] | None:
    """One episode for each trial, in their order; None when stopped."""
    instances = [trial.instance for trial in trials]
    seeds = [trial.seed for trial in trials]
    return play_side_by_side(pool, seeds, lambda seen, _: decide(trials, seen), stop, instances=instances)


def search(config: SearchConfig, folder: RunFolder, progress_bar: bool = True, executor: Executor | None = None) -> str:
    """Search until the budget is used up or Ctrl-C, from where the folder's `episodes.jsonl` ends.

    Leaves `episodes.jsonl`, `evaluations.jsonl`, TensorBoard logs and, after every batch of episodes, the
    recommendation in `constant.json`. Episodes that Ctrl-C cut short are played again by the next call.

    Args:
        config: what to search.
        folder: where everything goes.
        progress_bar: show one, or lines now and then where stderr is no terminal.
        executor: whose workers have the environments; None for this machine.

    Returns:
        `"finished"` or `"interrupted"`.

    Raises:
        InvalidInputError: when the folder's episodes are not those of the config.
    """
    use_one_thread()
    work = _Search(config, folder, executor)
    stop = Stopper()
    with closing(work), stop:
        work.run(stop, progress_bar)
    return "interrupted" if stop.interrupted and not work.finished else "finished"


class _Search:
    """A search in progress; see `search`."""

    def __init__(self, config: SearchConfig, folder: RunFolder, executor: Executor | None) -> None:
        self._config, self._folder, self._executor = config, folder, executor
        self._env = make_env(config.env_id, config.env_kwargs)
        self._searcher, self._decide = searcher_of(config, self._env), decider(config, self._env)
        self._steps, self._episodes, self._seconds = 0, 0, 0.0
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._replay()
        self._started = time.time() - self._seconds
        self._evaluated, self._evaluation = self._last_evaluation()
        self.finished = self._is_finished()
        self._environments: SubEnvironments | None = None

    def run(self, stop: Stopper, progress_bar: bool) -> None:
        """Play what is left of the budget."""
        if self._episodes:
            self._write_constant()  # of a process that was killed between its last line and this
        if self.finished:
            return
        config = self._config
        count = min(config.num_envs, config.episodes)
        self._environments = SubEnvironments(
            count, env_arguments(config.env_id, config.env_kwargs), config.vectorization, None, self._executor
        )
        print(f"environments: {count}, {self._environments.choice}")
        curves = self._begin_curves()
        with progress(config.episodes, "episode", self._episodes, progress_bar) as bar:
            self._evaluate_if_due(self._environments, curves, stop)
            while not stop() and (trials := self._searcher.ask(count)):
                episodes = _play(self._environments, trials, self._decide, stop)
                if episodes is None:
                    break
                for trial, episode in zip(trials, episodes, strict=True):
                    self._take(trial, episode)
                self._write_constant()
                self._log(curves)
                bar.set_postfix({"best": self._searcher.recommendation().mean_return}, refresh=False)
                bar.update(len(trials))
                self._evaluate_if_due(self._environments, curves, stop)
        self.finished = self._is_finished()

    def close(self) -> None:
        """End the environments."""
        if self._environments is not None:
            self._environments.close()

    def _replay(self) -> None:
        """Tell the searcher what has been played; it then asks for what has not."""
        path = self._folder.path / EPISODES_FILE
        lines = read_lines(path, SearchLine) if path.is_file() else []
        if len(self._env.instances) > 1 and any("instance" not in line for line in lines):
            raise InvalidInputError(
                f"{path} is of an earlier version, which drew instances; start anew in another folder"
            )
        for line in lines:
            trials = self._searcher.ask(1)
            wanted = [(plain(trial.action), trial.seed, trial.instance) for trial in trials]
            if [(line["action"], line["seed"], line.get("instance", 0))] != wanted:
                raise InvalidInputError(
                    f"{path} is not what this search plays in episode {self._episodes}; was it or config.json edited, "
                    "or made with another version of numpy or cma? Start anew in another folder"
                )
            self._searcher.tell(line["return"])
            self._recent.append(line)
            self._episodes, self._steps, self._seconds = self._episodes + 1, line["timesteps"], line["seconds"]

    def _last_evaluation(self) -> tuple[int, dict[str, Any] | None]:
        """Steps before the last evaluation, and its line."""
        path = self._folder.path / EVALUATIONS_FILE
        lines = read_lines(path, ValidatedPlan) if path.is_file() else []
        return (lines[-1]["timesteps"], lines[-1]) if lines else (0, None)

    def _is_finished(self) -> bool:
        return not self._searcher.ask(1) and not self._evaluation_is_due()

    def _take(self, trial: Trial, episode: PlayedEpisode) -> None:
        self._searcher.tell(episode.total)
        self._episodes += 1
        self._steps += len(episode.rewards)
        line = {
            "timesteps": self._steps,
            "rounds": episode.final["round"],
            "return": episode.total,
            "accuracy": episode.final.get("accuracy"),
            "probe_agreement": episode.final["probe_agreement"],
            "seconds": time.time() - self._started,
            "action": plain(trial.action),
            "seed": trial.seed,
            "instance": trial.instance,
        } | ({"mean_iou": episode.final["mean_iou"]} if "mean_iou" in episode.final else {})
        self._folder.append(line, file=EPISODES_FILE)
        self._recent.append(line)

    def _begin_curves(self) -> Curves:
        """Curves that go on where the lines end, whatever an earlier process has still written of them."""
        config = asdict(self._config)
        shown = {"episodes", "final_share", "population", "plays", "start", "num_envs"}
        own = {
            "algorithm": f"search: {self._config.family}, {self._config.searcher}",
            "hyperparameters": {name: value for name, value in config.items() if name in shown},
        }
        curves = Curves(self._folder.path, self._steps)
        tags = result_tags(self._env.real_scores, self._config.evaluate_every_steps > 0)
        curves.describe(layout_of((SEARCH_TAG, *tags), {}), config | own)
        if self._episodes:
            self._log(curves)
            if self._evaluation is not None and self._evaluated == self._steps:
                self._log_evaluation(curves, self._evaluation)
        return curves

    def _log(self, curves: Curves) -> None:
        batch = list(self._recent)[-min(self._config.num_envs, self._config.episodes) :]
        names = (*REAL_SCORES, "probe_agreement")
        points = {f"student/{name}": mean_known(line.get(name) for line in batch) for name in names}
        points[RETURN_TAG] = mean_known(line["return"] for line in self._recent)
        points[SEARCH_TAG] = self._searcher.recommendation().mean_return
        curves.scalars(points, self._steps)

    def _log_evaluation(self, curves: Curves, line: dict[str, Any]) -> None:
        curves.scalars(validation_points(line), self._steps)

    def _evaluation_is_due(self) -> bool:
        """Whether a multiple of `evaluate_every_steps`, or the end, has come since the last evaluation."""
        every = self._config.evaluate_every_steps
        if not every or self._steps <= self._evaluated:
            return False
        return self._steps // every > self._evaluated // every or not self._searcher.ask(1)

    def _evaluate_if_due(self, pool: SubEnvironments, curves: Curves, stop: Stopper) -> None:
        """Play the recommendation on the validation seeds; the one that was played last has its numbers already."""
        if not self._evaluation_is_due():
            return
        action = self._searcher.recommendation().action
        line = self._evaluation
        if line is None or line["action"] != plain(action):
            started = time.perf_counter()
            episodes: list[PlayedEpisode] = []
            instances = shared_out(self._config.evaluation_episodes, len(self._env.instances))
            trials = [Trial(action, VALIDATION_SEED + i, instance) for i, instance in enumerate(instances)]
            for first in range(0, len(trials), pool.count):
                played = _play(pool, trials[first : first + pool.count], self._decide, stop)
                if played is None:
                    return
                episodes += played
            returns = [episode.total for episode in episodes]
            line = {
                "seeds": [trial.seed for trial in trials],
                "returns": returns,
                "accuracies": [episode.final.get("accuracy") for episode in episodes],
                "seconds": time.perf_counter() - started,
                "mean_return": float(np.mean(returns)),
                "action": plain(action),
            }
            if ious := [episode.final["mean_iou"] for episode in episodes if "mean_iou" in episode.final]:
                line["mean_ious"] = ious
        self._evaluation = line | {"timesteps": self._steps}
        self._folder.append(self._evaluation, file=EVALUATIONS_FILE)
        self._evaluated = self._steps
        self._log_evaluation(curves, self._evaluation)

    def _write_constant(self) -> None:
        recommendation: Recommendation = self._searcher.recommendation()
        config = self._config
        value = asdict(recommendation) | {
            "family": config.family,
            "action": plain(recommendation.action),
            "action_names": list(self._env.action_names),
            "observation_names": list(self._env.observation_names),
            "face": self._env.face,
            "searcher": config.searcher,
            "episodes": self._episodes,
            "timesteps": self._steps,
            "env_id": config.env_id,
            "env_kwargs": config.env_kwargs,
        }
        write_json(self._folder.path / CONSTANT_FILE, value)


def constant_name(value: dict[str, Any]) -> str:
    """The sampler's name for `ssdkd evaluate`, from what `constant.json` holds."""
    return f"{value.get('family', Constants.name)}:{value['action']}"  # earlier searches were of constant plans
