"""The block `sparse_training`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secateur.definition.declared import Declared


class SparseTrainingDefinition(Declared):
    """Training before the search, in which a penalty makes channels small; candidates are cut from the network that it gives.

    Everything is compared with the original all the same.
    """

    penalty: Literal["group_lasso", "bn_l1"] = Field(
        "group_lasso",
        description="What the loss is raised by, over all channels that may leave: the norm of the weights that write a "
        "channel, in all coupled layers together (group_lasso; Wen et al. 2016, arXiv:1608.03665), or the absolute scales of its "
        "batch norms (bn_l1; Liu et al. 2017, arXiv:1708.06519).",
    )
    strength: float = Field(
        gt=0.0,
        le=1e6,
        description="Factor of the penalty, a sum over channels. `secateur check` says by how much a channel can shrink.",
    )
    epochs: int = Field(10, ge=1, le=100_000, description="Passes over the training data.")
    learning_rate: float = Field(
        0.02,
        gt=0.0,
        le=1000.0,
        description="Peak of the cosine schedule. Batches, weight decay and distillation are those of `recover`.",
    )
