#!/usr/bin/env bash
# PyTorch 2.13.0 (CPU): torch.utils.flop_counter.FlopCounterMode counts a TransformerEncoderLayer in evaluation mode, under
# no_grad, as zero operations, linear layers included, and nn.MultiheadAttention likewise.
#
# The good guess: the count of a forward pass does not depend on .eval(). That is how one would compare what a teacher and a
# student cost, or count the work of a distillation run, whose networks are in evaluation mode and frozen.
#
# The cause: in evaluation mode without gradients these modules call fused operators of their own (the "fast path"), for which
# the counter has no formula; it says nothing about operators that it does not know. With the fast path switched off
# (torch.backends.mha.set_fastpath_enabled(False)) the linear layers are counted; on a CPU the products of queries, keys and
# values are still missing, because the fused CPU kernel of scaled_dot_product_attention has no formula either. Asking for the
# kernel of plain products (torch.nn.attention.sdpa_kernel(SDPBackend.MATH)) counts them as well.
#
# Seen, in multiply-adds a sequence of 8 tokens of width 16, 4 heads, feed-forward 32:
#   training mode 18432, evaluation mode 0, without the fast path 16384, and with plain products 18432
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
tokens = torch.zeros(2, 8, 16)


def counted() -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(tokens)
    return counter.get_total_flops() // (2 * len(tokens))


training = counted()
layer.eval()
evaluation = counted()
torch.backends.mha.set_fastpath_enabled(False)
slow = counted()
with sdpa_kernel(SDPBackend.MATH):
    plain = counted()
print("training", training, "evaluation", evaluation, "without the fast path", slow, "with plain products", plain)
assert (training, evaluation, slow, plain) == (18432, 0, 16384, 18432), "this has changed"
PYTHON
