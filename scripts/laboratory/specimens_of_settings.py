"""What settings and samplers of a stranger may hold."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssdkd_agents.policies.places import find_sampler_file

from laboratory.specimens import (
    DEEP,
    ESCAPES,
    HUGE,
    SAFETENSORS,
    STRANGER,
    Make,
    Specimen,
    Words,
    changed,
    evaluate,
    holding,
    pipe,
    put,
    replaced,
)
from ssdkd_env.files import load_state, save_state

#: What changes one entry of a settings file, by what it holds: names that would be imported, absurd numbers, text that
#: acts on a terminal, and values of other types. Environment's entries lie below env_kwargs, if anywhere.
SETTINGS: dict[str, tuple[str, Any]] = {
    "a module in env_id": ("env_id", "antigravity:Env-v0"),
    "an import path in env_kwargs": ("env_kwargs.student_arch", STRANGER),
    "a data set of the network in env_kwargs": ("env_kwargs.evaluation", "hub:stranger/images"),
    "escapes in env_id": ("env_id", ESCAPES),
    "a list as env_kwargs": ("env_kwargs", [1, 2]),
    "an object as env_id": ("env_id", {"a": 1}),
}
#: Names in other spellings, which a careless reader imports or fetches all the same.
SPELLINGS: dict[str, tuple[str, Any]] = {
    "an import path without a name": ("env_kwargs.student_arch", "stranger:"),
    "an import path with a number": ("env_kwargs.student_arch", "stranger:1"),
    "an import path with a line break": ("env_kwargs.student_arch", "stranger:net\n"),
    "an import path as method, without a name": ("env_kwargs.method", "stranger:"),
    "a module in env_id, with a number": ("env_id", "antigravity:1Env-v0"),
    "a module in env_id, with a line break": ("env_id", "antigravity:Env-v0\n"),
    "a data set of the network that begins with a number": ("env_kwargs.evaluation", "hub:1stranger/images"),
}
_OF_SAMPLERS: dict[str, tuple[str, Any]] = {
    "a module as algorithm": ("algorithm", "stranger:Algorithm"),
    "escapes as algorithm": ("algorithm", ESCAPES),
    "a module as policy": ("hyperparameters.policy", "stranger:Policy"),
    "a network of a billion": ("hyperparameters.policy_kwargs.net_arch", [HUGE, HUGE]),
    "a network of many layers": ("hyperparameters.policy_kwargs.net_arch", [32] * 100_000),
    "a rollout of a billion steps": ("hyperparameters.n_steps", HUGE),
    "minibatches of a billion": ("hyperparameters.batch_size", HUGE),
    "text as hyper-parameters": ("hyperparameters", "many"),
}
_OF_FACES: dict[str, tuple[str, Any]] = {
    "an import path as action scheme": ("face.action", "stranger:scheme"),
    "an observation of a billion steps": ("face.history", HUGE),
    "a history of text": ("face.history", "long"),
    "a step of a billion rounds": ("face.rounds_per_step", HUGE),
    "a list as face": ("face", [1]),
    "an unknown setting as face": ("face", {"stranger": 1}),
    "numbers as names": ("names", 7),
    "text as normalisation": ("normalization", "none"),
    "a mean of other shape": ("normalization", {"observation": {"mean": [[1.0]], "var": "x", "count": 1.0}}),
}


def of_settings() -> Iterator[Specimen]:
    """All of them."""
    for table in (_samplers, _exported, _plans, _runs):
        yield from table()


def _samplers() -> Iterator[Specimen]:
    """Checkpoints of agents."""
    below = {name: (f"config.{path}", value) for name, (path, value) in (SETTINGS | _OF_SAMPLERS).items()}
    below |= {
        "a list as config": ("config", []),
        "text as counters": ("counters", "x"),
        "no parameters": ("parameters", 0),
    }
    for holds, (path, value) in (below | _OF_FACES).items():

        def make(runs: Mapping[str, Path], folder: Path, path: str = path, value: Any = value) -> list[str]:
            state = load_state(find_sampler_file(runs["train"]))
            save_state(folder / "s.safetensors", put(state, path, value))
            return evaluate(folder / "s.safetensors")

        yield Specimen("sampler", holds, make)
    for holds, content in SAFETENSORS.items():
        yield Specimen("sampler", holds, holding("s.safetensors", content, evaluate))
    yield Specimen("sampler", "a named pipe", pipe("s.safetensors", evaluate))


def _exported() -> Iterator[Specimen]:
    """Folders with sampler.json and policy.safetensors."""
    for holds, (path, value) in (SETTINGS | _OF_SAMPLERS | _OF_FACES).items():
        yield Specimen("exported sampler", holds, changed("export", "sampler.json", path, value, evaluate))
    raws = {"settings without end": DEEP.encode(), "settings of 3 MB": b'{"a": "' + b"x" * 3_000_000 + b'"}'}
    for holds, content in raws.items():
        yield Specimen("exported sampler", holds, replaced("export", "sampler.json", content, evaluate))
    yield Specimen("exported sampler", "settings that are a pipe", replaced("export", "sampler.json", None, evaluate))
    yield Specimen(
        "exported sampler", "tensors that are a pipe", replaced("export", "policy.safetensors", None, evaluate)
    )


def _plans() -> Iterator[Specimen]:
    """What a search leaves."""
    changes = SETTINGS | {
        "a module as family": ("family", "stranger:Family"),
        "a million numbers as action": ("action", [0.5] * 1_000_000),
        "text as action": ("action", "left"),
        "no number as action": ("action", [math.nan] * 5),
        "escapes as action names": ("action_names", [ESCAPES]),
        "an unknown face": ("face", {"history": HUGE}),
    }
    for holds, (path, value) in changes.items():
        kind, name = "search", "constant.json"
        if path == "face":
            yield Specimen("plan", holds, _linear(value))
        else:
            yield Specimen(
                "plan", holds, changed(kind, name, path, value, lambda copy: evaluate(copy / "constant.json"))
            )
    yield Specimen("plan", "nesting without end", holding("constant.json", DEEP.encode(), evaluate))
    yield Specimen("plan", "a named pipe", pipe("constant.json", evaluate))


def _linear(face: Mapping[str, Any]) -> Make:
    """A plan that reads observations, with another face."""

    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        plan = json.loads((runs["search"] / "constant.json").read_text()) | {"family": "linear"}
        (folder / "constant.json").write_text(json.dumps(plan | {"face": {**plan["face"], **face}}))
        return evaluate(folder / "constant.json")

    return make


def _runs() -> Iterator[Specimen]:
    """Folders of runs, resumed."""

    def resume(kind: str) -> Words:
        def words(copy: Path) -> list[str]:
            (copy / "outcome.json").unlink(missing_ok=True)
            return [kind, "--out", str(copy), "--resume"]

        return words

    def longer(copy: Path) -> list[str]:
        return [*resume("train")(copy), "--timesteps", "24"]

    paths = {"train": "", "search": "", "benchmark": "plan."}
    for kind, below in paths.items():
        for holds, (path, value) in (SETTINGS | (SPELLINGS if kind == "train" else {})).items():
            yield Specimen(f"{kind} run", holds, changed(kind, "config.json", below + path, value, resume(kind)))
    for kind, holds, path, value in (
        ("train", "a rollout of a billion steps", "hyperparameters.n_steps", HUGE),
        ("train", "a billion environments", "hyperparameters.n_envs", HUGE),
        ("train", "text as a number", "timesteps", "many"),
        ("train", "a list as hyper-parameters", "hyperparameters", [1]),
        ("train", "a machine of text", "versions", "all"),
        ("search", "a module as searcher", "searcher", "stranger:Searcher"),
        ("search", "text as a number", "episodes", "many"),
        ("search", "a population of a billion", "population", HUGE),
        ("benchmark", "a module as method", "plan.entries.0.method", "stranger:Method"),
        ("benchmark", "a billion seeds", "plan.seeds", HUGE),
        ("benchmark", "numbers as entries", "plan.entries", 3),
        ("distill", "an import path as network", "student_arch", STRANGER),
        ("distill", "a data set of the network", "evaluation", "hub:stranger/images"),
        ("distill", "a list as budget", "budget", [3]),
        ("distill", "a billion candidates", "budget.candidates", HUGE),
        ("distill", "text as seed", "seed", "many"),
        ("teacher", "an import path as network", "teacher_arch", STRANGER),
        ("teacher", "text as settings", "settings", "all"),
        ("teacher", "text as epochs", "settings.epochs", "many"),
    ):
        yield Specimen(f"{kind} run", holds, changed(kind, "config.json", path, value, resume(kind)))
    for kind in ("train", "search", "benchmark", "distill", "teacher"):
        yield Specimen(f"{kind} run", "nesting without end", replaced(kind, "config.json", DEEP.encode(), resume(kind)))
    yield Specimen("train run", "a named pipe", replaced("train", "config.json", None, resume("train")))
    for name in ("episodes.jsonl", "machine.json"):
        yield Specimen("train run", f"a named pipe as {name}", replaced("train", name, None, longer))
    yield Specimen("train run", "a link out of the folder", _linked)
    manifest = "checkpoints/12.manifest.json"
    for holds, path, value in (
        ("a list as manifest", "", [1]),
        ("text as parts", "parts", "all"),
        ("a part outside the folder", "parts", {"../../etc/passwd": "0" * 64}),
    ):
        yield Specimen(
            "train run",
            f"{holds}, the one before it is sound",
            changed("train", manifest, path, value, resume("train")),
        )
    yield Specimen(
        "search run",
        "lines of text",
        replaced(
            "search",
            "episodes.jsonl",
            b'{"timesteps": "x", "return": "y", "seconds": [], "action": 3, "seed": {}}\n',
            resume("search"),
        ),
    )
    yield Specimen(
        "train run",
        "lines of text, drawn",
        replaced("train", "episodes.jsonl", b'{"timesteps": "x", "return": []}\n', _draw),
    )


def _linked(runs: Mapping[str, Path], folder: Path) -> list[str]:
    shutil.copytree(runs["train"], folder / "run")
    (folder / "run" / "outcome.json").unlink()
    (folder / "run" / "more").symlink_to("/tmp")
    return ["train", "--out", str(folder / "run"), "--resume"]


def _draw(run: Path) -> list[str]:
    return ["results", "plot", "--runs", str(run), "--out", str(run / "curve.png")]
