"""What makes a command, or a worker, slow to start is imports, so that is what is asserted; the seconds are in benchmarks/."""

from __future__ import annotations

import subprocess
import sys

import pytest

AT_THE_END = {"mlflow", "nni", "onnxscript", "pandas", "scipy.stats", "sklearn", "torch._dynamo"}
"""What a run needs late, or not at all."""
OF_THE_DRIVER = AT_THE_END | {"alembic", "jinja2", "plotly", "scipy.optimize", "scipy.sparse", "sqlalchemy"}
"""What evaluates a candidate without."""
LIGHT = OF_THE_DRIVER | {"numpy", "onnx", "onnxruntime", "optuna", "pydantic", "ruamel", "scipy", "torch"}

HELP = """
import contextlib
from secateur.cli import main
sys.argv = ["secateur", "--help"]
with contextlib.suppress(SystemExit):
    main()
"""


@pytest.mark.parametrize(
    ("what", "heavy"),
    [
        ("import secateur", LIGHT | {"rich", "typer"}),
        (HELP, LIGHT),
        ("import secateur.cli.views, secateur.cli.run_views", OF_THE_DRIVER | {"onnx", "optuna", "torch"}),
        ("import secateur.pipelines.worker", OF_THE_DRIVER),
        ("import secateur.pipelines.check", OF_THE_DRIVER),
        ("import secateur.pipelines.run", AT_THE_END),
    ],
    ids=["import secateur", "secateur --help", "secateur show and runs", "a worker", "secateur check", "secateur run"],
)
def test_nothing_is_imported_that_is_not_needed_to_start(what, heavy):
    script = f"import sys\n{what}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.splitlines()[-1].split())
