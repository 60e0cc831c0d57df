"""The block `retrain`."""

from __future__ import annotations

from pydantic import Field

from secateur.definition.declared import Declared


class RetrainDefinition(Declared):
    """What `secateur retrain` begins with, and when it searches anew. `secateur run` takes no notice of it."""

    weights: str | None = Field(
        None,
        description="The newly trained weights: a file or folder, `models:/NAME@ALIAS` or `models:/NAME/VERSION` of an MLflow "
        "registry, or a training, `FILE.py:NAME`, which is called with a folder to write into and returns the path of the "
        "weights. Left out, the workload knows where they are.",
    )
    option: str = Field("weights", description="The workload's option that takes the path of the weights.")
    moved: float = Field(
        0.3,
        ge=0.0,
        le=1.0,
        description="How far the groups' shares of the sensitivity may move (0: not at all, 1: wholly elsewhere) before the "
        "choice that serves is no longer tried and a search begins.",
    )
