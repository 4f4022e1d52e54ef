"""Which instance an episode plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssdkd_env.distillation import Method
from ssdkd_env.distillation.costs import allowance_of
from ssdkd_env.envs.actions import check_work
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.settings import is_whole, plain
from ssdkd_env.tasks import Instance, Task, find_instances, load_task
from ssdkd_env.tasks.instances import CHOSEN

#: What a reset may be told; the mask is the vector environment's, which tells its members all that it is told.
OPTIONS = ("instance", "reset_mask")


class InstanceDraw:
    """Draws the instances of a set; without a set there is one, the task as the arguments make it.

    All of them are made here, so that none is refused in the middle of a training.

    Args:
        name: of the instance set; None for none.
        fixed: arguments of `load_task` that all instances share.

    Attributes:
        name: of the set.
        members: its instances; without a set the one that chooses nothing.
        tasks: of each instance; those with the same teacher share it.
        index: number of the instance that is played.

    Raises:
        InvalidInputError: when there is no such set, an argument is given that its instances choose, or a task cannot
            be made.
    """

    def __init__(self, name: str | None, fixed: Mapping[str, Any]) -> None:
        self.name = name
        self.index = 0
        self.members = (Instance(),) if name is None else find_instances(name, str(fixed["task"]))
        _refuse_conflicts(name, self.members, fixed)
        self.tasks = [self._make(number, instance, fixed) for number, instance in enumerate(self.members)]

    def __len__(self) -> int:
        return len(self.tasks)

    def _make(self, number: int, instance: Instance, fixed: Mapping[str, Any]) -> Task:
        try:
            return load_task(**instance.over(fixed))
        except InvalidInputError as error:
            raise self._named(number, error) from error

    def _named(self, number: int, error: InvalidInputError) -> InvalidInputError:
        """The error with the instance that it is of, where there are several."""
        return error if self.name is None else InvalidInputError(f"instances={self.name!r}, number {number}: {error}")

    def check(self, action: str, method: Method) -> None:
        """Refuse at once what no run could begin with: work that is not there, or does not reach; missing real images.

        Args:
            action: scheme.
            method: that plays them.

        Raises:
            InvalidInputError: when it is so for one of the instances.
        """
        for number, task in enumerate(self.tasks):
            try:
                check_work(action, task.spec.budget)
                allowance_of(method, task)
            except InvalidInputError as error:
                raise self._named(number, error) from error

    def choose(self, random: np.random.Generator, options: Mapping[str, Any] | None) -> int:
        """Draw an instance, or take the one that `options["instance"]` names; returns its number.

        Raises:
            InvalidInputError: when there is no such instance; nothing has been drawn then.
        """
        wanted = self.wanted(options)
        if wanted is not None:
            return wanted
        # A single instance draws nothing, so that seeds mean the same with a set and without.
        return int(random.integers(len(self))) if len(self) > 1 else 0

    def wanted(self, options: Mapping[str, Any] | None) -> int | None:
        """The number of the instance that a reset's options ask for; None where it is to be drawn.

        Raises:
            InvalidInputError: when there is no such instance, or options of another name are given.
        """
        if not isinstance(options, Mapping | None):
            raise InvalidInputError(f"options={options!r}: expected a mapping, such as {{'instance': 0}}")
        for name in options or {}:
            if name not in OPTIONS:
                raise InvalidInputError(f"options has no {name!r}; choose among: {', '.join(OPTIONS)}")
        wanted = plain((options or {}).get("instance"))
        if wanted is None:
            return None
        if not is_whole(wanted) or not 0 <= wanted < len(self):
            raise InvalidInputError(f"options['instance']={wanted!r}: expected a number from 0 to {len(self) - 1}")
        return wanted


def _refuse_conflicts(name: str | None, instances: tuple[Instance, ...], fixed: Mapping[str, Any]) -> None:
    """Refuse what the user fixes and an instance would choose otherwise."""
    chosen = {argument for argument in CHOSEN if any(getattr(each, argument) is not None for each in instances)}
    budget = {setting for each in instances for setting in each.budget}
    given: dict[str, Any] = {argument: fixed[argument] for argument in chosen if fixed[argument] is not None}
    # Not in general: weights of one's own may need a network to be named for all of them.
    if any(each.teacher is None for each in instances) and "teacher" in chosen and fixed["teacher_arch"] is not None:
        given["teacher_arch"] = fixed["teacher_arch"]
    if "buffer_scale" in chosen:
        budget.add("buffer_capacity")
    if "work_scale" in chosen:
        budget.add("work")
    if "buffer_capacity" in budget and fixed["buffer_scale"] is not None:
        given["buffer_scale"] = fixed["buffer_scale"]
    if isinstance(fixed["budget"], Mapping):
        given |= {f"budget[{key!r}]": value for key, value in fixed["budget"].items() if key in budget}
    for argument, value in sorted(given.items()):
        raise InvalidInputError(f"{argument}={value!r}: the instances of {name!r} choose it; leave one of them out")
