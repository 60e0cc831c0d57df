"""Inputs that cost a model little: how channels are coupled does not depend on how many pixels or tokens there are."""

from __future__ import annotations

from collections.abc import Iterator

from secateur.workloads.pytrees import PyTree, mapped, tensors

LONG = 128
"""Pixels along an edge, or tokens, of which a quarter is enough."""


def shortened(example: PyTree) -> Iterator[PyTree]:
    """A quarter of all long dimensions, then of the first one besides the samples; nothing where none is long.

    Not every model takes inputs of another size: whoever asks tries.
    """
    for last in (None, 2):
        short = mapped(lambda x: x[:, *(slice(n // 4 if n >= LONG else n) for n in x.shape[1:last])], example)  # noqa: B023 # called at once
        if [x.shape for x in tensors(short)] != [x.shape for x in tensors(example)]:
            yield short
