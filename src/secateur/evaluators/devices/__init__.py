"""Devices that models are measured on: how they are reached, what is asked there, which one is free."""

from secateur.evaluators.devices.opening import DEVICES, open_devices

__all__ = ["DEVICES", "open_devices"]
