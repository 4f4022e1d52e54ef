"""Constants of a method belong to a task: the preset's, the task's own, and the user's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import pytest

from ssdkd_env.distillation.methods import METHODS, make_method
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import TASKS, load_task
from ssdkd_env.tasks.cifar import CIFAR10, CIFAR100
from ssdkd_env.tasks.digits import DIGITS

#: Of SSD-KD's inversion; what is known of the paper is said elsewhere.
CONSTANTS = (
    "generator_lr",
    "latent_lr",
    "first_layer_reset",
    "bn_weight",
    "statistics_momentum",
    "one_hot_weight",
    "adversarial_weight",
)


@pytest.fixture(autouse=True)
def _forget_tasks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TASKS, "_entries", dict(TASKS))
        yield


def register_mine(methods: Any) -> None:
    TASKS.register("mine", replace(DIGITS, name="mine", methods=methods))


def values(method: Any) -> tuple[float, ...]:
    return tuple(getattr(method, name) for name in CONSTANTS)


def test_digits_has_the_constants_that_were_chosen_on_digits() -> None:
    assert values(load_task("digits").make_method("ssdkd")) == (4e-3, 1e-2, 0.0, 1.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("spec", [CIFAR10, CIFAR100])
def test_cifar_has_those_of_fast_whose_loop_it_is(spec: Any) -> None:
    own = make_method("ssdkd", None, spec.methods)
    assert values(own) == values(METHODS["fast5"]) == (3e-3, 1e-2, 0.6, 10.0, 0.9, 0.5, 1.33)
    assert own.steps == 0
    assert spec.budget.inversion_steps == METHODS["fast5"].steps


def test_other_methods_have_their_authors_constants_on_digits_too() -> None:
    task = load_task("digits")
    for name, preset in METHODS.items():
        if name != "ssdkd":
            assert task.make_method(name) == preset


def test_a_task_of_ones_own_has_its_own_and_the_user_prevails() -> None:
    register_mine({"ssdkd": {"gamma": 2.0, "bn_weight": 3}, "nayer": {"steps": 7}})
    env = gymnasium.make("SSDKD/Digits-v2", task="mine", method_options={"gamma": 0.5}).unwrapped
    assert isinstance(env, SSDKDEnv)
    assert (env.method.gamma, env.method.bn_weight) == (0.5, 3.0)
    assert env.method == replace(METHODS["ssdkd"], gamma=0.5, bn_weight=3.0)
    assert load_task("mine").make_method("nayer").steps == 7
    assert load_task("digits").make_method("ssdkd").gamma == 1.0


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"ssd": {"gamma": 2.0}}, r"task 'mine': methods='ssd' is unknown; choose one of: cmi, "),
        ({"ssdkd": {"lambda_bn": 2.0}}, r"task 'mine': methods\['ssdkd'\] has no setting 'lambda_bn'; choose among: "),
        ({"ssdkd": {"gamma": "2"}}, r"task 'mine': methods\['ssdkd'\]\['gamma'\]='2': expected float"),
        ({"ssdkd": {"gamma": -1.0}}, r"task 'mine': .*'gamma'\]=-1.0: expected a number ≥ 0"),
        ({"ssdkd": {"importance_normalization": "max"}}, r"task 'mine': .*='max' is unknown; choose one of: maximum"),
        ({"ssdkd": 3}, r"task 'mine': methods\['ssdkd'\]=3: expected a mapping of settings"),
        (["ssdkd"], r"task 'mine': methods=\['ssdkd'\]: expected settings by the name of a method"),
    ],
)
def test_what_no_method_knows_is_refused_in_one_line(methods: Any, message: str) -> None:
    register_mine(methods)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_task("mine")
    assert "\n" not in str(caught.value)


def test_users_of_a_task_are_told_apart_from_its_author() -> None:
    """A setting that the user gives wrongly is the user's argument, not the task's."""
    with pytest.raises(InvalidInputError, match=r"^method_options has no setting 'lambda_bn'"):
        load_task("digits").make_method("ssdkd", {"lambda_bn": 1.0})
