"""The registry: a run's record and files in MLflow, sent once, however often it is tried.

Nothing is logged while a search runs: a dead tracking server blocks every call for minutes. The run writes everything to disk;
`publish` sends it, finds by tags what an earlier attempt has already sent, and registers last. `tracking` alone imports MLflow.
"""

from secateur.registry.embedded import DATABASE, open_embedded, relocate
from secateur.registry.history import registry
from secateur.registry.package import DENSE, Package, Published, Target, server_named
from secateur.registry.publishing import publish

__all__ = [
    "DATABASE",
    "DENSE",
    "Package",
    "Published",
    "Target",
    "open_embedded",
    "publish",
    "registry",
    "relocate",
    "server_named",
]
