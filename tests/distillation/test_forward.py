"""How many images are looked at together."""

from __future__ import annotations

import pytest
import torch

from ssdkd_env.distillation.forward import images_a_pass, images_gathered


@pytest.mark.parametrize(
    ("shape", "gathered", "a_pass"),
    [((1, 8, 8), 512, 512), ((3, 32, 32), 512, 64), ((3, 120, 160), 27, 3), ((3, 1024, 1024), 1, 1)],
)
def test_the_larger_images_are_the_fewer_are_looked_at_together(
    shape: tuple[int, ...], gathered: int, a_pass: int
) -> None:
    images = torch.empty(2, *shape, device="meta")
    assert images_gathered(images) == gathered
    assert images_a_pass(torch.empty(2, *shape, dtype=torch.uint8)) == a_pass
