"""Which architectures of transformers `capture` serves, and whether norms are the loop's.

``python -m benchmarks.reach causal --experts eager`` builds every kind of causal language model
that can be had in a small size without knowing it (a table of usual option names is applied to its
configuration), with random weights, and prints one line for each: the strategy that
``engine="auto"`` ends up with, the largest difference from ``engine="loop"`` as a share of the
largest squared norm, and why it fell back. What cannot be built so is listed with the reason.
"""

from __future__ import annotations

import argparse
import signal
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skgradood.gradients import EngineWarning, GradientEngine, SquaredNorms, layer_layout

# Sizes by the names that configurations have for them.
SIZES: dict[str, Any] = {
    "vocab_size": 23, "max_position_embeddings": 32, "n_positions": 32, "sliding_window": 4,
    "hidden_size": 16, "n_embd": 16, "d_model": 16, "dim": 16, "embedding_size": 16,
    "word_embed_proj_dim": 16, "hidden_size_per_layer_input": 8,
    "intermediate_size": 24, "ffn_dim": 24, "d_ff": 24, "decoder_ffn_dim": 24,
    "encoder_ffn_dim": 24,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "n_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 2, "n_head": 2, "num_heads": 2, "n_heads": 2, "num_key_value_heads": 1,
    "decoder_attention_heads": 2, "encoder_attention_heads": 2, "head_dim": 8, "v_head_dim": 8,
    "query_pre_attn_scalar": 8, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "rotary_dim": 4,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_topk": 2, "moe_k": 2, "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 12, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "state_size": 4, "mamba_d_state": 4, "mamba_n_heads": 2, "mamba_d_head": 16,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "use_cache": False,
    "image_size": 32, "patch_size": 8, "num_labels": 5, "num_channels": 3,
    "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "embed_dim": 8,
    "embed_dims": [8, 16], "window_size": 4, "num_encoder_blocks": 2, "mlp_ratios": [2, 2],
    "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
}  # fmt: skip
MOST_PARAMETERS = 3_000_000
SECONDS = 20


class Kind(NamedTuple):
    """A family of architectures: transformers' table of them, and what is read of their output."""

    table: str
    read: Callable[[nn.Module, Tensor], Tensor]
    options: dict[str, Any]


def next_tokens(module: nn.Module, X: Tensor) -> Tensor:
    """Nats of rows of tokens, (n,)."""
    logits = module(input_ids=X, use_cache=False).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, X[:, 1:, None]).squeeze(-1).sum(1)


def _squared(output: Tensor) -> Tensor:
    """A stand-in for a density that reads a whole output, (n, ...) to (n,)."""
    flat = output.flatten(1)
    weights = torch.linspace(0.5, 1.5, flat.shape[1], dtype=flat.dtype)
    return -0.1 * (weights * flat.square()).mean(1) + flat.sin().mean(1)


KINDS = {
    "causal": Kind("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", next_tokens, {"is_decoder": True}),
    "masked": Kind(
        "MODEL_FOR_MASKED_LM_MAPPING_NAMES", lambda m, X: _squared(m(input_ids=X).logits), {}
    ),
    "seq2seq": Kind(
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        lambda m, X: _squared(
            m(input_ids=X, decoder_input_ids=X.flip(1), use_cache=False).logits
        ),
        {},
    ),
    "images": Kind(
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        lambda m, X: _squared(m(pixel_values=X).logits),
        {},
    ),
}  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--experts", choices=["eager", "batched_mm", "grouped_mm"], default="eager")
    parser.add_argument("--only", nargs="+", help="names of architectures")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    from transformers.models.auto import modeling_auto

    kind = KINDS[arguments.kind]
    names = getattr(modeling_auto, kind.table)
    counts = {"capture": 0, "other": 0, "not built": 0}
    for name in arguments.only or names:
        try:
            with _at_most(SECONDS):
                module, X = _build(name, names[name], kind, arguments.experts)
                expected = _norms(module, X, kind, "loop")[0]
        except Exception as error:  # whatever keeps a configuration from being that small
            counts["not built"] += 1
            print(f"{name}: not built: {type(error).__name__}: {_first_line(error)}", flush=True)
            continue
        norms, strategy, reasons = _norms(module, X, kind, "auto")
        counts["capture" if strategy == "capture" else "other"] += 1
        difference = abs(norms - expected).max() / expected.max()
        print(f"{name}: {strategy}, {difference:.1e} {' '.join(reasons)}".rstrip(), flush=True)
    print(counts)


def _build(name: str, model: Any, kind: Kind, experts: str) -> tuple[nn.Module, Tensor]:
    import transformers

    config_class = transformers.CONFIG_MAPPING[name]
    defaults = config_class()
    options = {
        option: size
        for option, size in (SIZES | kind.options).items()
        if hasattr(defaults, option)
        and not isinstance(getattr(defaults, option), dict)
        and not isinstance(getattr(config_class, option, None), property)
    }
    try:
        types_of_layers = list(getattr(defaults, "layer_types", None) or [])[:2]
        config = config_class(
            **options, **({"layer_types": types_of_layers} if types_of_layers else {})
        )
    except AttributeError:  # some derive them
        config = config_class(**options)
    config._experts_implementation = experts
    torch.manual_seed(0)
    module = getattr(transformers, model)(config)
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    if n_parameters > MOST_PARAMETERS:
        raise ValueError(f"{n_parameters} parameters are too many")
    # Of grouped products torch has those in single precision alone.
    dtype = torch.float32 if experts == "grouped_mm" else torch.float64
    generator = torch.Generator().manual_seed(3)
    if "IMAGE" in kind.table:
        X = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64).to(dtype)
    else:
        X = torch.randint(0, 23, (4, 9), generator=generator)
    return _randomised(module.to(dtype).eval()), X


def _randomised(module: nn.Module) -> nn.Module:
    """Move all parameters off their initial values: zeros and ones hide errors."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.5 * noise / fan_in**0.5).to(parameter.dtype))
    return module


def _norms(module: nn.Module, X: Tensor, kind: Kind, engine: str) -> tuple[Any, str, list[str]]:
    runner = GradientEngine(
        module, log_likelihood=lambda m, X, generator: kind.read(m, X), engine=engine
    )
    norms = SquaredNorms(layer_layout(module))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runner.run(X, norms)
    reasons = [str(w.message) for w in caught if issubclass(w.category, EngineWarning)]
    return norms.result(), runner.strategy, reasons


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Give up what takes longer: some configurations are large whatever they are told."""

    def give_up(number: int, frame: types.FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120]


if __name__ == "__main__":
    main()
