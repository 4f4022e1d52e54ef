"""The contrastive loss of CMI: each synthetic image should differ from the others, and from earlier ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Earlier images that are remembered, and how many of them a batch is compared with.
BANK_SIZE = 40_960
NEGATIVES = 4_096
#: Temperature of the softmax over similarities.
CONTRASTIVE_TEMPERATURE = 0.2
#: Length of an image's embedding.
EMBEDDING = 128


class ContrastiveLoss(nn.Module):
    """Instance discrimination (CMI, Fang et al. 2021, after its public description; reconstructed).

    Two views of an image are to be more alike than views of two images: InfoNCE over the batch's second views and a
    bank of earlier images' features, embedded by a small head that is trained along.

    Args:
        features: length of an image's feature vector.
        random: source of randomness for initial weights and negatives, on `device`.
        device: where everything is kept.
    """

    bank: Tensor

    def __init__(self, features: int, random: torch.Generator, device: torch.device) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # PyTorch's initial weights, drawn globally, are replaced below
            head = nn.Sequential(nn.Linear(features, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.head = head.to(device)
        with torch.no_grad():
            for layer in (self.head[0], self.head[2]):
                assert isinstance(layer, nn.Linear)
                bound = layer.in_features**-0.5
                for tensor in (layer.weight, layer.bias):
                    tensor.uniform_(-bound, bound, generator=random)
        self.register_buffer("bank", torch.zeros(0, features, device=device))
        self._random = random

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """InfoNCE of two views' features, (N, features) each → a scalar."""
        negatives = self.bank
        if len(negatives) > NEGATIVES:
            index = torch.randint(len(negatives), (NEGATIVES,), device=negatives.device, generator=self._random)
            negatives = negatives[index]
        anchors = F.normalize(self.head(first), dim=1)
        others = F.normalize(self.head(torch.cat([second, negatives])), dim=1)
        similarities = anchors @ others.T / CONTRASTIVE_TEMPERATURE
        return F.cross_entropy(similarities, torch.arange(len(first), device=first.device))

    def remember(self, features: Tensor) -> None:
        """Add a finished batch's features (N, features) to the bank; the oldest leave when it is full."""
        self.bank = torch.cat([self.bank, features.detach()])[-BANK_SIZE:]

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`, whatever the bank's length then."""
        self.bank = state["bank"].to(self.bank.device).clone()
        self.load_state_dict(state)
