"""`ssdkd`: finds the subcommand, and imports no other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ssdkd_agents.commands.endings import HELP, one_line_for_the_user, outlive_readers
from ssdkd_env import __version__
from ssdkd_env.errors import InvalidInputError

#: Words of a subcommand → its module here, and what it does.
COMMANDS = {
    "distill": ("distill", "a student out of a teacher whose data are gone"),
    "teacher": ("teacher", "train a teacher on real images, for a later run without them"),
    "train": ("train", "train an agent to sample, with Stable-Baselines3"),
    "search": ("search", "search the best fixed sampling plan"),
    "tune": ("tune", "tune an algorithm's hyper-parameters, with Optuna"),
    "evaluate": ("evaluate", "compare samplers on held-out seeds"),
    "probe": ("probe", "make the probe set of a teacher, and say what is in it"),
    "reference": ("reference", "play what relative rewards compare with"),
    "benchmark": ("benchmark", "compare methods and samplers over seeds"),
    "export": ("export", "write a trained sampler as JSON and safetensors, to hand on"),
    "results compare": ("compare", "compare samplers of several result files with one of them"),
    "results rank": ("rank", "rank samplers and methods from result files, as Markdown"),
    "results plot": ("plot", "draw reward curves, beside what samplers reach on held-out seeds"),
    "results policy": ("policy", "draw what samplers do, round by round"),
    "results replay": ("replay", "play result lines again and check every number"),
    "results import": ("import_lines", "bring result lines into a store, of which tables read columns"),
    "results export": ("export_lines", "write the lines of a store again as JSON lines"),
    "results keep": ("keep", "compress a run's lines into a folder of results, with an entry of its manifest"),
    "results index": ("index", "check a folder of results, and write its table of experiments"),
}
#: Shells that there is a completion for.
SHELLS = ("bash", "zsh", "fish")
COMPLETION = 'Completion in bash: eval "$(ssdkd --print-completion bash)"; there is one for zsh and for fish, too.'


def main(words: Sequence[str] | None = None) -> None:
    """Run the subcommand that a command line (`sys.argv` where none is given) begins with.

    Exit codes: those of the subcommand; 0 for `--help`, `--version` and `--print-completion SHELL`; 2 for no or an
    unknown subcommand.
    """
    given = list(sys.argv[1:] if words is None else words)
    outlive_readers()
    for length in (1, 2):
        found = COMMANDS.get(" ".join(given[:length]))
        if found is not None and len(given) >= length:
            with one_line_for_the_user():  # of a package that only some commands need
                command = importlib.import_module(f"ssdkd_agents.commands.{found[0]}")
            command.run(given[length:])
            return
    if given == ["--version"]:
        print(f"ssdkd-env {__version__}")
        return
    if given[:1] == ["--print-completion"]:
        with one_line_for_the_user():
            complete(given[1:])
        return
    asks = any(word in HELP for word in given)
    wanted = " ".join(word for word in given if not word.startswith("-"))
    if asks and wanted.split()[:1] != ["results"]:
        wanted = ""
    if wanted and not any(name.startswith(f"{wanted} ") for name in COMMANDS):
        print(f"error: {wanted!r} is no subcommand of ssdkd; see ssdkd --help", file=sys.stderr)
        sys.exit(2)
    print(usage(wanted), file=sys.stdout if asks else sys.stderr)
    if not asks:
        sys.exit(2)


def complete(shells: Sequence[str]) -> None:
    """Print the completion script of a shell.

    Raises:
        InvalidInputError: when there is none for it.
    """
    if len(shells) != 1 or shells[0] not in SHELLS:
        given = " ".join(shells) or "nothing"
        raise InvalidInputError(f"--print-completion: expected one of {', '.join(SHELLS)}, not {given}")
    completion = importlib.import_module("ssdkd_agents.commands.completion")
    completion.print_completion(shells[0], {name: module for name, (module, _) in COMMANDS.items()})


def usage(group: str = "") -> str:
    """What there is to choose from, all or in one group."""
    lines = [f"  ssdkd {name:<17} {about}" for name, (_, about) in COMMANDS.items() if name.startswith(group)]
    return "\n".join(["Each explains itself with --help:", *lines, "", COMPLETION])
