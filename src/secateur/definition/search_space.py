"""The block `search_space`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from secateur.definition.declared import Declared, Fraction


class GroupRule(Declared):
    """What may be done to the groups that match. The first rule that matches a group decides."""

    match: str = Field("*", description="Glob on group names (a group is named after its root layer), e.g. `layer3.*`.")
    types: list[str] = Field(
        default=["Conv2d", "Linear"],
        min_length=1,
        description="Class names of the root layers that this rule covers. A rule with `depth/...` covers "
        "residual blocks as well: of any class, unless other classes than the default are named here.",
    )
    methods: list[str] = Field(
        min_length=1,
        description="Methods among which the search chooses: criteria by which channels leave (`l2`), single weights become "
        "zero (`weights/magnitude`), weights in a pattern (`n_m/wanda`) or in blocks (`blocks/lamp`), or whole residual blocks are "
        "left out (`depth/influence`); see `secateur list methods`.",
    )
    removed: tuple[Fraction, Fraction] = Field(
        (0.0, 0.8),
        description="Lowest and highest removed fraction of the group's channels. With a lowest fraction above 0 the "
        "group cannot stay whole.",
    )
    zeros: tuple[Fraction, Fraction] = Field(
        (0.0, 0.95),
        description="Lowest and highest share of the group's weights that `weights/...` and `blocks/...` set to zero. "
        "Zeros make a model's download smaller, and nothing faster where the runtime has no kernel for them.",
    )
    patterns: list[Annotated[str, Field(pattern=r"^[1-9]\d?:[1-9]\d?$")]] = Field(
        ["2:4"], min_length=1, description="Patterns of `n_m/...`: of every four inputs two weights stay in `2:4`."
    )
    block: Annotated[str, Field(pattern=r"^[1-9]\d?x[1-9]\d?$")] = Field(
        "4x1", description="Blocks of `blocks/...`: so many output channels by so many inputs become zero together."
    )
    multiple_of: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["device"] = Field(
        1,
        description="Channel counts that stay are multiples of this (the whole width need not be). Kernels commonly compute "
        "blocks of 8 or 16; `device` measures the block of the declared device (half of it, and so on, for groups no wider).",
    )
    at_least: int = Field(1, ge=1, le=1_000_000, description="Channels that must stay.")

    @field_validator("removed", "zeros")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"the lowest fraction ({value[0]}) must be below the highest ({value[1]})")
        return value

    @field_validator("patterns")
    @classmethod
    def _sparse(cls, value: list[str]) -> list[str]:
        for pattern in value:
            kept, among = map(int, pattern.split(":"))
            if kept >= among:
                raise ValueError(f"'{pattern}' keeps all weights; of N:M, N must be below M, as in 2:4")
        return value


class SearchSpaceDefinition(Declared):
    """Which groups may be cut, how much, and by which methods."""

    groups: list[GroupRule] = Field(min_length=1, description="Rules; the first that matches a group decides.")
    exclude: list[str] = Field(default=[], description="Globs on layer names: a group with such a layer stays whole.")
