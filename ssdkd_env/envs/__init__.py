"""The Gymnasium face of the distillation engine."""

from ssdkd_env.envs.distillation import SSDKDEnv

__all__ = ["SSDKDEnv"]
