"""Gates of residual blocks at work: a budget in training, ONNX files, and streams on which a controller holds a budget."""

from secateur.gating.controller import Controller
from secateur.gating.paths import closings, file_on_path, module_on_path
from secateur.gating.prices import Prices, prices_of
from secateur.gating.session import Frame, GatedSession

__all__ = ["Controller", "Frame", "GatedSession", "Prices", "closings", "file_on_path", "module_on_path", "prices_of"]
