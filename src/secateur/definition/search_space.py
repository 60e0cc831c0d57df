"""The block `search_space`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from secateur.definition.declared import Declared, Fraction


class GroupRule(Declared):
    """What may be done to the groups that match. The first rule that matches a group decides."""

    match: str = Field("*", description="Glob on group names (a group is named after its root layer), e.g. `layer3.*`.")
    types: list[str] = Field(
        default=["Conv2d", "Linear"], min_length=1, description="Class names of the root layers that this rule covers."
    )
    methods: list[str] = Field(
        min_length=1, description="Saliency criteria among which the search chooses; see `secateur list methods`."
    )
    removed: tuple[Fraction, Fraction] = Field(
        (0.0, 0.8),
        description="Lowest and highest removed fraction of the group's channels. With a lowest fraction above 0 the "
        "group cannot stay whole.",
    )
    multiple_of: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["device"] = Field(
        1,
        description="Channel counts that stay are multiples of this (the whole width need not be). Kernels commonly compute "
        "blocks of 8 or 16; `device` measures the block of the declared device (half of it, and so on, for groups no wider).",
    )
    at_least: int = Field(1, ge=1, le=1_000_000, description="Channels that must stay.")

    @field_validator("removed")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"the lowest removed fraction ({value[0]}) must be below the highest ({value[1]})")
        return value


class SearchSpaceDefinition(Declared):
    """Which groups may be cut, how much, and by which methods."""

    groups: list[GroupRule] = Field(min_length=1, description="Rules; the first that matches a group decides.")
    exclude: list[str] = Field(default=[], description="Globs on layer names: a group with such a layer stays whole.")
