#!/usr/bin/env bash
# PyTorch 2.13.0 (CPU): while one thread traces a network with torch.fx, another thread's call of a network that has nothing to
# do with it raises NameError ("module is not installed as a submodule").
#
# The good guess: tracing concerns the network that is traced, and the thread that traces it; other threads go on computing.
# That is how one would fold a teacher's BatchNorm, quantise or measure a network in the background of a process in which
# agents, data loaders with models, or a server's threads answer.
#
# The cause: for the time of a trace torch.fx puts a function of its own in the place of torch.nn.Module.__call__, for the whole
# process, and takes every module that is called meanwhile for a part of the traced one. Depending on who is first, the same
# program fails or does not.
#
# Seen: the network answers before the trace; during it NameError; after it it answers as before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import threading

import torch
from torch import fx, nn

agent, images = nn.Linear(4, 2), torch.zeros(1, 4)
tracing, answered = threading.Event(), threading.Event()
seen = {}


class Teacher(nn.Module):
    """Its forward pass lasts until the other thread has had its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        tracing.set()
        answered.wait(60)
        return self.layer(x)


def act() -> None:
    tracing.wait(60)
    try:
        seen["during"] = tuple(agent(images).shape)
    except NameError as error:
        seen["during"] = f"NameError: {error}"
    answered.set()


seen["before"] = tuple(agent(images).shape)
other = threading.Thread(target=act)
other.start()
fx.symbolic_trace(Teacher())
other.join()
seen["after"] = tuple(agent(images).shape)
print(seen)
assert seen == {"before": (1, 2), "during": "NameError: module is not installed as a submodule", "after": (1, 2)}, "this has changed"
PYTHON
