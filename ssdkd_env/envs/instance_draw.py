"""Which instance an episode plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Instance, Task, find_instances, load_task


class InstanceDraw:
    """Draws the instances of a set; without a set there is one, the task as the arguments make it.

    Args:
        name: of the instance set; None for none.
        fixed: arguments of `load_task` that all instances share.

    Attributes:
        index: number of the instance that was chosen last.

    Raises:
        InvalidInputError: when there is no such set, or an argument is given that its instances choose.
    """

    def __init__(self, name: str | None, fixed: Mapping[str, Any]) -> None:
        self.name = name
        self.index = 0
        self._fixed = dict(fixed)
        self._instances: tuple[Instance, ...] = (
            (Instance(),) if name is None else find_instances(name, str(fixed["task"]))
        )
        for argument in ("teacher", "student_arch", "buffer_scale"):
            chosen = any(getattr(instance, argument) is not None for instance in self._instances)
            if chosen and fixed[argument] is not None:
                raise InvalidInputError(
                    f"{argument}={fixed[argument]!r}: the instances of {name!r} choose it; leave one of them out"
                )

    def __len__(self) -> int:
        return len(self._instances)

    def load(self, index: int) -> Task:
        """The task of an instance, from now on the chosen one."""
        instance, arguments = self._instances[index], dict(self._fixed)
        for argument in ("teacher", "student_arch", "buffer_scale"):
            if getattr(instance, argument) is not None:
                arguments[argument] = getattr(instance, argument)
        if instance.budget:
            arguments["budget"] = {**(arguments["budget"] or {}), **instance.budget}
        self.index = index
        return load_task(**arguments)

    def choose(self, random: np.random.Generator, options: Mapping[str, Any] | None) -> Task:
        """Draw an instance, or take the one that `options["instance"]` names.

        Raises:
            InvalidInputError: when there is no such instance.
        """
        wanted = (options or {}).get("instance")
        if wanted is None:
            # A single instance draws nothing, so that seeds mean the same with a set and without.
            return self.load(int(random.integers(len(self))) if len(self) > 1 else 0)
        if not isinstance(wanted, int | np.integer) or not 0 <= wanted < len(self):
            raise InvalidInputError(f"options['instance']={wanted!r}: expected a number from 0 to {len(self) - 1}")
        return self.load(int(wanted))
