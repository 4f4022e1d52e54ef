r"""Write a trained sampler as a folder to hand on: settings as JSON, the policy's tensors as safetensors, no pickle.

Examples:
  ssdkd export --out my_sampler --sampler runs/ppo
  ssdkd evaluate --out runs/evaluation --samplers my_sampler paper
  ssdkd export --out mine --sampler model.zip --algo ppo \
      --hyperparameters 'policy_kwargs={"net_arch": [32, 32]}'

A .zip is what model.save of plain Stable-Baselines3 wrote. Of it only the policy's tensors are read; nothing is
unpickled, so the hyper-parameters that shape the policy have to be given where they are not Stable-Baselines3's own.
Statistics of VecNormalize are not in such an archive: the agent must have been trained without it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.given import parse_settings
from ssdkd_agents.environments import make_env
from ssdkd_agents.policies.algorithms import ALGORITHMS, load_hyperparameters
from ssdkd_agents.policies.exported import read_archive, write_exported
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import TrainedSampler, load_policy, read_sampler, taken_of, untrained_model
from ssdkd_env.errors import InvalidInputError, check_choice


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd export`."""

    out: Path
    """Folder to write; must not exist."""
    sampler: Path
    """Run folder or checkpoint of ssdkd train, or an archive (.zip) of Stable-Baselines3."""
    algo: str = ""
    """Algorithm of an archive, such as ppo; a run knows its own."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id of an archive."""
    # Not an option each: they are keyword arguments of another package, see `parse_settings`.
    hyperparameters: tuple[str, ...] = ()
    """Hyper-parameters of an archive where they are not Stable-Baselines3's own."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment of an archive."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if not args.sampler.exists():
        raise InvalidInputError(f"--sampler {args.sampler} does not exist; give a run folder, a checkpoint or a .zip")
    archive = args.sampler.suffix == ".zip" or (args.sampler.is_file() and zipfile.is_zipfile(args.sampler))
    if not archive and (args.algo or args.env.settings() or args.hyperparameters):
        raise InvalidInputError("--algo, --env. and --hyperparameters describe a .zip; a run knows its own")
    state = read_foreign(args) if archive else read_own(args.sampler)
    write_exported(args.out, state)
    if taken := taken_of(str(args.sampler)):
        print(taken)
    print(
        f"{args.out}: {state['config']['algorithm']} for {state['config']['env_id']}; use it as --samplers {args.out}"
    )


def read_own(path: Path) -> dict[str, Any]:
    """State of a run's last checkpoint, made sure that it works."""
    file = find_sampler_file(path)
    if file.suffix == ".json":
        raise InvalidInputError(f"{path} is plain JSON already ({file.name}); copy the folder as it is")
    state = read_sampler(file)
    TrainedSampler(file, make_env(state["config"]["env_id"], state["config"].get("env_kwargs", {})))
    return state


def read_foreign(args: Arguments) -> dict[str, Any]:
    """State of an archive, as `read_sampler` gives that of a checkpoint."""
    if not args.algo:
        raise InvalidInputError(f"--sampler {args.sampler} is an archive; say its algorithm with --algo, such as ppo")
    check_choice("algo", args.algo, ALGORITHMS)
    env_kwargs = args.env.settings()
    env = make_env(args.env_id, env_kwargs)
    policy = load_hyperparameters(args.algo, args.env_id)["policy"]
    hyperparameters = {"policy": policy} | parse_settings("hyperparameters", args.hyperparameters)
    config = {"algorithm": args.algo, "hyperparameters": hyperparameters}
    tensors = read_archive(args.sampler)
    remedy = (
        "give the hyper-parameters of its training, such as "
        """--hyperparameters policy=MlpPolicy 'policy_kwargs={"net_arch": [32, 32]}', and its --algo and --env."""
    )
    load_policy(untrained_model(config, env), tensors, str(args.sampler), remedy)
    return {
        "config": config | {"env_id": args.env_id, "env_kwargs": env_kwargs},
        "names": {"observation": list(env.observation_names), "action": list(env.action_names)},
        "face": env.face,
        "normalization": None,
        "parameters": {"policy": tensors},
    }


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd export", arguments)
