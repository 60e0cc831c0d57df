"""Least squares: the layers that read cut channels get the weights that come nearest to what they computed before.

For a layer W x + b of which the inputs S stay, over the rows x of calibration data with Gram matrix G = mean of x xᵀ:

    W'_S = W_S + W_R G_RS (G_SS + λ I)⁻¹        λ = 1e-3 of the mean diagonal, R the inputs that go

where a layer with a bias reads a constant 1 besides, which always stays and is not drawn to its old weight. Each output channel is
a problem of its own, so what is solved for all of them serves every candidate in which the same inputs stay.

Source: Luo et al. 2017 (ThiNet), arXiv:1707.06342, and He et al. 2017, arXiv:1707.06168, for pruned convolutions; the ridge towards
the old weights is ours.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from secateur.compression.compensation.gram import Grams
from secateur.compression.compensation.readers import Reader, kept_columns, kept_rows, matrix, overwrite, zeros_in
from secateur.compression.compensation.sparse import made_up_for
from secateur.records import Plan

RIDGE = 1e-3
MOST_REMEMBERED = 2**26
"""Weights of solved layers that are kept for the next candidate: 256 MB."""


def regressed(error: Tensor, gram: Tensor, free: int) -> Tensor:
    """Ridge regression of what given weights get wrong, one problem a convolution group: what is to be added to them.

    error: (groups, out, columns), mean of (y − weight x) xᵀ. gram: (groups, columns, columns), mean of x xᵀ. free: of the last
    columns so many are not drawn to the given weights. Returns (groups, out, columns), float64; zeros where all inputs are
    zero.
    """
    gram = gram.to(torch.float64, copy=True)
    drawn = gram.shape[2] - free
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2)[:, :drawn].mean(1)
    gram.diagonal(dim1=1, dim2=2)[:, :drawn] += ridge[:, None]
    factor, failed = torch.linalg.cholesky_ex(gram)
    return torch.cholesky_solve(error.double().mT, factor).mT.masked_fill(failed[:, None, None] != 0, 0.0)


@dataclass(frozen=True)
class LeastSquares:
    """Refits the readers of one dense network. Solutions are remembered by layer and cut inputs, the latest ones first."""

    dense: nn.Module
    grams: Grams
    _solutions: OrderedDict[tuple[str, tuple[int, ...]], Tensor] = field(default_factory=OrderedDict)

    @torch.no_grad()
    def refit(self, module: nn.Module, plan: Plan) -> None:
        """Overwrite, in place, weights and biases of the layers that read cut channels or are masked and have a Gram matrix."""
        for name in dict.fromkeys((*plan.removed["in"], *plan.masked)):
            if name not in self.grams:
                continue
            dense, layer = (cast("Reader", m.get_submodule(name)) for m in (self.dense, module))
            gone = plan.removed["in"].get(name, ())
            weights = self._weights(name, dense, gone) if gone else matrix(dense).flatten(0, 1)
            if weights is None:
                continue
            weights = weights[kept_rows(dense, plan.removed["out"].get(name, ()))]
            overwrite(layer, self._masked(name, layer, weights, gone) if name in plan.masked else weights)

    def _masked(self, name: str, layer: Reader, weights: Tensor, gone: tuple[int, ...]) -> Tensor:
        """Weights with the zeros that the layer has now, made up for. weights: (out, columns) of all groups that are left."""
        zeros, gram = zeros_in(layer), self.grams[name]
        stays = kept_columns(cast("Reader", self.dense.get_submodule(name)), gone)
        if len(gram) != len(zeros) or stays is None:  # whole groups of a convolution have left
            return weights.masked_fill(zeros.flatten(0, 1), 0.0)
        read = gram[torch.arange(len(gram))[:, None, None], stays[:, :, None], stays[:, None]]
        return made_up_for(weights.view_as(zeros), read, zeros).flatten(0, 1)

    def _weights(self, name: str, dense: Reader, gone: tuple[int, ...]) -> Tensor | None:
        """(out, columns that stay), for all outputs of the dense layer; None where nothing is to be solved."""
        if (name, gone) in self._solutions:
            self._solutions.move_to_end((name, gone))
            return self._solutions[name, gone]
        stays = kept_columns(dense, gone)
        if stays is None:
            return None
        weight, gram = matrix(dense), self.grams[name]
        gram = gram[:, : weight.shape[2], : weight.shape[2]]  # without the constant where there is no bias
        each, goes = torch.arange(len(gram))[:, None], _others(stays, weight.shape[2])
        old, lost = weight.mT[each, stays].mT, weight.mT[each, goes].mT
        shared = gram[each, goes].mT[each, stays]  # (groups, columns that stay, columns that go)
        read = gram[each, stays].mT[each, stays]
        lost, shared, free = lost.double(), shared.mT.double(), int(dense.bias is not None)
        few = shared.shape[1] < lost.shape[1]  # than outputs: the same product is cheaper from its other end
        moves = lost @ regressed(shared, read, free) if few else regressed(lost @ shared, read, free)
        solution = (old + moves).flatten(0, 1).float()
        self._solutions[name, gone] = solution
        while len(self._solutions) > 1 and sum(s.numel() for s in self._solutions.values()) > MOST_REMEMBERED:
            self._solutions.popitem(last=False)
        return solution


def _others(chosen: Tensor, columns: int) -> Tensor:
    """The columns that are not chosen, group by group: (groups, chosen) → (groups, others)."""
    left = torch.ones(len(chosen), columns, dtype=torch.bool).scatter_(1, chosen, value=False)
    return left.nonzero()[:, 1].view(len(chosen), -1)
