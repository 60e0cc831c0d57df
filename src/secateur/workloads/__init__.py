"""Models with their data: the user's own through a factory, and those that come with the package."""

from collections.abc import Callable
from typing import Any

from secateur.plugins import Registry

SHIPPED = {
    "secateur.workloads.digits:workload": "handwritten digits of scikit-learn, residual network or vision transformer (embedded)",
    "secateur.workloads.cifar10:workload": "CIFAR-10 from a folder, ResNets or VGGs with weights from a file, or trained once",
    "secateur.workloads.detection:workload": "shapes that are drawn anew, small YOLO-like detector with three heads (embedded)",
    "secateur.workloads.scenes:workload": "frames with a digit in easy and hard scenes, residual network of nine blocks (embedded)",
    "secateur.workloads.text:workload": "sentences from tab-separated files, small BERT-style classifier",
}
"""factory → what it is, for `secateur list workloads`."""
WORKLOADS: Registry[Callable[..., Any]] = Registry("secateur.workloads", Callable, {})  # type: ignore[arg-type] # any callable
"""Factories of plug-ins, by a name that stands for `module:attribute` in a pipeline."""
