"""The only package that imports MLflow: `client` speaks to it, `models` writes its models, `isolation` confines what they set."""

from secateur.registry.tracking.client import DataSet, Point, Registered, Tracking, tracking
from secateur.registry.tracking.isolation import TrackingError, make_database
from secateur.registry.tracking.models import OnnxModel

__all__ = ["DataSet", "OnnxModel", "Point", "Registered", "Tracking", "TrackingError", "make_database", "tracking"]
