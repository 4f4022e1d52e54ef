"""Overrides of frozen settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from ssdkd_env.distillation import METHODS, StudentSettings, make_method
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.settings import essence, with_overrides


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
