"""A task = teacher + student + generator + sizes + budget (+ evaluation data)."""

from ssdkd_env.tasks.registry import TASKS, load_task, register_task
from ssdkd_env.tasks.task import Budget, Task, TaskSpec

__all__ = ["TASKS", "Budget", "Task", "TaskSpec", "load_task", "register_task"]
