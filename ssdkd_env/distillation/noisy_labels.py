"""Generator inputs from noisy labels (NAYER)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NoisyLabels:
    """Generator inputs from label embeddings through random linear layers (NAYER, Tran et al. 2024).

    The authors embed the label's name with a text encoder; here the embedding is learned. A batch is split into
    groups that hold each class at most once; every group has a linear layer of its own, initialised anew with each
    batch, so that images of one class differ.

    Args:
        num_classes: number of classes.
        latent_dim: length of the embedding and of the generator's input.
        random: source of randomness.
        std: deviation of the layers' normal weights, with biases of 0 (the authors' code has 1); 0 draws both uniformly
            within ±1/√latent_dim, as `nn.Linear` does.
    """

    def __init__(self, num_classes: int, latent_dim: int, random: torch.Generator, std: float = 0.0) -> None:
        self.embedding = nn.Parameter(torch.randn(num_classes, latent_dim, device=random.device, generator=random))
        self._random, self._std = random, std

    def begin(self, targets: Tensor) -> list[Tensor]:
        """Start a batch; returns its own parameters: weights (groups, dim, dim) and biases (groups, dim)."""
        self._targets = targets
        same = targets[:, None] == targets[None, :]
        self._group = same.tril(diagonal=-1).sum(dim=1)  # how many images of the class come before this one
        groups, dim = int(self._group.max()) + 1, self.embedding.shape[1]
        shape = groups, dim + 1, dim
        if self._std:
            layer = self._std * torch.randn(shape, device=targets.device, generator=self._random)
            layer[:, dim] = 0.0
        else:
            draws = torch.rand(shape, device=targets.device, generator=self._random)
            layer = (2.0 * draws - 1.0) * dim**-0.5
        self._weights = layer[:, :dim].clone().requires_grad_()
        self._biases = layer[:, dim].clone().requires_grad_()
        return [self._weights, self._biases]

    def __call__(self) -> Tensor:
        """Generator inputs (N, latent_dim)."""
        embedded = self.embedding[self._targets]
        deviation = embedded.std(dim=0, unbiased=False) + 1e-5
        standard = (self.embedding - embedded.mean(dim=0)) / deviation
        # Every class through every layer, then each image's: the layers of all images would not fit into memory.
        outputs = torch.einsum("cd,gde->gce", standard, self._weights) + self._biases[:, None]
        inputs: Tensor = outputs[self._group, self._targets]
        return inputs
