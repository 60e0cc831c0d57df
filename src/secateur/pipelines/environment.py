"""What a figure depends on besides the definition: versions, git commit, machine."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

RECORDED_PACKAGES = ("torch", "torch-pruning", "optuna", "onnx", "onnxscript", "onnxruntime", "mlflow", "numpy")


def environment(project: Path) -> dict[str, str]:
    """Versions, git commit and machine: what a figure depends on."""
    recorded = {"version": version("secateur"), "python": platform.python_version(), "platform": platform.platform()}
    recorded.update({package: version(package) for package in RECORDED_PACKAGES})
    git = shutil.which("git")
    if git is not None:
        command = [git, "-C", str(project), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 # a fixed command
        if commit.returncode == 0:
            recorded["git_commit"] = commit.stdout.strip()
    return recorded
