"""Attention with layers of its own computes what torch's does, whatever it is called with."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nets import shaken
from secateur.workloads.attention import SplitAttention, opened


class Attending(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, **options)

    def forward(self, *given, **named):
        return self.attention(*given, **named)


def pair(**options) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = shaken(Attending(**options))
    return model, opened(copy.deepcopy(model))


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
PADDING = torch.tensor([[False] * 4 + [True], [False] * 5])
CALLS = {
    "plain": {},
    "without weights": {"need_weights": False},
    "weights of each head": {"average_attn_weights": False},
    "causal": {"attn_mask": CAUSAL},
    "causal with the hint": {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
    "added to scores": {"attn_mask": tokens(5, 5)},
    "one mask for each head": {"attn_mask": tokens(6, 5, 5), "need_weights": False},
    "padded": {"key_padding_mask": PADDING},
    "padded and causal": {"key_padding_mask": PADDING, "attn_mask": CAUSAL, "need_weights": False},
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("named", CALLS.values(), ids=CALLS)
def test_it_computes_what_torchs_attention_computes(named, batch_first):
    model, split = pair(batch_first=batch_first)
    assert isinstance(split.attention, SplitAttention)
    x = tokens(2, 5, 12) if batch_first else tokens(5, 2, 12)
    torch.testing.assert_close(split(x, x, x, **named), model(x, x, x, **named), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"kdim": 7, "vdim": 9}, {"kdim": 7, "vdim": 9, "bias": False}])
def test_keys_and_values_of_other_widths(options):
    model, split = pair(batch_first=True, **options)
    given = (tokens(2, 5, 12), tokens(2, 4, 7), tokens(2, 4, 9))
    torch.testing.assert_close(split(*given), model(*given), rtol=1e-4, atol=1e-5)


def test_one_sequence_without_a_batch():
    model, split = pair()
    x = tokens(5, 12)
    torch.testing.assert_close(split(x, x, x), model(x, x, x), rtol=1e-4, atol=1e-5)


def test_torchs_layers_take_it_where_their_fused_kernel_and_nested_tensors_would_be_used():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
    model, nesting = (nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=n)) for n in (False, True))
    nesting.load_state_dict(shaken(model).state_dict())
    split, x = opened(nesting.eval())[0], tokens(2, 5, 12)
    with torch.no_grad():
        torch.testing.assert_close(split(x), model(x), rtol=1e-4, atol=1e-5)
        padded, expected = (encoder(x, src_key_padding_mask=PADDING)[~PADDING] for encoder in (split, model[0]))
    torch.testing.assert_close(padded, expected, rtol=1e-4, atol=1e-5)


def test_an_attention_under_two_names_stays_one():
    model = Attending()
    model.same = model.attention
    assert opened(model).same is model.attention


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_what_it_does_not_compute_stays_torchs(options):
    model = Attending(**options)
    assert type(opened(model).attention) is nn.MultiheadAttention


def test_attention_with_hooks_stays_torchs():
    model = Attending()
    model.attention.register_forward_hook(lambda *_: None)
    assert type(opened(model).attention) is nn.MultiheadAttention
