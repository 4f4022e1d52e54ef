"""Episodes out of files whose checksums are right and whose values are not: a line, and the environment stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state
from tests.envs.episodes import make, reset

DELETED = object()
#: What stands in place of a value.
OTHERS: dict[str, Any] = {
    "text": "x",
    "nothing": None,
    "a negative number": -7,
    "a list": [1, 2],
    "a mapping": {"a": 1},
    "a short tensor": torch.ones(3),
    "not there": DELETED,
}


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of nested mappings and lists, of long lists the first ones."""
    if here:
        yield here
    below = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, (list, tuple)) else ()
    )
    for key, item in below:
        yield from places(item, (*here, key))


def put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy in which another value is there, or none."""
    key, *rest = place
    items = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    if rest:
        items[key] = put(items[key], tuple(rest), new)
    elif new is DELETED:
        del items[key]
    else:
        items[key] = new
    return items if isinstance(value, dict) else list(items.values())


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    env = make()
    reset(env, 3)
    env.step(env.action_space.sample())
    path = tmp_path_factory.mktemp("states") / "saved"
    env.save(path)
    loaded: dict[str, Any] = load_state(path)
    return loaded


@pytest.mark.parametrize("other", OTHERS)
def test_any_value_of_another_kind_is_refused_or_harmless(other: str, state: dict[str, Any], tmp_path: Path) -> None:
    env, said = make(), []
    for place in places(state):
        save_state(tmp_path / "other", put(state, place, OTHERS[other]))
        try:
            env.load(tmp_path / "other")
        except InvalidInputError as error:
            said.append(str(error))
        else:
            env.step(env.action_space.sample())
    assert len(said) > 150
    assert all("\n" not in line and str(tmp_path / "other") in line for line in said)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("run", "inversion", "source", "optimizer", "state", 0, "exp_avg"), torch.ones(3)),
        (("run", "buffer", "size"), 10**12),
        (("run", "buffer", "images"), torch.zeros(1, dtype=torch.uint8)),
        (("run", "round"), float("nan")),
        (("frames",), [[0.5]]),
        (("np_random",), {}),
    ],
)
def test_what_does_not_fit_leaves_the_environment_as_it_was(
    place: tuple[Any, ...], value: Any, state: dict[str, Any], tmp_path: Path
) -> None:
    envs = make(), make()
    for env in envs:
        reset(env, 5)
    save_state(tmp_path / "other", put(state, place, value))
    with pytest.raises(InvalidInputError, match=r"other does not fit \(.+\); it is damaged; go on from an earlier one"):
        envs[0].load(tmp_path / "other")
    first, second = (env.step(np.zeros(len(env.action_names), dtype=np.float32)) for env in envs)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1:4] == second[1:4]
