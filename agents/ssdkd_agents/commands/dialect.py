"""The one dialect: what an environment is made of has the same names in Python, on command lines and in files.

`gymnasium.make(ID, evaluate_every_rounds=12, budget={"rounds": 40})` is
`--env-id ID --env.evaluate-every-rounds 12 --env.budget.rounds 40`, and `{"evaluate_every_rounds": 12,
"budget": {"rounds": 40}}` in `config.json` and result lines. A command whose whole purpose is one environment has the
same names without `env.` before them.

What is parsed is made of the frozen dataclasses of the settings themselves: a field of theirs is an option, and its
help is the first sentence of their docstring's `Attributes`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any, TypeAlias, get_type_hints

import tyro

from ssdkd_agents.commands.given import Given
from ssdkd_agents.inputs import absolute
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.problem import Budget
from ssdkd_env.distillation.student import StudentSettings
from ssdkd_env.envs.settings import EnvSettings
from ssdkd_env.tasks.probe_settings import ProbeSettings

#: Settings of an environment that are mappings → what they replace fields of. A method's come last: they are many.
NESTED: dict[str, type] = {
    "budget": Budget,
    "student": StudentSettings,
    "probe": ProbeSettings,
    "method_options": Method,
}
#: Arguments that may name files and folders.
PATHS = ("teacher", "evaluation", "data_root")
#: All arguments of an environment, by name.
ARGUMENTS = tuple(setting.name for setting in fields(EnvSettings))
#: Fields that describe a preset and are no settings.
_NO_SETTINGS = ("name", "source")


class GivenOfEnvironment(Given):
    """Arguments of an environment, whose files are named so that a record of them means the same from any folder."""

    def settings(self) -> dict[str, Any]:
        """Only what was given, with absolute paths."""
        given = super().settings()
        return given | {name: absolute(given[name]) for name in PATHS if name in given}


def first_sentences(settings: type) -> dict[str, str]:
    """Name → the first sentence that the `Attributes` of a docstring say of it, without quotation marks."""
    section = (inspect.getdoc(settings) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    ([\w, ]+): (.+(?:\n {5,}.+)*)", section, re.MULTILINE)
    said = {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
    plain = {name: re.sub(r'`|(?<!\[)"(?!\])', "", text) for name, text in said.items()}
    return {name: re.split(r"\.(?: |$)", text)[0] for name, text in plain.items()}


def make_options(settings: type, names: Iterable[str], about: str, more: Iterable[Any] = ()) -> type[Given]:
    """A class to parse options into, each of which may be left out.

    Args:
        settings: the frozen dataclass that they are fields of.
        names: of the fields.
        about: what `--help` says of all of them.
        more: further fields, as `make_dataclass` takes them.
    """
    types, sentences = get_type_hints(settings), first_sentences(settings)
    options = [(name, _option(types[name], sentences[name], _default(settings, name)), None) for name in names]
    base = GivenOfEnvironment if settings is EnvSettings else Given
    made = make_dataclass(f"{settings.__name__}Given", [*options, *more], bases=(base,), frozen=True)
    made.__doc__ = about
    return made


def _option(kind: Any, help_text: str, default: str = "") -> Any:
    """The type of an option that may be left out."""
    return Annotated[kind | None, tyro.conf.DisallowNone, tyro.conf.arg(help=help_text, help_behavior_hint=default)]


def _default(settings: type, name: str) -> str:
    """What `--help` says of a default, where it is neither a task's nor a preset's matter."""
    default = getattr(settings, name, None)
    return f"(default: {default})" if settings is EnvSettings and default is not None else ""


def make_nested(name: str) -> type[Given]:
    """The class of what one argument of an environment replaces."""
    settings = NESTED[name]
    names = [setting.name for setting in fields(settings) if setting.name not in _NO_SETTINGS]
    preset = ("preset", _option(str, "another budget of the task by its name, such as cpu for CIFAR"), None)
    return make_options(settings, names, first_sentences(EnvSettings)[name], [preset] if settings is Budget else [])


def make_env_options(names: Collection[str], about: str = "", prefix: str = "--") -> type[Given]:
    """The class of some of an environment's arguments.

    Args:
        names: of the arguments.
        about: what `--help` says of them.
        prefix: of the options.
    """
    nested = {name: make_nested(name) for name in NESTED if name in names}
    groups = [(name, kind, field(default_factory=kind)) for name, kind in nested.items()]
    made = make_options(EnvSettings, [name for name in names if name not in NESTED], about, groups)
    made.prefix = prefix
    return made


_ABOUT = "Arguments of the environment. What is not given is as its id, task or method says."
_MORE = (
    " Parts of budget, student, probe and method_options stand behind a further dot, such as --env.budget.rounds 40 "
    "--env.probe.steps 5 --env.method-options.gamma 2: ssdkd distill --help has all of them, without env before them."
)
#: The arguments of an environment that has an id; the options begin with `--env.`.
ENV = make_env_options(ARGUMENTS, _ABOUT, "--env.")
ENV.brief = make_env_options([name for name in ARGUMENTS if name not in NESTED], _ABOUT + _MORE, "--env.")
EnvOptions: TypeAlias = Annotated[Given, tyro.conf.arg(constructor=ENV)]
