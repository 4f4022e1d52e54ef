#!/usr/bin/env bash
# PyTorch 2.13.0 (CPU): a uint8 tensor compared with a Python integer that no byte holds is compared with that integer modulo 256,
# without an error or a warning: -100 finds the pixels of class 156, 300 those of class 44, and -1 those of 255.
#
# The good guess: `labels == -100` is False everywhere, as it is for the same labels in int64; or it is refused, as NumPy 2 does
# where such a number should become a byte, and as PyTorch's own `masked_fill` does.
#
# Whom it hurts: label maps of segmentation are kept as bytes, -100 is the label that PyTorch's cross-entropy ignores, and sets of
# 171 or more classes have a class 156. A mask of the pixels that count (`labels != ignore_index`), made before the labels become
# int64, leaves a class out of a score, a class weight or a mean, and nothing shows it. With -1, 255 is found, which may have been
# meant, or not.
#
# Seen: bytes == -100 and bytes == 156 give the same; int64 == -100 gives nothing; NumPy's comparison gives nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import torch

labels = torch.arange(256, dtype=torch.uint8)
for number in (-100, 300, -1):
    found = {
        "bytes": labels[labels == number].tolist(),
        "int64": labels.long()[labels.long() == number].tolist(),
        "numpy": labels.numpy()[labels.numpy() == number].tolist(),
    }
    print(number, found)
    assert found == {"bytes": [number % 256], "int64": [], "numpy": []}, "this has changed"
try:
    labels.masked_fill(labels == 0, 300)
except RuntimeError as error:
    print("masked_fill refuses 300:", error)
else:
    raise AssertionError("masked_fill takes 300 now: this has changed")
PYTHON
