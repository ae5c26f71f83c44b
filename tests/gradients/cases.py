"""The architectures that every engine and every reducer runs through.

A case builds a module whose ``log_prob`` returns one value a sample, and a batch for it. Every
case names the strategy that ``engine="auto"`` must end up with, so that a silent fall-back fails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.nn.utils import parametrizations

from skgradood.models import (
    VAE,
    DiagonalGaussian,
    GaussianDiffusion,
    Glow,
    LinearFlow,
    NeuralSplineFlow,
    PixelCNN,
    RealNVP,
)
from tests.gradients import (
    expert_modules,
    hard_modules,
    modules,
    noisy_modules,
    recurrent_modules,
    selecting_modules,
)
from tests.gradients.building import Case, density, images, squared, tokens
from tests.gradients.operations import USES
from tests.gradients.stacked_operations import STACKS


def _conv(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


CASES: dict[str, Case] = {
    "mlp": squared(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), (5, 6)),
    "linear_over_positions": squared(
        lambda: nn.Sequential(nn.Linear(6, 4, bias=False), nn.GELU(), nn.Linear(4, 4)), (4, 3, 6)
    ),
    "conv1d": squared(lambda: _conv(nn.Conv1d(2, 3, 3, padding=1), nn.SiLU()), (4, 2, 9)),
    "conv2d": squared(
        lambda: _conv(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2)), (4, 2, 7, 6)
    ),
    "conv3d": squared(lambda: nn.Conv3d(2, 3, (2, 3, 2), padding=(1, 0, 1)), (3, 2, 4, 5, 4)),
    "conv2d_strided": squared(lambda: nn.Conv2d(3, 4, 4, stride=2, padding=1), (4, 3, 9, 8)),
    "conv2d_dilated": squared(lambda: nn.Conv2d(2, 3, 3, dilation=(2, 1)), (4, 2, 8, 8)),
    "conv2d_grouped": squared(lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 4, 6, 6)),
    "conv2d_depthwise": squared(
        lambda: _conv(nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 3, 1)), (4, 4, 6, 6)
    ),
    "conv2d_same": squared(lambda: nn.Conv2d(2, 3, (4, 3), padding="same"), (4, 2, 6, 6)),
    "conv2d_valid": squared(lambda: nn.Conv2d(2, 3, 3, padding="valid"), (4, 2, 6, 6)),
    "conv2d_circular": squared(
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (4, 2, 6, 6)
    ),
    "conv2d_reflect": squared(
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (4, 2, 6, 6)
    ),
    "conv2d_replicate": squared(
        lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="replicate"), (4, 2, 6, 6)
    ),
    "conv2d_many_positions": squared(lambda: nn.Conv2d(1, 2, 3, padding=1), (3, 1, 20, 20)),
    "conv_transpose1d": squared(
        lambda: nn.ConvTranspose1d(3, 4, 3, stride=2, output_padding=1), (4, 3, 5)
    ),
    "conv_transpose2d": squared(
        lambda: _conv(
            nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), nn.LeakyReLU(),
            nn.ConvTranspose2d(4, 2, 3),
        ),
        (4, 3, 4, 4),
    ),
    "conv_transpose2d_grouped": squared(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=2), (4, 4, 4, 4)
    ),
    "conv_transpose3d": squared(lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (3, 2, 3, 3, 2)),
    "conv_from_one_position": squared(
        lambda: _conv(nn.ConvTranspose2d(5, 8, 4), nn.ReLU(), nn.Conv2d(8, 9, 4)), (4, 5, 1, 1)
    ),
    "batch_norm_eval": squared(
        lambda: _conv(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (4, 2, 6, 6)
    ),
    "batch_norm_of_rows": squared(
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), (4, 5)
    ),
    "layer_norm": squared(
        lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2)), (4, 3, 5)
    ),
    "group_norm": squared(lambda: _conv(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), (4, 2, 6, 6)),
    "norms_come_first": squared(
        lambda: _conv(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 2)), (4, 4, 5, 4)
    ),
    "norms_of_one_position": squared(
        lambda: _conv(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.GroupNorm(1, 4)),
        (4, 2, 3, 3),
    ),
    "group_norm_of_rows": squared(
        lambda: nn.Sequential(nn.Linear(5, 6), nn.GroupNorm(1, 6), nn.Linear(6, 2)), (4, 5)
    ),
    "instance_norm": squared(
        lambda: _conv(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True)), (4, 2, 6, 6)
    ),
    "rms_norm": squared(lambda: nn.Sequential(nn.Linear(5, 6), nn.RMSNorm(6)), (4, 5)),
    "prelu": squared(lambda: _conv(nn.Conv2d(2, 4, 3), nn.PReLU(4), nn.PReLU()), (4, 2, 6, 6)),
    "inplace_relu": squared(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)), (5, 6)
    ),
    "bilinear": squared(lambda: modules.SelfBilinear(5, 3), (4, 5)),
    "embedding_sequence": tokens(lambda: modules.CausalTokens(11, 6)),
    "embedding_with_padding": tokens(lambda: modules.CausalTokens(11, 6, padding_idx=2)),
    "tied_embedding": tokens(lambda: modules.CausalTokens(11, 6, tied=True)),
    "multi_head_attention": squared(lambda: modules.Attention(8, 2, batch_first=True), (4, 5, 8)),
    "attention_sequence_first": squared(
        lambda: modules.SequenceFirstAttention(8, 2), (4, 5, 8)
    ),
    "transformer_layer": squared(
        lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), (4, 5, 8)
    ),
    "class_token": squared(lambda: modules.ClassToken(6), (4, 3, 6)),
    "spread_over_the_rows": density(lambda: modules.Spread(4), (6, 4)),
    "module_called_twice": squared(lambda: modules.Twice(nn.Linear(5, 5)), (4, 5)),
    "conv_called_twice": squared(
        lambda: modules.Twice(nn.Conv2d(3, 3, 3, padding=1)), (4, 3, 5, 5)
    ),
    "weight_norm": squared(
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh()), (4, 5)
    ),
    "weight_norm_conv": squared(
        lambda: _conv(parametrizations.weight_norm(nn.Conv2d(2, 4, 3))), (4, 2, 6, 6)
    ),
    "orthogonal": squared(lambda: parametrizations.orthogonal(nn.Linear(4, 4)), (4, 4)),
    "spectral_norm": squared(lambda: parametrizations.spectral_norm(nn.Linear(5, 4)), (4, 5)),
    "functional_use_of_child_weight": squared(lambda: modules.FunctionalChild(5, 4), (4, 5)),
    "masked_weight": squared(lambda: modules.MaskedLinear(5), (4, 5)),
    "matrix_products": squared(lambda: modules.MatrixProducts(5), (4, 3, 5)),
    "einsum": squared(lambda: modules.Einsum(5), (4, 3, 5)),
    "elementwise_zoo": squared(lambda: modules.ElementwiseZoo(5), (4, 3, 5)),
    "constants_and_state": squared(lambda: modules.InitialState(5, 4), (4, 3, 5)),
    "assignment": squared(lambda: modules.Assignment(6), (4, 6)),
    "residual_in_place": squared(lambda: modules.InPlaceResidual(6), (4, 6)),
    "frozen_parameters": squared(lambda: modules.partly_frozen(), (4, 5)),
    "unused_parameter": squared(lambda: modules.WithUnused(5), (4, 5)),
    "without_elements": squared(lambda: modules.WithoutElements(5), (4, 5)),
    "batch_in_other_dimensions": squared(lambda: modules.MovingBatch(6), (4, 3, 6)),
    "windows_in_the_batch": squared(lambda: modules.Windows(4), (4, 8, 4)),
    "mixture_by_broadcasting": density(lambda: modules.Mixture(3, 5), (4, 5)),
    "parameter_only_through_log_determinant": density(
        lambda: modules.LogDeterminantOnly(4), (4, 4)
    ),
    "linear_flow": density(lambda: modules.LinearFlow(4), (4, 4)),
    "log_prob_of_parameters_alone": density(lambda: modules.Constant(4), (4, 4)),
    "noise_from_generator": density(lambda: modules.Noisy(5, explicit=True), (4, 5)),
    "noise_from_global_generator": density(lambda: modules.Noisy(5, explicit=False), (4, 5)),
    "diagonal_gaussian": density(lambda: DiagonalGaussian(input_shape=(4,)), (5, 4)),
    "linear_flow_triangular": density(lambda: LinearFlow(input_shape=(4,)), (5, 4)),
    "neural_spline_flow": density(
        lambda: NeuralSplineFlow(input_shape=(4,), n_layers=2, hidden=8, n_bins=4), (5, 4)
    ),
    "real_nvp": density(lambda: RealNVP(input_shape=(4,), n_layers=3, hidden=8), (5, 4)),
    "vae": images(
        lambda: VAE(input_shape=(1, 9, 8), latent_dim=4, width=4), (3, 1, 9, 8)
    ),
    "vae_colour": images(
        lambda: VAE(input_shape=(3, 8, 8), latent_dim=4, width=4), (3, 3, 8, 8)
    ),
    "glow_lu": images(
        lambda: Glow(input_shape=(1, 8, 8), n_levels=2, n_steps=2, hidden_channels=6),
        (3, 1, 8, 8),
    ),
    "glow_plain_additive": images(
        lambda: Glow(
            input_shape=(3, 4, 4), n_levels=1, n_steps=2, hidden_channels=6,
            coupling="additive", permutation="plain", learned_prior=False,
        ),
        (3, 3, 4, 4),
    ),
    "glow_dense": images(
        lambda: Glow(
            input_shape=(1, 4, 4), n_levels=2, n_steps=2, hidden_channels=6, conditioner="dense"
        ),
        (3, 1, 4, 4),
    ),
    "glow_local_classes": images(
        lambda: Glow(
            input_shape=(1, 8, 8), n_levels=2, n_steps=2, hidden_channels=6, conditioner="local",
            n_classes=3,
        ),
        (3, 1, 8, 8),
    ),
    "pixel_cnn": images(
        lambda: PixelCNN((1, 5, 4), width=4, n_layers=1, kernel_size=3), (3, 1, 5, 4)
    ),
    "pixel_cnn_colour": images(
        lambda: PixelCNN((3, 4, 4), width=6, n_layers=1), (3, 3, 4, 4)
    ),
    "pixel_cnn_mixture": images(
        lambda: PixelCNN((3, 4, 4), likelihood="logistic_mixture", width=4, n_layers=2),
        (3, 3, 4, 4),
    ),
    "noise_of_diffusion": images(
        lambda: GaussianDiffusion((1, 6, 5), n_timesteps=8, width=4, n_timesteps_eval=3, n_draws=2),
        (4, 1, 6, 5),
    ),
    "diffusion_shared_noise": images(
        lambda: GaussianDiffusion(
            (3, 4, 4), n_timesteps=8, schedule="cosine", variance="forward", width=4, n_scales=2,
            n_timesteps_eval=2, noise="shared",
        ),
        (3, 3, 4, 4),
    ),
    "diffusion_all_timesteps": images(
        lambda: GaussianDiffusion(
            (1, 4, 4), n_timesteps=4, width=4, n_scales=1, n_timesteps_eval=None, noise="shared"
        ),
        (3, 1, 4, 4),
    ),
    "custom_function_of_data": squared(lambda: hard_modules.CustomFunction(5, of="data"), (4, 5)),
    "gradient_clipped_by_a_function": squared(
        lambda: hard_modules.ClippedGradient(5, by="function"), (6, 5), func=False
    ),
    "gradient_clipped_by_a_hook": squared(
        lambda: hard_modules.ClippedGradient(5, by="hook"), (6, 5)
    ),
    "hooked_broadcast": squared(lambda: hard_modules.HookedBroadcast(5), (4, 5)),
    "complex_linear_over_positions": squared(
        lambda: hard_modules.ComplexMap(4, by_product=False), (3, 5, 4)
    ),
    "complex_linear_of_rows": squared(lambda: hard_modules.ComplexMap(4, by_product=True), (7, 4)),
    "nearest_code_looked_up": squared(
        lambda: selecting_modules.NearestCode(4, by="look-up"), (5, 4)
    ),
    "nearest_code_by_ones": squared(
        lambda: selecting_modules.NearestCode(4, by="ones"), (5, 4), func=False
    ),
    "fixed_point": squared(lambda: selecting_modules.FixedPoint(4), (5, 4)),
    "binned_by_numpy": squared(lambda: selecting_modules.Binned(4), (6, 4), func=False, looks=True),
    # What capture refuses, and who serves instead.
    "custom_function_of_a_parameter": squared(
        lambda: hard_modules.CustomFunction(5, of="parameter"), (4, 5),
        strategy="loop", warns="cannot be watched",
    ),
    "custom_layer": squared(
        lambda: hard_modules.CustomLayer(5), (4, 5), strategy="loop", warns="cannot be watched"
    ),
    "checkpointed": squared(
        lambda: hard_modules.Checkpointed(4), (4, 4),
        strategy="loop", warns="changes what autograd keeps", func=False,
    ),
    "custom_function_of_plain_values": squared(
        lambda: hard_modules.PlainValues(5), (4, 5), strategy="loop", warns="cannot be watched"
    ),
    "batch_statistics": squared(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),
        (4, 2, 6, 6), strategy="func", warns="statistics of the batch",
    ),
    "mean_over_the_batch": squared(
        lambda: hard_modules.MinusBatchMean(5), (4, 5),
        strategy="func", warns="cannot be told apart",
    ),
    "softmax_over_the_batch": squared(
        lambda: hard_modules.BatchSoftmax(5), (4, 5), strategy="func", warns="cannot be told apart"
    ),
    "divided_by_the_batch_size": squared(
        lambda: hard_modules.DividedByBatchSize(5), (4, 5), strategy="func", warns="couple the rows"
    ),
    "packed_sequences": squared(
        lambda: recurrent_modules.Packed(3), (3, 4, 3), func=False, looks=True
    ),
    "recurrence_over_the_batch": squared(
        lambda: recurrent_modules.SamplesAsTimes(3), (3, 2, 3),
        strategy="loop", warns="over something else than the rows",
    ),
}  # fmt: skip


def _recurrent(
    body: Callable[[], nn.Module], shape: tuple[int, ...] = (3, 4, 3), **options: Any
) -> Case:
    return squared(body, shape, func=False, **options)


_LAST, _TIMES_FIRST = recurrent_modules.LastOutput, recurrent_modules.TimesFirst
_CELLS = recurrent_modules.Cells

CASES |= {
    "gru": _recurrent(lambda: _LAST(nn.GRU(3, 5, batch_first=True))),
    "gru_times_first": _recurrent(lambda: _TIMES_FIRST(nn.GRU(3, 3, bidirectional=True))),
    "gru_weight_norm": _recurrent(lambda: _LAST(recurrent_modules.weight_normed_gru(3))),
    "lstm": _recurrent(lambda: _LAST(nn.LSTM(3, 5, batch_first=True))),
    "lstm_times_first": _recurrent(lambda: _TIMES_FIRST(nn.LSTM(3, 3, num_layers=3))),
    "lstm_both_ways": _recurrent(
        lambda: _TIMES_FIRST(nn.LSTM(3, 4, num_layers=2, bidirectional=True)), (4, 4, 3)
    ),
    "lstm_projected": _recurrent(
        lambda: _TIMES_FIRST(nn.LSTM(3, 4, proj_size=2, bias=False, bidirectional=True))
    ),
    "lstm_learned_state": _recurrent(lambda: recurrent_modules.LearnedState(3)),
    "lstm_partly_frozen": _recurrent(lambda: _LAST(recurrent_modules.partly_frozen_lstm(3))),
    "elman_relu": _recurrent(lambda: _TIMES_FIRST(nn.RNN(3, 3, nonlinearity="relu"))),
    "elman_no_bias": _recurrent(lambda: _LAST(nn.RNN(3, 3, bias=False, batch_first=True))),
    "lstm_cell": _recurrent(lambda: _CELLS(nn.LSTMCell(3, 3))),
    "gru_cell": _recurrent(lambda: _CELLS(nn.GRUCell(3, 4, bias=False))),
    "elman_cell": _recurrent(lambda: _CELLS(nn.RNNCell(3, 3, nonlinearity="relu"))),
}

CASES |= {
    name: squared(use.build, use.x, func=use.func, looks=use.looks)
    for name, use in (USES | STACKS).items()
}

CASES |= {
    f"experts_by_{way}": squared(
        partial(expert_modules.Experts, 4, way), (6, 3, 4), func=False, looks=True
    )
    for way in expert_modules.WAYS
}

CASES |= {
    "experts_of_images": squared(
        lambda: expert_modules.ImageExperts(), (6, 2, 5, 5), func=False, looks=True
    ),
    "experts_of_sequences": squared(
        lambda: expert_modules.SequenceExperts(3), (5, 4, 3), func=False, looks=True
    ),
    "stacked_layers": squared(lambda: expert_modules.Stacked(4), (5, 3, 4)),
    "overlapping_parts": squared(lambda: expert_modules.OverlappingParts(4), (5, 3, 4)),
}

CASES |= {
    f"packed_{name}": squared(
        lambda build=build: recurrent_modules.PackedByData(build()), (5, 6, 3),
        func=False, looks=True,
    )
    for name, build in recurrent_modules.PACKED.items()
}  # fmt: skip
CASES |= {
    f"noise_drawn_by_{name}": density(partial(noisy_modules.Drawing, 5, draw), (4, 5), func=False)
    for name, draw in noisy_modules.DRAWN.items()
}
CASES |= {
    f"noise_not_drawn_by_{name}": density(
        partial(noisy_modules.Drawing, 5, draw), (4, 5),
        strategy="loop", warns="random", func=False,
    )
    for name, draw in noisy_modules.NOT_DRAWN.items()
}  # fmt: skip
