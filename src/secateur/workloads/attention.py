"""torch's attention with its projections as layers of their own, so that heads and channels can be taken out of it.

`nn.MultiheadAttention` holds three projections in one tensor and takes as many features as its heads have together, so it cannot
have fewer heads than its stream has room for. This file needs torch alone: exported models have a copy of it beside them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn


def opened(model: nn.Module) -> nn.Module:
    """The model, changed in place: each `nn.MultiheadAttention` becomes a `SplitAttention` that computes the same.

    Subclasses, attention with hooks, and attention with `add_bias_kv` or `add_zero_attn` stay what they are.
    """
    split: dict[nn.Module, SplitAttention] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if name and _can_be_split(layer):
            owner, _, attribute = name.rpartition(".")
            split[layer] = split.get(layer) or SplitAttention(layer)
            setattr(model.get_submodule(owner), attribute, split[layer])
        elif isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False  # nested tensors are for its fused attention alone
    return model


def _can_be_split(layer: nn.Module) -> bool:
    plain = type(layer) is nn.MultiheadAttention and layer.bias_k is None and not layer.add_zero_attn
    return plain and not layer._forward_hooks and not layer._forward_pre_hooks


class SplitAttention(nn.Module):
    """What `nn.MultiheadAttention` computes, with the linear layers `q_proj`, `k_proj`, `v_proj` and `out_proj`.

    Each has as many heads of `head_dim` features as its layers have left. `forward` takes and gives what torch's does; the hint
    `is_causal` is not needed. The attributes that torch's transformer layers ask for are there; they lead to no fused kernel.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2.
    """

    in_proj_weight = in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """attention: without `add_bias_kv` and `add_zero_attn`; its weights are copied."""
        super().__init__()
        self.head_dim, self.dropout, self.batch_first = attention.head_dim, attention.dropout, attention.batch_first
        if attention.in_proj_weight is not None:
            weights = list(attention.in_proj_weight.chunk(3))
        else:
            weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
        biases = [None] * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)
        self.train(attention.training)

    @property
    def num_heads(self) -> int:
        """Heads that are left."""
        return int(self.q_proj.out_features // self.head_dim)

    @property
    def embed_dim(self) -> int:
        """Features of what it gives."""
        return self.out_proj.out_features

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002 # torch's interface
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002
        is_causal: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> tuple[Tensor, Tensor | None]:
        """What `nn.MultiheadAttention` gives for the same arguments."""
        batch = 0 if self.batch_first or query.dim() == 2 else 1
        given = (query, key, value) if query.dim() == 3 else (query[None], key[None], value[None])
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (self._heads(layer(x.transpose(0, batch))) for layer, x in zip(layers, given, strict=True))
        mask = self._mask(q, attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(2, 3) / math.sqrt(self.head_dim)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2)).transpose(0, batch)
        if query.dim() == 3:
            return output, weights
        return output[0], None if weights is None else weights[0]

    def _heads(self, x: Tensor) -> Tensor:
        """(n, tokens, features) → (n, heads, tokens, head_dim)."""
        return torch.unflatten(x, -1, (-1, self.head_dim)).transpose(1, 2)

    def _mask(self, q: Tensor, attention: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """Both masks as what is added to the scores (n, heads, queries, keys), None where there is neither."""
        masks = []
        if attention is not None:
            masks.append(
                attention[None, None] if attention.dim() == 2 else torch.unflatten(attention, 0, (q.shape[0], -1))
            )
        if padding is not None:
            masks.append(padding.view(q.shape[0], 1, 1, -1))
        added = [
            torch.zeros(m.shape, dtype=q.dtype, device=q.device).masked_fill(m, -torch.inf)
            if m.dtype == torch.bool
            else m
            for m in masks
        ]
        return sum(added[1:], added[0]) if added else None


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer
