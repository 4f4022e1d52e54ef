"""Schemas of what commands leave and read again: lines, settings of runs, samplers. See `ssdkd_env.reading`.

A `TypedDict` names what its readers use; whatever else is there is kept and not looked at.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, TypedDict, TypeVar

from msgspec import Meta

from ssdkd_env.envs.settings import EnvArguments
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import Count, Seed, Text, check_bounds, conform
from ssdkd_env.registry import refuse_imports

ConfigT = TypeVar("ConfigT")

#: Names that appear in tables, pictures and on terminals: without characters that act on any of them.
Name = Annotated[
    str,
    Meta(max_length=1_000, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]*\Z"),
]
#: Ids of environments, perhaps with a module before them.
EnvId = Annotated[str, Meta(max_length=300, pattern=r"\A([A-Za-z0-9_.]+:)?([A-Za-z0-9_.-]+/)?[A-Za-z0-9_.-]*\Z")]
#: A score as it is written where it is none: null, or NaN.
Score = float | None

#: A plan as numbers, one an entry, or as the number of a named one.
Numbers = Annotated[list[float], Meta(min_length=1, max_length=10_000)] | int
#: Heights of a histogram.
Bins = Annotated[list[Annotated[float, Meta(ge=0)]], Meta(max_length=100_000)]

# ---- lines ----------------------------------------------------------------------------------------------------------

_Episode = TypedDict("_Episode", {"timesteps": Count, "return": float})


class EpisodeLine(_Episode, total=False):
    """An episode of a training."""

    rounds: Count


_Searched = TypedDict("_Searched", {"timesteps": Count, "return": float, "seconds": float, "action": Any, "seed": Seed})


class SearchLine(_Searched, total=False):
    """An episode of a search."""

    instance: Count


class StepsLine(TypedDict):
    """Any line of a training."""

    timesteps: Count


class ValidationLine(TypedDict):
    """A validation of a training."""

    timesteps: Count
    returns: list[float]


class MeanLine(TypedDict):
    """A validation, of which the mean is wanted."""

    timesteps: Count
    mean_return: float


class ValidatedPlan(MeanLine):
    """A validation of a search."""

    action: Numbers


class EpochLine(TypedDict):
    """A measurement of a teacher in training."""

    epoch: Count


class TrialLine(TypedDict):
    """A trial of a study."""

    number: Count
    state: Name
    value: Score
    params: dict[str, Any]
    values: dict[str, float]
    error: str


class Outcome(TypedDict):
    """`outcome.json`: how a training ended."""

    outcome: Name


class BestTrial(TypedDict):
    """The best one of a study."""

    number: Count
    value: float
    hyperparameters: dict[str, Any]


class Decided(TypedDict):
    """A plan in a trace of actions; see `samplers.write_decision`."""

    action: Numbers
    scored: bool


class Machine(TypedDict, total=False):
    """What a line was played on."""

    torch_threads: Annotated[int, Meta(ge=1, le=4_096)]


class Distributions(TypedDict):
    """What was synthesised: how many images of each class, and of each difficulty."""

    class_counts: Bins
    difficulty: Bins


class Precision(TypedDict):
    """What a line was played with."""

    name: Name


class Final(TypedDict, total=False):
    """The last info of an episode, as far as tables take something of it."""

    probe_agreement: Score
    probe_discrepancy: Score
    accuracy: Score
    mean_iou: Score
    round: Count
    diverged: bool


_Result = TypedDict(
    "_Result",
    {
        "env_id": EnvId,
        "sampler": Name,
        "seed": Seed,
        "env_kwargs": EnvArguments,
        "return": float,
        "final": Final,
        "actions": list[Numbers | Decided],
    },
)


class ResultLine(_Result, total=False):
    """What an episode has given."""

    instance: Count | None
    label: Name
    group: Name
    held_out_accuracy: Score
    sampler_digest: Text | None
    inputs: dict[Text, Text]
    curve: dict[str, list[Score]]
    seconds: dict[str, float] | float
    machine: Machine
    precision: Precision
    versions: dict[str, Name]
    vectorization: Name
    distributions: Distributions


class MachineInWords(TypedDict):
    """What a table says of the machine."""

    cpu: Name
    cores: Count
    system: Name
    device: Name
    torch_threads: Count


class Finished(TypedDict):
    """What a table takes of the last info."""

    probe_agreement: Score
    synthesized: Count
    diverged: bool


class BenchmarkLine(TypedDict):
    """What a benchmark's table and pictures need of a line beside what every result has."""

    label: Name
    final: Finished
    curve: dict[str, list[Score]]
    seconds: dict[str, float]
    distributions: Distributions
    peak_memory_mib: float
    machine: MachineInWords
    versions: dict[str, Name]


