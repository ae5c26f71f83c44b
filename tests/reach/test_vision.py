"""Image classifiers: as the papers describe them, and torchvision's own where it is installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.reach import vision
from tests.reach.harness import (
    Case,
    assert_served_as_stated,
    randomised,
    seeded,
    squared_output,
    with_dtypes,
)

pytestmark = pytest.mark.peers

SIDE = 32


def _images(build: Callable[[], nn.Module], side: int = SIDE) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        return randomised(build(), dtype), seeded((3, 3, side, side), dtype)

    return Case(make, squared_output(nn.Module.__call__))


CASES: dict[str, Case] = {
    "resnet50": _images(vision.ResNet50),
    "convnext": _images(vision.ConvNeXt),
    "vit": _images(vision.ViT),
    "efficientnet": _images(vision.EfficientNet),
}


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    case: Case, dtype: torch.dtype
) -> None:
    assert_served_as_stated(case, dtype)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "convnext_tiny", "vit_b_16", "efficientnet_b0"]
)
def test_torchvision(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    options = {"image_size": SIDE} if name.startswith("vit") else {}
    case = _images(lambda: getattr(models, name)(num_classes=5, **options))
    assert_served_as_stated(case, torch.float32)
