"""Train several algorithms from several seeds at one budget of episodes, each as ssdkd train would.

Examples:
  python scripts/train_agents.py --out runs/agents --env.instances digits-work-train --env.action division
  python scripts/train_agents.py --out runs/agents --env.instances digits-work-train --env.action division --seeds 5 6

Each training has a folder of its own, OUT/ALGO-SEED. Give the same command again to go on: those that have ended stay,
and one that was stopped goes on from its last checkpoint. Several calls may share the work, with other --seeds each.
Then compare them by ssdkd evaluate on instances that none has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from laboratory.common import check_least
from laboratory.folders import run_folder
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.policies.algorithms import ALGORITHMS
from ssdkd_agents.training.config import TrainingConfig, check_settings, config_of_run
from ssdkd_agents.training.train import OUTCOME_FILE, has_ended, train

from ssdkd_env.errors import InvalidInputError, check_choice, one_line
from ssdkd_env.reading import read_json


@dataclass
class Arguments(Plugins):
    """Command line of train_agents."""

    out: Path
    """Folder of the trainings; the same in every call."""
    algos: tuple[str, ...] = ("ppo", "sac", "crossq", "recurrent_ppo", "ars", "cma_es")
    """Algorithms, as of ssdkd train."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of agents and environments."""
    episodes: int = 1500
    """Of each training."""
    settings: Path | None = None
    """YAML file: algorithm → hyper-parameters that replace those of ssdkd train, such as what ssdkd tune found."""
    start: list[float] | None = None
    """Action that every agent begins with."""
    evaluate_every_steps: int = 0
    """Environment steps between validations; 0 for none."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Arguments) -> None:
    """Train what is not trained yet."""
    check_least(args, episodes=1, evaluate_every_steps=0)
    chosen = _read(args.settings) if args.settings else {}
    configs = {
        args.out / f"{algo}-{seed}": TrainingConfig(
            env_id=args.env_id,
            algorithm=algo,
            seed=seed,
            episodes=args.episodes,
            env_kwargs=args.env.settings(),
            hyperparameters=chosen.get(algo, {}),
            start=args.start,
            evaluate_every_steps=args.evaluate_every_steps,
            # In one process, so that calls side by side do not share their cores.
            vectorization="grouped",
            common_random_numbers=True,
        )
        for seed in args.seeds
        for algo in args.algos
    }
    for config in {config.algorithm: config for config in configs.values()}.values():  # whatever the seed
        check_settings(config)
    for path, config in configs.items():
        _train(path, config)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Algorithm → hyper-parameters.

    Raises:
        InvalidInputError: when the file is unreadable, or something else.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"--settings {path}: {one_line(error)}; give a YAML file") from error
    if not isinstance(found, dict) or not all(isinstance(values, dict) for values in found.values()):
        raise InvalidInputError(f"--settings {path}: expected algorithms with hyper-parameters below each")
    for name in found:
        check_choice(f"--settings {path}", name, ALGORITHMS)
    return found


def _train(path: Path, config: TrainingConfig) -> None:
    """Begin a training, or go on with it, unless it has ended.

    Raises:
        InvalidInputError: when the folder is of another one.
    """
    folder, begun = run_folder(path, config, config_of_run, "training")
    if has_ended(path):
        print(f"{path}: {read_json(path / OUTCOME_FILE)['outcome']}")
        return
    print(f"{path}:", flush=True)
    if train(config, folder, resume=begun) == "interrupted":
        raise KeyboardInterrupt


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
