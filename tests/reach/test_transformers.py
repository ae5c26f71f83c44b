"""Language and image models of transformers, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from skgradood.gradients.likelihood import LogLikelihoodFunction
from tests.reach.harness import (
    Case,
    assert_served_as_stated,
    randomised,
    seeded,
    squared_output,
    token_log_likelihood,
    tokens,
    with_dtypes,
)

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

IMAGES = (3, 3, 32, 32)


def gpt2(**options: object) -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=23, n_positions=16, n_embd=12, n_layer=2, n_head=3, bos_token_id=0,
        eos_token_id=0, **options,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama(**options: object) -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=23, hidden_size=12, intermediate_size=20, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=16, **options,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt_neox() -> nn.Module:
    config = transformers.GPTNeoXConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=16,
    )  # fmt: skip
    return transformers.GPTNeoXForCausalLM(config)


def mixtral(**options: object) -> nn.Module:
    config = transformers.MixtralConfig(
        vocab_size=23, hidden_size=12, intermediate_size=20, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=1, num_local_experts=4,
        max_position_embeddings=16, **options,
    )  # fmt: skip
    return transformers.MixtralForCausalLM(config)


def mamba() -> nn.Module:
    config = transformers.MambaConfig(
        vocab_size=23, hidden_size=8, state_size=4, num_hidden_layers=2, time_step_rank=2
    )
    return transformers.MambaForCausalLM(config)


def xlnet() -> nn.Module:
    """Attention by einsum over letters, with the batch in the second dimension."""
    config = transformers.XLNetConfig(vocab_size=23, d_model=8, n_layer=2, n_head=2, d_inner=12)
    return transformers.XLNetLMHeadModel(config)


def t5_encoder() -> nn.Module:
    """Learned biases of relative positions, added to the attention's logits."""
    config = transformers.T5Config(
        vocab_size=23, d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=3
    )
    return transformers.T5EncoderModel(config)


def resnet(layer_type: str, hidden_sizes: list[int], depths: list[int]) -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=6, hidden_sizes=hidden_sizes, depths=depths, layer_type=layer_type,
        num_labels=5,
    )  # fmt: skip
    return transformers.ResNetForImageClassification(config)


def convnext(version: str) -> nn.Module:
    config = getattr(transformers, f"{version}Config")(
        hidden_sizes=[6, 8], depths=[1, 2], num_stages=2, num_labels=5
    )
    return getattr(transformers, f"{version}ForImageClassification")(config)


def efficientnet() -> nn.Module:
    config = transformers.EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320, num_labels=5
    )
    return transformers.EfficientNetForImageClassification(config)


def vit(**options: object) -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        image_size=32, patch_size=8, num_labels=5, **options,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def swin() -> nn.Module:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=6, depths=[2, 1], num_heads=[2, 3], window_size=4,
        num_labels=5,
    )  # fmt: skip
    return transformers.SwinForImageClassification(config)


def _language(
    build: Callable[[], nn.Module],
    log_likelihood: LogLikelihoodFunction = token_log_likelihood,
    *,
    rows: int = 4,
    **options: object,
) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        return randomised(build(), dtype), tokens((rows, 9), 23)

    return Case(make, log_likelihood, **options)


def _images(build: Callable[[], nn.Module], **options: str) -> Case:
    def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        return randomised(build(), dtype), seeded(IMAGES, dtype)

    log_likelihood = squared_output(lambda module, X: module(pixel_values=X).logits)
    return Case(make, log_likelihood, **options)


T5 = squared_output(lambda module, X: module(input_ids=X).last_hidden_state)
XLNET = squared_output(lambda module, X: module(input_ids=X).logits)

CASES: dict[str, Case] = {
    "gpt2_tied_sdpa": _language(lambda: gpt2(attn_implementation="sdpa")),
    "gpt2_tied_eager": _language(lambda: gpt2(attn_implementation="eager")),
    "gpt2_untied": _language(lambda: gpt2(tie_word_embeddings=False)),
    "llama_sdpa": _language(lambda: llama(attn_implementation="sdpa")),
    "llama_eager_tied": _language(
        lambda: llama(attn_implementation="eager", tie_word_embeddings=True)
    ),
    "gpt_neox": _language(gpt_neox),
    "mixtral_grouped": _language(
        lambda: mixtral(experts_implementation="grouped_mm"), dtypes=(torch.float32,)
    ),
    "mixtral_batched": _language(lambda: mixtral(experts_implementation="batched_mm")),
    "mixtral_eager": _language(lambda: mixtral(experts_implementation="eager")),
    "mamba": _language(mamba, inside=torch.float32),
    # What is small and computed in single precision from parameters in double.
    "mamba_many_rows": _language(mamba, rows=32, dtypes=(torch.float32,)),
    "xlnet": _language(xlnet, XLNET),
    "t5_encoder": _language(t5_encoder, T5),
    "resnet18_like": _images(lambda: resnet("basic", [6, 8, 10, 12], [2, 2, 2, 2])),
    "resnet50_like": _images(lambda: resnet("bottleneck", [8, 12, 16, 20], [2, 2, 2, 2])),
    "convnext": _images(lambda: convnext("ConvNext")),
    "convnext_v2": _images(lambda: convnext("ConvNextV2")),
    "efficientnet": _images(efficientnet),
    "vit_sdpa": _images(lambda: vit(attn_implementation="sdpa")),
    "vit_eager": _images(lambda: vit(attn_implementation="eager")),
    "swin": _images(swin),
}  # fmt: skip


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_auto_equals_the_loop_and_is_served_by_the_stated_strategy(
    case: Case, dtype: torch.dtype
) -> None:
    assert_served_as_stated(case, dtype)
