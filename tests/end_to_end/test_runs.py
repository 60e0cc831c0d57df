"""What people do with a finished run: read its log, list it, take a model out."""

from __future__ import annotations

import json

from end_to_end.conftest import call


def test_a_finished_run_is_listed_exported_and_has_its_log(finished, tmp_path):
    project, done = finished
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(call(project, "runs", "--json").stdout)
    assert entry["state"] == "finished"
    log = (project / "mlruns" / "runs" / entry["run"] / "log.txt").read_text()
    for words in ("search: begins", "trial 0 (dense)", "recover: begins", "register: begins"):
        assert words in log
    assert "Traceback" not in log
    exported = call(project, "export", entry["run"], entry["best"], "--to", str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {
        "model.onnx",
        "model.safetensors",
        "model.json",
        "load.py",
    }
    wrong = call(project, "export", entry["run"], "f9", "--to", str(tmp_path / "no"))
    assert (wrong.returncode, (tmp_path / "no").exists()) == (2, False)
    assert "unknown finalist 'f9'" in wrong.stderr
