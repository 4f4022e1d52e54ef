"""SSD-KD (Small Scale Data-Free Knowledge Distillation, CVPR 2024) as a Gymnasium environment.

Importing this package registers the environment ids and nothing else: PyTorch is loaded by the first environment.
"""

from gymnasium.envs.registration import register

__version__ = "0.1.0"

#: The `-vN` of the environments: raised whenever learning results may change.
ENV_VERSION = 2

for _name, _task in (("Digits", "digits"), ("CIFAR10", "cifar10"), ("CIFAR100", "cifar100")):
    register(
        id=f"SSDKD/{_name}-v{ENV_VERSION}",
        entry_point="ssdkd_env.envs.distillation:SSDKDEnv",
        vector_entry_point="ssdkd_env.envs.vector:SSDKDVectorEnv",
        kwargs={"task": _task},
    )
