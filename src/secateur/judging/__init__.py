"""Comparing networks with each other: what may be registered, and what gets the alias."""
