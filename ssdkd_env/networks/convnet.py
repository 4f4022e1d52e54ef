"""A plain convolutional classifier for very small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssdkd_env.networks.channels_last import GlobalAveragePooling


class ConvNet(nn.Module):
    """3×3 convolutions, each with BatchNorm and ReLU, then global average pooling and a linear classifier.

    The first convolution keeps the image size, every later one halves it.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the image.
        channels: width of each convolution.
        batch_norm: without BatchNorm the network has no statistics to invert (used to test that case).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128),
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for stage, next_width in enumerate(channels):
            stride = 1 if stage == 0 else 2
            layers.append(nn.Conv2d(width, next_width, 3, stride=stride, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(next_width))
            layers.append(nn.ReLU(inplace=True))
            width = next_width
        self.features = nn.Sequential(*layers)
        self.pool = GlobalAveragePooling()
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.pool(self.features(images)))
        return logits
