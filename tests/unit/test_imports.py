"""What makes a command, or a worker, slow to start is imports, so that is what is asserted; the seconds are in benchmarks/."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

AT_THE_END = {"mlflow", "nni", "onnxscript", "pandas", "scipy.stats", "sklearn", "torch._dynamo"}
"""What a run needs late, or not at all."""
OF_THE_DRIVER = AT_THE_END | {"alembic", "jinja2", "plotly", "scipy.optimize", "scipy.sparse", "sqlalchemy"}
"""What evaluates a candidate without."""
FINISHED = OF_THE_DRIVER | {"onnx", "onnxruntime", "optuna", "torch"}
"""What reads a finished run without."""
LIGHT = FINISHED | {"numpy", "pydantic", "ruamel", "scipy"}

HELP = """
import contextlib, io
from secateur.cli import main
sys.argv = ["secateur", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
"""
STEPS = {
    "import secateur": LIGHT | {"rich", "typer"},
    HELP: LIGHT,
    "import secateur.cli.views, secateur.cli.run_views": FINISHED,
    "import secateur.pipelines.worker, secateur.pipelines.check": OF_THE_DRIVER,
    "import secateur.pipelines.run": AT_THE_END,
}
FLUSHED = {
    "import secateur.pipelines.finishing, secateur.pipelines.dashboard": AT_THE_END | {"onnx", "onnxruntime", "torch"}
}
"""In one process, each on top of those before it: code → what it must not import."""


@pytest.mark.parametrize("steps", [STEPS, FLUSHED], ids=["start", "flush"])
def test_nothing_is_imported_that_is_not_needed_to_start(steps):
    script = "import json, sys\n" + "".join(f"{code}\nprint(json.dumps([*sys.modules]))\n" for code in steps)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = [set(json.loads(line)) for line in done.stdout.splitlines()]
    assert [heavy & found for heavy, found in zip(steps.values(), imported, strict=True)] == [set()] * len(steps)
