"""secateur: compress trained PyTorch models by a multi-objective search, verified on the device.

The package builds what the folders `pipelines/`, `search_spaces/` and `evaluators/` of a project declare. Most people use
the command `secateur`; from Python, `load_compressed` reads back a compressed model, and `Workload` and `DataRoles` are
what a project's own factory returns.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from secateur.compression.storage import load_compressed as load_compressed
    from secateur.records import DataRoles as DataRoles
    from secateur.records import Workload as Workload

_PUBLIC = {
    "load_compressed": "secateur.compression.storage",
    "DataRoles": "secateur.records",
    "Workload": "secateur.records",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use: `secateur --help` must not wait for torch."""
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'secateur' has no attribute {name!r}")
