"""The U-Nets of diffusers, with random weights, scored by how well they predict noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.reach.harness import Case, assert_served_as_stated, randomised, seeded, with_dtypes

diffusers = pytest.importorskip("diffusers")

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def unet(**options: object) -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=(8, 12), norm_num_groups=2, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), **options,
    )  # fmt: skip


def conditional_unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=(8, 12), norm_num_groups=2, attention_head_dim=4,
        cross_attention_dim=6, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def autoencoder() -> nn.Module:
    return diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=2, block_out_channels=(4, 8),
        norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def noise_prediction(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    """Nats up to a constant: minus the squared error of the noise predicted at one time."""
    noise = torch.randn(X.shape, generator=generator, dtype=X.dtype)
    predicted = module(0.8 * X + 0.6 * noise, 40).sample
    return -0.5 * (predicted - noise).square().flatten(1).mean(1)


def noise_prediction_at_own_times(
    module: nn.Module, X: Tensor, generator: torch.Generator
) -> Tensor:
    """The same with a time for every row, and noise made from it."""
    noise = torch.randn(X.shape, generator=generator, dtype=X.dtype)
    times = torch.rand(len(X), generator=generator, dtype=X.dtype)
    level = times[:, None, None, None]
    predicted = module((1 - level).sqrt() * X + level.sqrt() * noise, 100 * times).sample
    return -0.5 * (predicted - noise).square().flatten(1).mean(1)


def noise_prediction_with_condition(
    module: nn.Module, X: Tensor, generator: torch.Generator
) -> Tensor:
    """The same with a sequence to attend to, made from the row."""
    noise = torch.randn(X.shape, generator=generator, dtype=X.dtype)
    condition = X.flatten(1).unflatten(1, (-1, 16))[..., :6].sin()
    predicted = module(0.8 * X + 0.6 * noise, 40, encoder_hidden_states=condition).sample
    return -0.5 * (predicted - noise).square().flatten(1).mean(1)


def evidence_bound(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    """The ELBO of an autoencoder at its posterior's mean."""
    posterior = module.encode(X).latent_dist
    error = module.decode(posterior.mean).sample - X
    return -0.05 * (0.5 * error.square().flatten(1).sum(1) + posterior.kl())


def _unet(build: Callable[[], nn.Module], log_likelihood: Callable, **options: object) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        return randomised(build(), dtype, scale=0.3), seeded((3, 1, 8, 8), dtype)

    return Case(make, log_likelihood, **options)


CASES: dict[str, Case] = {
    "unet": _unet(unet, noise_prediction, draws=True),
    "unet_at_own_times": _unet(unet, noise_prediction_at_own_times, draws=True),
    "unet_scale_shift": _unet(
        lambda: unet(resnet_time_scale_shift="scale_shift"), noise_prediction, draws=True
    ),
    "unet_resnet_sampling": _unet(
        lambda: unet(downsample_type="resnet", upsample_type="resnet"), noise_prediction, draws=True
    ),
    "conditional_unet": _unet(conditional_unet, noise_prediction_with_condition, draws=True),
    "autoencoder": _unet(autoencoder, evidence_bound),
}


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    case: Case, dtype: torch.dtype
) -> None:
    assert_served_as_stated(case, dtype)
