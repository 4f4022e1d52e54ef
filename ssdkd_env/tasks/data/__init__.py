"""Reading real images of the user's own. They train teachers and report accuracy, nothing else."""

from ssdkd_env.tasks.data.locate import find_dataset
from ssdkd_env.tasks.data.npz import load_npz
from ssdkd_env.tasks.data.splits import load_split

__all__ = ["find_dataset", "load_npz", "load_split"]
