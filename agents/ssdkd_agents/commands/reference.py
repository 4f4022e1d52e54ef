"""Play the references of relative rewards: what the method's own plan reaches on each instance.

Examples:
  ssdkd reference --out ssdkd_env/tasks/assets/references.json --env.instances digits-work-train
  ssdkd reference --out references.json --env.task mypkg.tasks:spec --env.reward relative_probe_discrepancy

An environment with such a reward plays those that are missing at its first reset, and keeps them in the cache folder.
A task that has this file, by the name references.json, in the folder that its `probe_sets` names pays the same rewards
on every machine. What is in the file stays there, so that the same command goes on after a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.environments import make_env
from ssdkd_env.envs.references import read_references
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_json

REWARD = "relative_probe_agreement"


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd reference`."""

    out: Path
    """File that they are added to, such as references.json."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment; its reward is relative_probe_agreement where none is given."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    torch.set_num_threads(1)  # other numbers of threads round otherwise
    if args.out.suffix != ".json":
        raise InvalidInputError(f"--out {args.out}: expected a name that ends in .json")
    env = make_env(args.env_id, {"reward": REWARD} | args.env.settings())
    if not env.references.compares:
        raise InvalidInputError(f"--env.reward {env.settings.reward}: compares with nothing; give one such as {REWARD}")
    known = read_references(args.out) if args.out.exists() else {}
    for number, task in enumerate(env.instances.tasks):
        key = env.references.fingerprint(task)
        if key not in known:
            known[key] = env.references.play(task)
            write_json(args.out, {name: asdict(reference) for name, reference in known.items()})
        reference = known[key]
        print(f"instance {number}: {reference.scores[-1]:.4f}, deviation {reference.deviation:.4f}", flush=True)
    print(f"references: {args.out}")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd reference", arguments)
