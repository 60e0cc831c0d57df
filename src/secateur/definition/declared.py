"""What every part of a definition is: strict, frozen, and able to say where it stands."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from secateur.definition.source import Source

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Declared(BaseModel):
    """A part of a definition. It remembers where it stands, so that later stages can point at the line."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    _source: Source | None = PrivateAttr(default=None)
    _path: tuple[str | int, ...] = PrivateAttr(default=())

    def placed(self, source: Source, path: tuple[str | int, ...]) -> None:
        """Remember the source of this part and of all parts inside it."""
        self._source, self._path = source, path
        for name, field in type(self).model_fields.items():
            value, key = getattr(self, name), field.alias or name
            entries: dict[tuple[str | int, ...], Any] = {(): value} if isinstance(value, Declared) else {}
            if isinstance(value, list):
                entries = {(i,): entry for i, entry in enumerate(value)}
            elif isinstance(value, dict):
                entries = {(k,): entry for k, entry in value.items()}
            for inner, entry in entries.items():
                if isinstance(entry, Declared) and entry._source is None:  # a referenced file has placed its own parts
                    entry.placed(source, (*path, key, *inner))

    def where(self, *path: str | int) -> str:
        """`file:line` of this part, or of something inside it."""
        return self._source.where((*self._path, *path)) if self._source else "definition"
