"""The Gymnasium face of the distillation engine."""

from ssdkd_env.envs.distillation import SSDKDEnv
from ssdkd_env.envs.vector import SSDKDVectorEnv

__all__ = ["SSDKDEnv", "SSDKDVectorEnv"]
