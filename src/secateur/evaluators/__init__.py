"""Scores of a candidate: on the exported model, in the runtime that will serve it, on the device."""

from secateur.evaluators.evaluator import Evaluator, Measured
from secateur.evaluators.metrics import METRICS, Context, Metric
from secateur.evaluators.runtimes import RUNTIMES

__all__ = ["METRICS", "RUNTIMES", "Context", "Evaluator", "Measured", "Metric"]
