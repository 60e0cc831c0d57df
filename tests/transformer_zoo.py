"""Small versions of models of `transformers`, from their configurations: two layers or stages, 16 to 64 channels, random weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from zoo import Architecture

PICTURE, TOKENS = 32, 12


def pictures(samples: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(samples, 3, PICTURE, PICTURE, generator=torch.Generator().manual_seed(seed)),)


def tokens(samples: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(3, 64, (samples, TOKENS), generator=torch.Generator().manual_seed(seed)),)


def sounds(samples: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(samples, 8, 2 * TOKENS, generator=torch.Generator().manual_seed(seed)),)


def _of(name: str, inputs: Any, **options: Any) -> Architecture:
    """name: of a model's class; its configuration takes the options."""

    def build() -> nn.Module:
        kind = getattr(transformers, name)
        return kind(kind.config_class(**options))

    return Architecture(build, inputs)


STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 2]}
VISION = {
    "image_size": PICTURE, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
TEXT = {
    "vocab_size": 64, "hidden_size": 32, "embedding_size": 16, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip

ZOO = {
    "ResNet (bottlenecks)": _of("ResNetForImageClassification", pictures, **STAGES),
    "RegNet": _of("RegNetForImageClassification", pictures, **STAGES, groups_width=8),
    "MobileNetV2": _of(
        "MobileNetV2ForImageClassification", pictures, image_size=PICTURE, depth_multiplier=0.35, depth_divisible_by=4,
        min_depth=4, expand_ratio=3,
    ),
    "ConvNeXt": _of("ConvNextForImageClassification", pictures, num_stages=2, hidden_sizes=[16, 32], depths=[1, 2]),
    "ViT": _of("ViTForImageClassification", pictures, **VISION),
    "DeiT": _of("DeiTForImageClassification", pictures, **VISION),
    "Swin": _of(
        "SwinForImageClassification", pictures, image_size=PICTURE, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
        window_size=4, mlp_ratio=2.0, attn_implementation="eager",
    ),
    "SegFormer": _of(
        "SegformerForSemanticSegmentation", pictures, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1],
        hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[2, 4], mlp_ratios=[2, 2],
        decoder_hidden_size=16,
    ),
    "BERT": _of("BertForSequenceClassification", tokens, **TEXT),
    "DistilBERT": _of(
        "DistilBertForSequenceClassification", tokens, vocab_size=64, dim=32, hidden_dim=64, n_layers=2, n_heads=4,
        max_position_embeddings=32,
    ),
    "ELECTRA": _of("ElectraForSequenceClassification", tokens, **TEXT),
    "GPT-2": _of("GPT2LMHeadModel", tokens, vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4, use_cache=False),
    "Llama, 4 heads of queries, 2 of keys and values": _of(
        "LlamaForCausalLM", tokens, vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, use_cache=False,
    ),
    "Whisper, encoder": _of(
        "WhisperForAudioClassification", sounds, d_model=32, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=64, num_mel_bins=8, max_source_positions=TOKENS, classifier_proj_size=16,
        vocab_size=64, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    ),
}  # fmt: skip
"""Without their weights, which nothing downloads."""
