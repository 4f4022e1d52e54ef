"""Public checkpoints of the same networks under other names.

Only names are translated, by the table `NAMINGS`; a file is accepted when afterwards every name and shape fits.

- `ours`: nothing is renamed, but for what all names begin with: the prefixes of wrappers (`PREFIXES`), and names of the
  object that held the network (`model.`, `module.student.`). The ResNets of kuangliu, akamaster and
  DAFL; the VGG-11 and WRNs of RepDistiller and the data-free repositories; the WRNs of xternalz and ZSKT;
  torchvision's DeepLabv3, whose auxiliary classifier is left out (`UNUSED`).
- `torchvision`: `fc` → `linear`, `downsample` → `shortcut`. torchvision and timm ResNets with a 3×3 stem; the small
  ResNets of chenyaofo and RepDistiller.
- `weiaicunzai`: `conv1.{0,1}` → `conv1, bn1`; `conv{2..5}_x` → `layer{1..4}`; `residual_function.{0,1,3,4}` →
  `conv1, bn1, conv2, bn2`; `fc` → `linear`. The ResNets of weiaicunzai's pytorch-cifar100.

What cannot be mapped exactly is refused:

- The small ResNets of chenyaofo and RepDistiller have projection shortcuts; ours follow the paper (option A). They
  load into the same network built with `projection=True`, and into no other.
- A VGG-11 with names `features.*` pools five times or has three linear layers; `VGG11` does neither.
- WRNs whose convolutions have a bias (weiaicunzai, meliketoy), and ResNets with a 7×7 stem.

What no file can tell: some torchvision-like CIFAR ResNet-18s (huyvnphan) keep the max-pooling after their 3×3 stem.
Names and shapes are the same, so they load, but ours has no max-pooling: measure a teacher's accuracy before use.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

#: What DataParallel and torch.compile put before every name.
PREFIXES = ("module.", "_orig_mod.")

#: Parts of published networks that only their training uses; ours lack them.
UNUSED = ("aux_classifier.",)

#: Last part of the names of counters that tools leave beside weights: PyTorch's averages, and counters of operations.
COUNTERS = ("n_averaged", "total_ops", "total_params")

#: Naming → rules (pattern in the foreign name, replacement), all applied to each name in this order.
NAMINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "ours": (),
    "torchvision": ((r"^fc\.", "linear."), (r"\.downsample\.", ".shortcut.")),
    "weiaicunzai": (
        (r"^conv1\.0\.", "conv1."),
        (r"^conv1\.1\.", "bn1."),
        (r"^conv2_x\.", "layer1."),
        (r"^conv3_x\.", "layer2."),
        (r"^conv4_x\.", "layer3."),
        (r"^conv5_x\.", "layer4."),
        (r"\.residual_function\.0\.", ".conv1."),
        (r"\.residual_function\.1\.", ".bn1."),
        (r"\.residual_function\.3\.", ".conv2."),
        (r"\.residual_function\.4\.", ".bn2."),
        (r"^fc\.", "linear."),
    ),
}


def translations(names: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every reading of a file's names: as they are, then each naming of the table, without ever more of what all share.

    Args:
        names: the names in the file.

    Yields:
        The naming, and its mapping from the file's names to our networks'. The first mapping is the identity. A
        naming that would give two tensors one name is left out.
    """
    names = list(names)
    yield "ours", {name: name for name in names}
    for bare in _ever_shorter(names):
        for naming, rules in NAMINGS.items():
            mapping = {name: _rename(short, rules) for name, short in zip(names, bare, strict=True)}
            if len(set(mapping.values())) == len(names):
                yield naming, mapping


def used(names: Iterable[str], own: Collection[str]) -> list[str]:
    """The file's names without `COUNTERS` and the parts in `UNUSED`, unless the network itself has such a name.

    Args:
        names: the names in the file.
        own: the network's.
    """
    names = [name for name in names if name in own or name.rpartition(".")[2] not in COUNTERS]
    *_, bare = _ever_shorter(names)
    pairs = zip(names, bare, strict=True)
    return [name for name, short in pairs if name in own or short in own or not short.startswith(UNUSED)]


def strip_prefixes(names: list[str]) -> list[str]:
    """The names without the `PREFIXES` that all of them share, in any order and number."""
    while names and (shared := [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in names)]):
        names = [name.removeprefix(shared[0]) for name in names]
    return names


def _ever_shorter(names: list[str]) -> Iterator[list[str]]:
    """The names without the `PREFIXES`, then without ever more first parts that all share."""
    names = strip_prefixes(names)
    yield names
    while len({name.partition(".")[0] for name in names}) == 1 and all("." in name for name in names):
        names = [name.partition(".")[2] for name in names]
        yield names


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
