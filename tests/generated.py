"""Random networks out of blocks that couple channels in every way that people write: images (n, 3, 8, 8) → (n, 5)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import Tensor, nn

from nets import shaken


class Block(nn.Module):
    """Layers and what is computed with them. Channels in are always a multiple of 4; `out` is how many come out."""

    def __init__(self, out: int, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.out, self._forward = out, forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def _conv(channels_in: int, channels_out: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, groups=groups)


def plain(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.relu(m.conv(x)), conv=_conv(c, d))


def normed(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.silu(m.norm(m.conv(x))), conv=_conv(c, d), norm=nn.BatchNorm2d(d))


def depthwise(c: int, d: int) -> Block:
    forward = lambda m, x: F.relu(m.point(F.hardswish(m.depth(x))))  # noqa: E731
    return Block(d, forward, depth=_conv(c, c, c), point=nn.Conv2d(c, d, 1))


def depthwise_twice_as_wide(c: int, d: int) -> Block:
    forward = lambda m, x: m.point(m.depth(x))  # noqa: E731
    return Block(d, forward, depth=_conv(c, 2 * c, c), point=nn.Conv2d(2 * c, d, 1))


def grouped(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.relu(m.conv(x)), conv=_conv(c, d, 4))


def group_norm(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.relu(m.norm(m.conv(x))), conv=_conv(c, d), norm=nn.GroupNorm(4, d))


def instance_norm(c: int, d: int) -> Block:
    forward = lambda m, x: F.relu(m.norm(m.conv(x)))  # noqa: E731
    return Block(d, forward, conv=_conv(c, d), norm=nn.InstanceNorm2d(d, affine=True))


def layer_norm(c: int, d: int) -> Block:
    forward = lambda m, x: m.norm(m.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # noqa: E731
    return Block(d, forward, conv=_conv(c, d), norm=nn.LayerNorm(d))


def residual(c: int, d: int) -> Block:
    return Block(c, lambda m, x: F.relu(x + m.two(F.relu(m.one(x)))), one=_conv(c, d), two=_conv(d, c))


def concatenated(c: int, d: int) -> Block:
    return Block(c + d, lambda m, x: torch.cat([x, F.relu(m.conv(x))], 1), conv=_conv(c, d))


def gated_halves(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        value, gate = m.conv(x).chunk(2, 1)
        return value * torch.sigmoid(gate)

    return Block(d, forward, conv=_conv(c, 2 * d))


def gated_linear_unit(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.glu(m.conv(x), 1), conv=_conv(c, 2 * d))


def split_and_joined(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        first, second = m.conv(x).split([d // 4, d - d // 4], 1)
        return torch.cat([second, F.relu(m.inner(first)), first], 1)

    return Block(d + d // 4, forward, conv=_conv(c, d), inner=_conv(d // 4, d // 4))


def sliced(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.relu(m.conv(x)[:, 1::2]), conv=_conv(c, 2 * d))


def shuffled_into_space(c: int, d: int) -> Block:
    forward = lambda m, x: F.max_pool2d(F.pixel_shuffle(F.relu(m.conv(x)), 2), 2)  # noqa: E731
    return Block(d, forward, conv=_conv(c, 4 * d))


def flipped(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.relu(m.conv(x)).flip(1), conv=_conv(c, d))


def rolled(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.relu(m.conv(x)).roll(1, 1), conv=_conv(c, d))


def shuffled(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = F.relu(m.conv(x))
        return y.view(len(y), 4, -1, *y.shape[2:]).transpose(1, 2).flatten(1, 2)

    return Block(d, forward, conv=_conv(c, d))


def divided_by_groups(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.conv(x).view(len(x), 4, -1, *x.shape[2:])
        return (y / (1 + y.abs().amax(2, keepdim=True))).flatten(1, 2)

    return Block(d, forward, conv=_conv(c, d))


def largest_of_pairs(c: int, d: int) -> Block:
    forward = lambda m, x: m.conv(x).view(len(x), d, 2, *x.shape[2:]).amax(2)  # noqa: E731
    return Block(d, forward, conv=_conv(c, 2 * d))


def squeeze_and_excite(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.conv(x)
        return y * torch.sigmoid(m.excite(F.relu(m.squeeze(y.mean((2, 3), keepdim=True)))))

    return Block(d, forward, conv=_conv(c, d), squeeze=nn.Conv2d(d, 4, 1), excite=nn.Conv2d(4, d, 1))


def excited_by_linear_layers(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return x * torch.sigmoid(m.excite(F.relu(m.squeeze(x.mean((2, 3))))))[:, :, None, None]

    return Block(c, forward, squeeze=nn.Linear(c, d), excite=nn.Linear(d, c))


def neighbour_attention(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.conv(x)
        return y * torch.sigmoid(m.over(y.mean((2, 3))[:, None]))[:, 0, :, None, None]

    return Block(d, forward, conv=_conv(c, d), over=nn.Conv1d(1, 1, 3, padding=1))


def padded_shortcut(c: int, d: int) -> Block:
    forward = lambda m, x: F.relu(F.pad(x, (0, 0, 0, 0, d // 2, d - d // 2)) + m.conv(x))  # noqa: E731
    return Block(c + d, forward, conv=_conv(c, c + d))


def transposed(c: int, d: int) -> Block:
    return Block(d, lambda m, x: F.max_pool2d(F.relu(m.conv(x)), 2), conv=nn.ConvTranspose2d(c, d, 2, 2))


def learnt_slope(c: int, d: int) -> Block:
    return Block(d, lambda m, x: m.slope(m.conv(x)), conv=_conv(c, d), slope=nn.PReLU(d))


def one_slope(c: int, d: int) -> Block:
    return Block(d, lambda m, x: m.slope(m.conv(x)), conv=_conv(c, d), slope=nn.PReLU())


def learnt_scale(c: int, d: int) -> Block:
    block = Block(d, lambda m, x: m.conv(x) * m.scale[:, None, None], conv=_conv(c, d))
    block.register_parameter("scale", nn.Parameter(torch.rand(d)))
    return block


def mixed_channels_last(c: int, d: int) -> Block:
    forward = lambda m, x: m.two(F.gelu(m.one(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)  # noqa: E731
    return Block(c, forward, one=nn.Linear(c, d), two=nn.Linear(d, c))


def attention(c: int, d: int) -> Block:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (f(x).flatten(2).view(len(x), 4, -1, x.shape[2] * x.shape[3]) for f in (m.q, m.k, m.v))
        mixed = v @ (q.transpose(2, 3) @ k).softmax(-1)
        return x + m.o(mixed.flatten(1, 2).view(len(x), -1, *x.shape[2:]))

    return Block(c, forward, **{n: nn.Conv2d(c, d, 1) for n in "qkv"}, o=nn.Conv2d(d, c, 1))


def reused(c: int, d: int) -> Block:  # as wide as what comes in
    return Block(c, lambda m, x: m.conv(F.relu(m.conv(x))), conv=_conv(c, c))


def two_branches(c: int, d: int) -> Block:
    forward = lambda m, x: torch.maximum(m.one(x), F.relu(m.two(x)))  # noqa: E731
    return Block(d, forward, one=_conv(c, d), two=_conv(c, d))


def doubled(c: int, d: int) -> Block:
    forward = lambda m, x: (lambda y: torch.cat([y, -y], 1))(m.conv(x)).relu()  # noqa: E731
    return Block(2 * d, forward, conv=_conv(c, d))


def sigmoid(c: int, d: int) -> Block:
    return Block(d, lambda m, x: torch.sigmoid(m.conv(x)), conv=_conv(c, d))


def softmax(c: int, d: int) -> Block:
    return Block(d, lambda m, x: m.conv(x).softmax(1), conv=_conv(c, d))


BLOCKS = (
    plain, normed, depthwise, depthwise_twice_as_wide, grouped, group_norm, instance_norm, layer_norm, residual, concatenated,
    gated_halves, gated_linear_unit, split_and_joined, sliced, shuffled_into_space, flipped, rolled, shuffled, divided_by_groups,
    largest_of_pairs, squeeze_and_excite, excited_by_linear_layers, neighbour_attention, padded_shortcut, transposed, learnt_slope,
    one_slope, learnt_scale, mixed_channels_last, attention, reused, two_branches, doubled, sigmoid, softmax,
)  # fmt: skip


def averaged(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def squeezed(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1).squeeze()


def flattened(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 4).flatten(1)


def viewed(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 4).contiguous().view(len(x), -1)


def over_channels(x: Tensor) -> Tensor:
    return x.mean(1).flatten(1)


ENDS = {averaged: 1, squeezed: 1, flattened: 4, viewed: 4, over_channels: 0}
"""How maps become vectors, and how many entries a channel gives; 0 for 64 in all."""


class Generated(nn.Module):
    """Stem, blocks, an end, a hidden layer, a head."""

    def __init__(
        self, blocks: Sequence[Callable[[int, int], Block]], end: Callable[[Tensor], Tensor], seed: int
    ) -> None:
        super().__init__()
        draw = random.Random(seed)
        width = draw.choice((4, 8, 12))
        self.stem = _conv(3, width)
        self.blocks = nn.Sequential()
        for block in blocks:
            self.blocks.append(block(width, draw.choice((4, 8, 12))))
            width = self.blocks[-1].out
            if width % 4:
                self.blocks.append(plain(width, 8))
                width = 8
        self.end = end
        self.hidden = nn.Linear(width * ENDS[end] or 64, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.end(self.blocks(F.relu(self.stem(x)))))))


def generated(blocks: Sequence[Callable[[int, int], Block]], end: Callable[[Tensor], Tensor], seed: int) -> nn.Module:
    """A network with random, trained-looking weights: the same for the same arguments."""
    torch.manual_seed(seed)
    return shaken(Generated(blocks, end, seed), seed)
