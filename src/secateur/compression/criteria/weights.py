"""Criteria of single weights: of one layer's weights, one score each; the lowest become zero first.

A criterion sees one layer's weights as (rows, inputs, kernel), a row for each output channel, and gives scores of that shape.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secateur.plugins import Registry
from secateur.records import Group

RIDGE = 1e-2
"""Of the mean diagonal of a Gram matrix, as for channels."""
Gradients = Literal["loss", "hessian product", "synaptic flow"]
"""Which derivatives a criterion sees: see the functions of these in `compression/weight_gradients.py`."""


@dataclass(frozen=True)
class LayerWeights:
    """What a criterion sees.

    name: of the layer. values: (rows, inputs, kernel), float32, the network's own memory: not to be changed in place. gradients:
    the derivatives that the criterion asks for, the same shape; None for criteria without.
    gram: (groups, inputs · kernel, inputs · kernel), mean of x xᵀ of what the rows of each group of a convolution read; None for
    criteria without, and where it is not known: its inputs then count as equal and apart.
    """

    name: str
    values: Tensor
    gradients: Tensor | None = None
    gram: Tensor | None = None

    @property
    def along_gradients(self) -> Tensor:
        """Each weight times its derivative."""
        assert self.gradients is not None  # noqa: S101 # the criterion declares that it needs them
        return self.values * self.gradients

    def of_columns(self, of_gram: Callable[[Tensor], Tensor]) -> Tensor:
        """A figure of each column of the weights: (rows, inputs, kernel). of_gram: (columns, columns) → (columns,)."""
        if self.gram is None:
            return torch.ones_like(self.values)
        figures = torch.stack([of_gram(gram) for gram in self.gram])
        return figures.repeat_interleave(len(self.values) // len(figures), 0).view_as(self.values)


@dataclass(frozen=True)
class WeightMethod:
    """A criterion: its function, one line for people, its needs, and whether scores of different layers can be compared.

    gradients: which derivatives by the weights it sees. comparable: one threshold for all layers says how much each of them loses.
    extra: the optional dependency that it needs, or nothing.
    """

    score: Callable[[LayerWeights], Tensor]
    summary: str
    gradients: Gradients | None = None
    needs_grams: bool = False
    comparable: bool = True
    extra: str = ""

    @property
    def needs_data(self) -> bool:
        """Whether it sees calibration data."""
        return self.needs_grams or self.gradients in ("loss", "hessian product")

    @property
    def needs(self) -> str:
        """What it needs, in words; empty for the weights alone."""
        return "calibration data" if self.needs_data else ""

    def fits(self, group: Group) -> bool:
        """Whether it says anything about a group: some layer writes it with weights of its own."""
        return bool(group.weights)


def magnitude(weights: LayerWeights) -> Tensor:
    """Absolute value, |w|. Source: Han et al. 2015, arXiv:1506.02626."""
    return weights.values.abs()


def lamp(weights: LayerWeights) -> Tensor:
    """w² over the sum of the layer's squares that are not smaller, in (0, 1]. Source: Lee et al. 2021, arXiv:2010.07611, eq. 3."""
    squares = weights.values.square().flatten()
    ascending = squares.argsort(stable=True)
    remaining = squares[ascending].double().flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[ascending] = (squares[ascending] / remaining.clamp_min(torch.finfo(torch.float64).tiny)).float()
    return scores.view_as(weights.values)


def wanda(weights: LayerWeights) -> Tensor:
    """The place of |w|·‖x‖ among the weights of its row, in (0, 1]: every output channel loses the same share.

    ‖x‖ is the root mean square of what the weight reads on calibration data. Source: Sun et al. 2023, arXiv:2306.11695, eq. 1; it
    compares weights within a row as well.
    """
    scores = (weights.values.abs() * weights.of_columns(lambda gram: gram.diagonal().clamp_min(0).sqrt())).flatten(1)
    places = scores.argsort(dim=1, stable=True).argsort(dim=1)
    shares: Tensor = (places + 1) / scores.shape[1]
    return shares.view_as(weights.values)


