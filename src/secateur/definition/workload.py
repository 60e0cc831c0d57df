"""The block `workload`."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from secateur.definition.declared import Declared


class WorkloadReference(Declared):
    """The factory that makes model and data. Further keys are passed to it as keyword arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    factory: str = Field(
        description="`module:attribute` or `path/to/file.py:attribute`; the path is relative to the project.",
        examples=["secateur.workloads.digits:workload", "my_model.py:workload"],
    )

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the factory."""
        return dict(self.model_extra or {})

    @property
    def as_written(self) -> dict[str, Any]:
        """Factory and options with their `${NAME}` unexpanded: this is what may be logged."""
        written = self._source.written(self._path) if self._source else None
        return dict(written) if isinstance(written, dict) else {"factory": self.factory, **self.options}
