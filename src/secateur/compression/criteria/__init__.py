"""What is worth least: criteria, each of which gives every channel of a group one number."""

from __future__ import annotations

from secateur.compression.criteria.registry import METHODS, Method, available_methods

__all__ = ["METHODS", "Method", "available_methods"]
