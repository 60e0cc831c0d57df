"""Scores of a candidate: on the exported model, in the runtime that will serve it, on the device."""

from secateur.agent.runtimes import RUNTIMES
from secateur.evaluators.evaluator import Evaluator, Measured
from secateur.evaluators.measuring import Place
from secateur.evaluators.metrics import METRICS, Context, Metric
from secateur.evaluators.model_files import DenseModel, Network

__all__ = ["METRICS", "RUNTIMES", "Context", "DenseModel", "Evaluator", "Measured", "Metric", "Network", "Place"]