# ---- samplers -------------------------------------------------------------------------------------------------------


class _Sampler(TypedDict):
    algorithm: Name
    hyperparameters: dict[str, Any]
    env_id: EnvId


class SamplerConfig(_Sampler, total=False):
    """How a sampler was made."""

    env_kwargs: EnvArguments


class Entries(TypedDict):
    """Names of what a sampler sees and does."""

    observation: list[Name]
    action: list[Name]


class SamplerState(TypedDict):
    """A checkpoint of an agent; see `policies.storage`."""

    config: SamplerConfig
    names: Entries
    face: EnvArguments
    counters: dict[str, Annotated[float, Meta(ge=0, le=2**53)]]
    parameters: dict[str, Any]
    variables: dict[str, Any]
    normalization: dict[str, Any] | None
    replay: dict[str, Any] | None


class LoopState(TypedDict):
    """What a training's loop holds beside the agent; see `training.loop_state`."""

    counters: dict[str, float]
    last: dict[str, Any]
    monitor: Annotated[list[Any], Meta(min_length=2, max_length=2)]
    episodes: list[dict[str, float]]
    noise: list[Any]
    pending: dict[str, tuple[float, Count, list[Name]]]
    random: dict[str, Any]


class TrainingState(TypedDict):
    """A checkpoint of a training; see `training.checkpoints`."""

    loop: LoopState
    progress: dict[str, Any]


class ExportedSettings(SamplerConfig):
    """`sampler.json`; see `policies.exported`."""

    names: Entries
    face: EnvArguments
    normalization: dict[str, Any] | None


class _Plan(TypedDict):
    action: Numbers
    action_names: list[Name]
    env_kwargs: EnvArguments


class FoundPlan(_Plan, total=False):
    """`constant.json`, which a search leaves."""

    family: Name
    env_id: EnvId
    face: EnvArguments
    observation_names: list[Name]


# ---- settings of runs -----------------------------------------------------------------------------------------------


class RunConfig(TypedDict, total=False):
    """What every run's `config.json` has."""

    run: Name
    inputs: dict[Text, Text]
    versions: dict[str, Name]
    env_id: EnvId | None
    env_kwargs: EnvArguments | None


class DistilledRun(TypedDict):
    """What a distillation's has beside the arguments of its environment."""

    sampler: Name
    seed: Seed


def config_of(config: dict[str, Any], schema: type[ConfigT], where: object, maker: str) -> ConfigT:
    """A run's settings as the dataclass that its command made them from; what is left out has its default.

    Args:
        config: of `RunFolder`.
        schema: the dataclass.
        where: the run, for error messages.
        maker: the command that makes such runs.

    Raises:
        InvalidInputError: when there are settings of another command, or values that do not fit.
    """
    known = {each.name for each in fields(schema)}  # type: ignore[arg-type]
    settings = {name: value for name, value in config.items() if name != "versions"}
    if not settings.keys() <= known:
        raise InvalidInputError(f"{where} was not made by {maker}; give the folder of such a run")
    check_bounds(settings, where)
    return conform(settings, schema, where, f"give the folder of a run of {maker}, or start anew")


def check_settings_of(content: Any, where: object) -> None:
    """Refuse settings out of a file that would import or fetch something, or have lists or text beyond all bounds.

    Raises:
        InvalidInputError: at the first of them.
    """
    refuse_imports(where, content)
    check_bounds(content, where)
