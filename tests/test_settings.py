"""Overrides of frozen settings."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ssdkd_env.distillation import METHODS, StudentSettings, make_method
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.settings import check_seed, essence, is_finite_number, is_whole, plain, with_overrides


@dataclass(frozen=True)
class Settings:
    rounds: int = 3
    rate: float = 0.5
    masked: bool = True
    label: str = "a"
    widths: tuple[int, ...] = (1, 2)


def test_no_overrides_give_the_same_object() -> None:
    settings = Settings()
    assert with_overrides(settings, "budget", None) is settings
    assert with_overrides(settings, "budget", {}) is settings


def test_overrides_replace_fields_and_leave_the_original() -> None:
    settings = Settings()
    changed = with_overrides(settings, "budget", {"rounds": 7, "masked": False, "label": "b"})
    assert changed == Settings(rounds=7, masked=False, label="b")
    assert settings == Settings()


def test_whole_numbers_serve_as_floats_and_lists_as_tuples() -> None:
    changed = with_overrides(Settings(), "budget", {"rate": 2, "widths": [4, 5]})
    assert (changed.rate, type(changed.rate), changed.widths) == (2.0, float, (4, 5))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 2.0),
        ("rounds", "2"),
        ("rounds", True),
        ("rounds", None),
        ("rate", "0.1"),
        ("rate", True),
        ("rate", math.nan),
        ("rate", math.inf),
        ("masked", 1),
        ("label", 3),
        ("widths", 3),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as error:
        with_overrides(Settings(), "budget", {name: value})
    assert str(error.value).startswith(f"budget[{name!r}]=")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", np.int64(7)),
        ("rounds", np.uint8(7)),
        ("rate", np.float32(0.25)),
        ("rate", np.float64(0.25)),
        ("rate", np.int16(2)),
        ("rate", np.longdouble(0.25)),
        ("masked", np.bool_(False)),
        ("label", np.str_("b")),
        ("widths", np.array([3, 4])),
        ("widths", [np.int64(3), 4]),
    ],
)
def test_numpys_values_are_the_numbers_that_they_are(name: str, value: Any) -> None:
    changed = getattr(with_overrides(Settings(), "budget", {name: value}), name)
    assert type(changed) is type(getattr(Settings(), name))
    assert changed == (tuple(value) if name == "widths" else value)
    assert all(type(item) is int for item in changed) if name == "widths" else True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", np.float64(3.0)),
        ("rounds", np.bool_(True)),
        ("rate", np.bool_(True)),
        ("rate", np.float32(math.nan)),
        ("rate", 10**400),
        ("masked", np.int64(1)),
    ],
)
def test_numpys_values_of_another_kind_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(f"budget[{name!r}]=")):
        with_overrides(Settings(), "budget", {name: value})


@pytest.mark.parametrize("value", [1e31, -1e31, 1.7e308])
def test_numbers_that_no_network_computes_with_are_refused(value: float) -> None:
    with pytest.raises(
        InvalidInputError, match=re.escape(f"budget['rate']={value}: expected a finite number of at most")
    ):
        with_overrides(Settings(), "budget", {"rate": value})
    assert with_overrides(Settings(), "budget", {"rate": 1e30}).rate == 1e30


def test_plain_values_are_pythons_wherever_they_lie() -> None:
    given = {np.str_("a"): [np.int64(1), (np.float32(0.5), np.bool_(True))], "b": np.array([[1, 2]]), "c": None}
    made = plain(given)
    assert repr(made) == "{'a': [1, (0.5, True)], 'b': [[1, 2]], 'c': None}"
    assert plain(settings := Settings()) is settings


def test_truth_values_are_no_numbers() -> None:
    assert [is_whole(value) for value in (3, True, 3.0, "3")] == [True, False, False, False]
    assert [is_finite_number(value) for value in (3, 0.5, True, math.inf, math.nan, 10**400, "3")] == [
        *(True, True, False, False, False, False, False)
    ]


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(5), np.uint64(2**63 - 1)])
def test_seeds_are_whole_numbers(seed: Any) -> None:
    assert (check_seed("seed", seed), type(check_seed("seed", seed))) == (int(seed), int)


@pytest.mark.parametrize("seed", [-1, 2**63, np.int64(-1), np.uint64(2**63), True, np.bool_(False), 1.0, "1", None])
def test_other_seeds_are_refused_with_the_range(seed: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"first_seed=.*from 0 to 2\*\*63 - 1"):
        check_seed("first_seed", seed)


def test_an_unknown_setting_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"'round'.*label, masked, rate, rounds, widths"):
        with_overrides(Settings(), "budget", {"round": 3})


def test_the_error_is_a_value_error_in_one_line() -> None:
    with pytest.raises(ValueError, match="student") as error:
        with_overrides(StudentSettings(), "student", {"lr": "fast"})
    assert "\n" not in str(error.value)


def test_every_method_is_filed_under_its_name() -> None:
    for name, method in METHODS.items():
        assert make_method(name) == method
        assert method.name == name
        assert method.source


def test_methods_take_options_by_name() -> None:
    changed = make_method("ssdkd", {"temperature": 4, "modulate_diversity": False})
    assert (changed.temperature, changed.modulate_diversity) == (4.0, False)
    assert make_method("ssdkd").modulate_diversity
    with pytest.raises(InvalidInputError, match="method_options"):
        make_method("ssdkd", {"temprature": 4.0})
    with pytest.raises(InvalidInputError, match=r"method='sskd'.*ssdkd"):
        make_method("sskd")


def test_check_choice_returns_a_known_value_and_lists_the_choices() -> None:
    assert check_choice("task", "b", ["a", "b"]) == "b"
    with pytest.raises(InvalidInputError, match=r"task='c'.*a, b"):
        check_choice("task", "c", ["b", "a"])


# --- keys ---


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    options: dict[str, int] = field(default_factory=dict)
    shape: tuple[int, ...] = (1, 2)


def test_a_key_leaves_out_what_has_its_default() -> None:
    assert essence(Outer("a")) == ("Outer", [("name", "a")])
    assert essence(Outer("a", Inner(1), {}, (1, 2))) == essence(Outer("a"))
    assert essence(Outer("a", Inner(2), {"b": 1, "a": 2})) == (
        "Outer",
        [("name", "a"), ("inner", ("Inner", [("size", 2)])), ("options", [("a", 2), ("b", 1)])],
    )
    assert essence((Inner(), [Inner(3), None])) == [("Inner", []), [("Inner", [("size", 3)]), None]]


def test_every_other_value_changes_it() -> None:
    made = [Outer("a"), Outer("b"), Outer("a", Inner(0)), Outer("a", options={"x": 1}), Outer("a", shape=(2, 1))]
    assert len({repr(essence(each)) for each in made}) == len(made)
