"""secateur: compress trained PyTorch models by a multi-objective search, verified on the device.

The package builds what the folders `pipelines/`, `search_spaces/` and `evaluators/` of a project declare. From Python, `run` and
`check` are the commands of those names, `open_run` finds a run, and `compress` takes a module in a notebook. `Workload` and
`DataRoles` are what a project's own factory returns; `load_compressed` reads back a compressed model.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Checked",
    "DataRoles",
    "Listener",
    "Progress",
    "Run",
    "SecateurError",
    "Workload",
    "__version__",
    "check",
    "compress",
    "load_compressed",
    "open_run",
    "run",
]

if TYPE_CHECKING:
    from secateur.api import Checked, Listener, Progress, Run, check, compress, open_run, run
    from secateur.compression.storage import load_compressed
    from secateur.errors import SecateurError
    from secateur.records import DataRoles, Workload

_PUBLIC = {
    **dict.fromkeys(("Checked", "Listener", "Progress", "Run", "check", "compress", "open_run", "run"), "secateur.api"),
    "SecateurError": "secateur.errors",
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


def __dir__() -> list[str]:
    return __all__
