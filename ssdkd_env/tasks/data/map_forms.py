"""What the label maps of a data set mean, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layout:
    """Where images and label maps lie under a data set's folder, `{split}` standing for the split.

    Attributes:
        images, labels: their folders. Where `images` does not name the split, a file `{split}.txt` does: one image a
            line, by its name with or without folders and ending, and perhaps its label map's name after it.
        void: the number that index maps have for no class, as in `to_classes`.
    """

    images: str
    labels: str
    void: int | None


@dataclass(frozen=True)
class MapForm:
    """What the files of a data set mean.

    Attributes:
        name: of the data set.
        num_classes: K.
        splits: their names, and how many images each officially has.
        layouts: where files may lie, the preferred first.
        colours: (red, green, blue) → class or `VOID`, for label maps in colour; empty when there are none.
        stray: share of a map's pixels that may have none of these colours, and then are `VOID`.
        key: what images and label maps have in common, out of a name without folders and ending.
        official: split and keys of all images → those of the split, where no file names them.
    """

    name: str
    num_classes: int
    splits: Mapping[str, int]
    layouts: tuple[Layout, ...]
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    stray: float = 0.0
    key: Callable[[str], str] = str
    official: Callable[[str, Sequence[str]], list[str]] = lambda split, keys: []
