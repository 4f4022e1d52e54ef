"""Train an agent to sample: Stable-Baselines3 on a distillation environment.

Examples:
  ssdkd train --out runs/ppo
  ssdkd train --out runs/sac --algo sac --timesteps 4000
  ssdkd train --out runs/plans --algo dqn --env.action plans --env.budget.rounds 60 --hyperparameters batch_size=64
  ssdkd train --out runs/ppo --resume --timesteps 20000
  tensorboard --logdir runs

Writes checkpoints/ (the last two), best.safetensors, tensorboard logs, episodes.jsonl, evaluations.jsonl, config.json,
machine.json, outcome.json and command.txt into the folder. Every --evaluate-every-steps, and at the end, the
deterministic policy plays the same few episodes on seeds of their own; the checkpoint with the highest mean return is
the best one. Algorithms play whole rollouts: where those are other steps than --timesteps says, a line says how many.

Ctrl-C waits up to five seconds for the rollout in progress; --resume continues from the last checkpoint, and gives on
the CPU the same curve as a run that was never interrupted or killed. With more --timesteps it lengthens a finished run;
learning rates that depend on the number of steps then follow the new number.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ssdkd_agents.commands.command_line import Plugins, launch, refuse_beside_resume, resuming
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.executing import WHERE, Where, cluster_of
from ssdkd_agents.commands.given import parse_settings
from ssdkd_agents.environments import make_env
from ssdkd_agents.inputs import inputs_of
from ssdkd_agents.runs import BEST_FILE, RunFolder
from ssdkd_agents.training.config import TrainingConfig, check_settings, config_of_run
from ssdkd_agents.training.train import OUTCOME_FILE, train
from ssdkd_env.cluster import RayCluster
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import read_json


@dataclass
class Arguments(Where, Plugins):
    """Command line of `ssdkd train`."""

    out: Path
    """Folder of the run; must be new or empty, unless --resume."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    algo: str = "ppo"
    """a2c, ars, cma_es, grpo, ppo, recurrent_ppo or trpo; crossq, sac, td3 or tqc where actions are continuous; dqn,
    and what is not among these four, where --env.action plans."""
    timesteps: int = 0
    """Environment steps in all; 0 takes the number from the hyper-parameter file."""
    episodes: int = 0
    """Episodes in all, in place of steps: agents that decide how long their episodes are compare at equally many."""
    seed: int = 0
    """Of agent and environments, 0 to 999."""
    # Not an option each: they are keyword arguments of another package, see `parse_settings`.
    hyperparameters: tuple[str, ...] = ()
    """Values that replace the file's, such as learning_rate=0.0003 n_envs=4."""
    checkpoint_every_steps: int = 128
    """Environment steps between checkpoints; each is taken between an update and the next rollout."""
    evaluate_every_steps: int = 1280
    """Environment steps between validations, which add about an eighth to the time; the last agent has one in any case;
    0 for none."""
    evaluation_episodes: int = 8
    """Episodes of a validation."""
    patience: int = 0
    """Validations without a higher mean return after which training ends; 0 for never."""
    start: list[float] | None = None
    """Action that the untrained agent begins with, such as the plan that ssdkd search has found; as many numbers in
    [-1, 1] as the scheme has parts."""
    common_random_numbers: bool = False
    """Environments play the same seed and instance at a time, so that returns differ by what was done; the instances
    of a set take turns. They share a warm-up, and are grouped as one."""
    image_every_episodes: int = 20
    """Episodes between pictures of the buffer in TensorBoard."""
    vectorization: str = "by_size"
    """How several environments are stepped: loop, process (as SubprocVecEnv does, one torch thread each), grouped,
    by_size (grouped where images are small, else in processes), or auto, which tries what is fastest here and now."""
    resume: bool = False
    """Continue the run in --out, with its own settings; only --timesteps, and on what it runs, are taken from this
    command."""
    progress_bar: bool = True
    """Show a progress bar."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def training_of(args: Any) -> TrainingConfig:
    """The training that options of these names ask for; what a command has no option for has its default."""
    same = {each.name: getattr(args, each.name) for each in fields(TrainingConfig) if hasattr(args, each.name)}
    parsed = {
        "algorithm": args.algo,
        "env_kwargs": args.env.settings(),
        "hyperparameters": parse_settings("hyperparameters", args.hyperparameters),
    }
    return TrainingConfig(**same | parsed)


def main(args: Arguments) -> None:
    """Do what the command line says."""
    with cluster_of(args) as cluster:
        begin_or_resume(args, cluster)


def begin_or_resume(args: Arguments, cluster: RayCluster | None) -> None:
    """Train, and say how it ended."""
    if args.resume:
        refuse_beside_resume(args, ("timesteps", "progress_bar", *WHERE))
        folder = RunFolder.resume(args.out)
        config = config_of_run(folder)
        if config.episodes and args.timesteps:
            raise InvalidInputError(f"--timesteps {args.timesteps}: {args.out} counts episodes; leave it out")
        config = replace(config, timesteps=args.timesteps or config.timesteps)
    else:
        config = training_of(args)
        check_settings(config)
        inputs = inputs_of(make_env(config.env_id, config.env_kwargs))
        folder = RunFolder(args.out, asdict(config), inputs)
    print(f"curves: tensorboard --logdir {folder.path}")
    outcome = train(config, folder, args.resume, args.progress_bar, executor=cluster)
    print(f"{outcome}; last checkpoint in {folder.path / 'checkpoints'}")
    print(best_of(folder.path, config))
    if outcome == "diverged":
        print(
            "the agent's answers are no numbers any more; the last sound checkpoint is kept: try a smaller "
            "learning_rate"
        )
        sys.exit(1)
    if outcome == "interrupted":
        print(f"continue with: {resuming(folder.path)}")
        sys.exit(130)


def best_of(run: Path, config: TrainingConfig) -> str:
    """Which checkpoint is the best of a training that has ended, or why there is none, in a line."""
    said = read_json(run / OUTCOME_FILE)
    if said["best_return"] is not None:
        reached = f"mean return {said['best_return']:.4f} after {said['best_timesteps']} steps"
        return f"best in validation: {run / BEST_FILE} ({reached})"
    why = "no agent was validated so far" if config.evaluate_every_steps else "evaluate_every_steps=0"
    return f"no best: {why}; {run} stands for its last checkpoint"


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd train", arguments)
