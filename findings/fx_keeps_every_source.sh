#!/usr/bin/env bash
# PyTorch 2.13.0 (CPU): a network that was traced with torch.fx and deleted leaves its generated source behind, for ever. A process
# that traces again and again, to fold BatchNorm into the student of each episode, say, grows with every trace.
#
# The good guess: the source belongs to the GraphModule and goes when it goes.
#
# The cause: torch.fx puts each source under a new name into a table of its own, and an entry for it into Python's linecache, so
# that tracebacks show the lines. Nothing takes them out again; collecting garbage does not either.
#
# Seen: after 1,000 networks that were traced and deleted, no GraphModule is left, and linecache has 1,000 entries more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import gc
import linecache

from torch import fx, nn

fx.symbolic_trace(nn.Linear(2, 3))
gc.collect()
before = len(linecache.cache)
for _ in range(1_000):
    fx.symbolic_trace(nn.Linear(2, 3))
gc.collect()
left = sum(isinstance(each, fx.GraphModule) for each in gc.get_objects())
grown = len(linecache.cache) - before
print(f"{left} traced networks are left, and {grown} entries in linecache more")
assert (left, grown) == (0, 1_000), "this has changed"
PYTHON