def obs(weights: LayerWeights) -> Tensor:
    """w² / [(G + λI)⁻¹]ⱼⱼ: by how much the squared error of the output grows if all other weights of the row make up for it.

    Source: Hassibi & Stork 1992, with the layer's own Gram matrix G as in Frantar & Alistarh 2023 (SparseGPT), arXiv:2301.00774,
    eq. 3; we rank once, and what is left is refitted afterwards.
    """

    def curvature(gram: Tensor) -> Tensor:
        gram = gram.double()
        scale = gram.diagonal().mean()
        ridge = RIDGE * (scale if scale > 0 else torch.ones_like(scale))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram + ridge * torch.eye(len(gram))))
        return (1 / inverse.diagonal()).float()

    return weights.values.square() * weights.of_columns(curvature)


def snip(weights: LayerWeights) -> Tensor:
    """|w · ∂L/∂w|, the gradient a mean over calibration data.

    Source: Lee et al. 2019, arXiv:1810.02340, eq. 6, there at initialisation, here on trained weights.
    """
    return weights.along_gradients.abs()


def synflow(weights: LayerWeights) -> Tensor:
    """|w · ∂R/∂w| / |R|: the share of the network's flow R that passes through the weight. No data is seen.

    R is the sum of the outputs for inputs of ones, with absolute values in place of all parameters. Source: Tanaka et al. 2020,
    arXiv:2006.05467, eqs. 1–2, at initialisation and in a hundred rounds of pruning; here once, on trained weights, whose batch
    norms keep their stored variance and lose their mean, which is 0 at initialisation.
    """
    return weights.along_gradients.abs()


def grasp(weights: LayerWeights) -> Tensor:
    """By how much removing the weight lowers the gradient's norm, w · (H g), brought into (0, 1) in its order: ½ is no change.

    H and g are Hessian and gradient of the loss on calibration data, x = w · (H g) in units of its root mean square over the
    network, and the score ½ (1 + x / (1 + |x|)): a mere shift would lose the order of small values to rounding. Source: Wang et
    al. 2020, arXiv:2002.07376, eq. 8, where the largest −w · (H g) go first; there at initialisation and with outputs divided by
    200, here on trained weights and the workload's loss.
    """
    change = weights.along_gradients
    below = 0.5 / (1 + change.abs())
    return torch.where(change < 0, below, 1 - below)


def random(weights: LayerWeights) -> Tensor:
    """Uniform noise, the same for a layer's name at every run: the control arm. In [0, 1)."""
    generator = torch.Generator().manual_seed(zlib.crc32(weights.name.encode()))
    return torch.rand(weights.values.shape, generator=generator)


def _nni_level(weights: LayerWeights) -> Tensor:
    from secateur.compression.criteria import nni_pruners  # an extra, and seconds of imports

    return nni_pruners.level(weights)


WEIGHT_METHODS: Registry[WeightMethod] = Registry(
    "secateur.weight_criteria",
    WeightMethod,
    {
        "magnitude": WeightMethod(magnitude, "absolute value"),
        "lamp": WeightMethod(lamp, "layer-adaptive share of the layer's energy"),
        "wanda": WeightMethod(
            wanda, "value times what it reads, compared within its row", needs_grams=True, comparable=False
        ),
        "obs": WeightMethod(
            obs,
            "error of the layer's output where its other weights make up for it",
            needs_grams=True,
            comparable=False,  # an error of one layer's output says nothing of another's
        ),
        "snip": WeightMethod(snip, "first-order change of the loss, on calibration data", gradients="loss"),
        "grasp": WeightMethod(
            grasp, "what the gradient's norm loses, on calibration data", gradients="hessian product"
        ),
        "synflow": WeightMethod(
            synflow, "share of the flow of ones through absolute weights", gradients="synaptic flow"
        ),
        "random": WeightMethod(random, "the control: seeded noise"),
        "nni_level": WeightMethod(_nni_level, "what LevelPruner masks by (NNI)", extra="nni"),
    },
)
"""The registry. A project adds its own with `WEIGHT_METHODS['name'] = WeightMethod(...)` in the module of its workload."""
