"""A task = teacher + student + generator + sizes + budget (+ evaluation data)."""

from ssdkd_env.distillation.problem import Budget
from ssdkd_env.tasks.instances import INSTANCE_SETS, Instance, InstanceSet, find_instances
from ssdkd_env.tasks.registry import TASKS, load_task
from ssdkd_env.tasks.synthetic_images import SyntheticImages
from ssdkd_env.tasks.task import Task, TaskSpec

__all__ = [
    "INSTANCE_SETS",
    "TASKS",
    "Budget",
    "Instance",
    "InstanceSet",
    "SyntheticImages",
    "Task",
    "TaskSpec",
    "find_instances",
    "load_task",
]
