from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import finished
from secateur.pipelines.reading import RECORD
from secateur.pipelines.recording import Judged
from secateur.pipelines.replaying import _precedent, precedent_of, shortcoming
from secateur.pipelines.state import RunFolder
from secateur.records import Candidate, Evaluation, Trial


def short(trials=(), finalists=()):
    return shortcoming(trials, Judged(finalists, {}, None, {}, None), None)


def test_a_choice_that_has_failed_is_not_said_to_miss_the_constraints():
    failed = Trial(0, "prior", "prior x", Evaluation(Candidate({}), "", {}, "the metric raised ValueError: no"), None)
    assert short([failed]).endswith("has failed on the new weights: the metric raised ValueError: no")
    finalist = replace(finished.RECORD.finalists[0], failure="it does not export")
    assert short(finalists=[finalist]).endswith("has failed on the new weights: it does not export")
    assert short(finalists=finished.RECORD.finalists[:1]).endswith("does not keep the constraints on the new weights")


def test_a_run_whose_record_cannot_be_read_hides_no_earlier_one(tmp_path, caplog):
    for number, record in enumerate((RECORD.dump_json(finished.RECORD), b"{}")):
        folder = tmp_path / "mlruns" / "runs" / f"r{number}"
        folder.mkdir(parents=True)
        run = dataclasses.asdict(RunFolder(folder, f"r{number}", "", "", "", "", "", {}))
        (folder / "run.json").write_text(json.dumps({key: value for key, value in run.items() if key != "path"}))
        os.utime(folder / "run.json", (number, number))
        (folder / "record.json").write_bytes(record)
        (folder / "done").touch()
    definition = SimpleNamespace(register_as=None, name=finished.RECORD.name)
    assert precedent_of(definition, tmp_path).of == "the knee of run r0"
    assert "r1/record.json was written by another version" in caplog.text


def test_a_version_that_names_no_finalist_gives_no_precedent():
    assert "does not say which finalist" in _precedent(finished.RECORD, "", "version 3")
    assert _precedent(finished.RECORD, finished.RECORD.finalists[0].name, "version 3").candidate == finished.CUT
