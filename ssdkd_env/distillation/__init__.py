"""The distillation engine. It knows nothing of reinforcement learning and is usable alone."""

from ssdkd_env.distillation.buffer import ReplayBuffer
from ssdkd_env.distillation.methods import METHODS, Method, make_method
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.report import RoundReport
from ssdkd_env.distillation.run import DistillationRun
from ssdkd_env.distillation.student import StudentSettings

__all__ = [
    "METHODS",
    "DistillationRun",
    "Method",
    "ReplayBuffer",
    "RoundReport",
    "SamplingPlan",
    "StudentSettings",
    "make_method",
]
