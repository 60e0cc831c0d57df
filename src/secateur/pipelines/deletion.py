"""Delete a run: its folder, its study, its artifacts. What is registered in MLflow has its own copies and stays."""

from __future__ import annotations

import shutil

from secateur.files import disk_errors
from secateur.pipelines.state import DATABASE, RunFolder, locked
from secateur.search.deletion import delete_study


def delete_run(run: RunFolder) -> None:
    """Raises StateError where the run is in use or where the disk does not let go of it; deleting again goes on."""
    with locked(run), disk_errors(run.path / "run.json"):
        delete_study(run.state / DATABASE, run.run_id)
        for entry in run.path.iterdir():
            if entry.name != "run.json":  # last, so that a run which is half gone is still found
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.rmtree(run.path)
