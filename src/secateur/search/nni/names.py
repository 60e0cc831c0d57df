"""What of NNI can be used, by name. Nothing of NNI is imported here: a definition is checked without it."""

from __future__ import annotations

TUNERS = {"tpe": "TPE", "evolution": "Evolution", "random": "Random"}
"""Our name → NNI's."""

BROKEN = {
    "gp": "it calls functions that SciPy has removed",
    "metis": "it calls functions that SciPy has removed",
    "anneal": "its hyperopt 0.1.2 does not run on NumPy 2",
    "smac": "its dependencies cannot be installed on this Python",
    "dngo": "its dependencies cannot be installed on this Python",
    "ppo": "its dependencies cannot be installed on this Python",
    "hyperband": "as an advisor it does not reach the end of an experiment",
    "bohb": "as an advisor it does not reach the end of an experiment",
    "pbt": "it hands checkpoints from trial to trial, and a candidate is evaluated once",
    "gridsearch": "it begins its grid anew after every restart, and with many groups it never leaves the grid's corners",
}
"""Tuners of NNI 3.0 that cannot be used, with the reason."""

ASSESSORS = {"medianstop": "Medianstop"}

DEVICE_LOST = "device lost: "
"""How a trial's last word begins where it could not measure: its reason is nobody's evaluation."""
