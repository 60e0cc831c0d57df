"""Gates of residual blocks at work: a budget in training, ONNX files, and streams on which a controller holds a budget."""

from secateur.gating.controller import Controller
from secateur.gating.prices import Prices, prices_of
from secateur.gating.session import Frame, GatedSession

__all__ = ["Controller", "Frame", "GatedSession", "Prices", "prices_of"]
