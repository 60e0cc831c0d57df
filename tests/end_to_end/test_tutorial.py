"""The tutorial is run as a reader runs it, cell by cell, up to the served model's answer."""

from __future__ import annotations

import json
import os

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import REPOSITORY
from waiting import LIMIT


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Jupyter's own client
def test_the_tutorial_runs_and_the_served_model_answers(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")]))
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(REPOSITORY / "docs/tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    NotebookClient(notebook, timeout=5 * LIMIT, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = ["".join(o.get("text", "") for o in cell.get("outputs", [])) for cell in notebook.cells]
    scores = next(json.loads(text.replace("'", '"')) for text in reversed(shown) if text.startswith("{'predictions'"))
    (row,) = scores["predictions"] if isinstance(scores["predictions"], list) else scores["predictions"]["output"]
    assert len(row) == 10
    plots = [
        o
        for cell in notebook.cells
        for o in cell.get("outputs", [])
        if "application/vnd.plotly.v1+json" in o.get("data", {})
    ]
    assert plots
    assert list(tmp_path.glob("mlruns/runs/*/report.html"))
