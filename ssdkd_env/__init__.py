"""SSD-KD (Small Scale Data-Free Knowledge Distillation, CVPR 2024) as a Gymnasium environment.

Importing this package registers the environment ids and nothing else: PyTorch is loaded by the first environment.
"""

from typing import Any

from gymnasium.envs.registration import register

__version__ = "0.1.0"

#: The `-vN` of the environments: raised whenever learning results may change.
ENV_VERSION = 2

_ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "Digits": {"task": "digits"},
    # The smallest memory of the paper: 18 images.
    "Digits1Percent": {"task": "digits", "buffer_scale": 0.01},
    "CIFAR10": {"task": "cifar10"},
    "CIFAR100": {"task": "cifar100"},
    "CamVid": {"task": "camvid"},
    "NYUv2": {"task": "nyuv2"},
}
for _name, _arguments in _ENVIRONMENTS.items():
    register(
        id=f"SSDKD/{_name}-v{ENV_VERSION}",
        entry_point="ssdkd_env.envs.distillation:SSDKDEnv",
        vector_entry_point="ssdkd_env.envs.vector:SSDKDVectorEnv",
        kwargs=_arguments,
    )
