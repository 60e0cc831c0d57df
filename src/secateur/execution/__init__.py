"""Where evaluations run: in the driver's own process, or in worker processes that may die without taking the search along."""

from secateur.execution.inline import Inline
from secateur.execution.pool import Pool

__all__ = ["Inline", "Pool"]
