"""Who enters the buffer, and in whose place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssdkd_env.distillation import sampling
from ssdkd_env.distillation.buffer import Entries, ReplayBuffer
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.plan import SamplingPlan


def replacement(
    method: Method,
    plan: SamplingPlan,
    buffer: ReplayBuffer,
    candidates: Entries,
    log_weights: Tensor,
    turns: int,
    random: torch.Generator,
) -> tuple[Tensor, int]:
    """What `ReplayBuffer.update` needs to decide.

    A partial update draws without replacement under the weights (Gumbel top-k), unless the plan says otherwise; a full
    one takes every candidate in place of the oldest residents.

    Args:
        method: its kind of update.
        plan: its replacement and ρ.
        buffer: the residents.
        candidates: who want into it.
        log_weights: (size + candidates,) unnormalised log P of both.
        turns: batches of the round, which divide its ρ.
        random: source of randomness, on the buffer's device.

    Returns:
        Keys (size + candidates,) float64, of which the largest are in the buffer afterwards, and the most residents
        that may leave.
    """
    if method.update == "full":
        return newest_first(buffer, candidates), buffer.capacity
    # The hair keeps 0.29 · 100 at 29.
    most_replaced = math.floor(plan.replaced_share * buffer.capacity / turns + 1e-9)
    if plan.replacement == "oldest":
        return newest_first(buffer, candidates), most_replaced
    keys = sampling.replacement_keys(log_weights, random)
    if plan.replacement == "random":
        most_replaced = int(buffer.count_replaced(keys, most_replaced))
        keys = sampling.replacement_keys(torch.zeros_like(keys), random)
        keys[len(buffer) :] += 1e6  # every candidate before every resident; the count alone decides
    return keys, most_replaced


def newest_first(buffer: ReplayBuffer, candidates: Entries) -> Tensor:
    """Keys with which every candidate enters and the oldest residents leave, (size + candidates,) float64."""
    born = buffer.residents.born.double()
    return torch.cat([born, torch.full((len(candidates),), torch.inf, dtype=torch.float64, device=born.device)])
