"""Where evaluations and trainings run: in the driver's process, or in workers that may die without taking it along."""

from secateur.execution.inline import Inline
from secateur.execution.pool import Pool, Trained

__all__ = ["Inline", "Pool", "Trained"]
