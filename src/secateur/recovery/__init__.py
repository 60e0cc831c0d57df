"""Bring accuracy back: fine-tuning with distillation from the dense model."""
