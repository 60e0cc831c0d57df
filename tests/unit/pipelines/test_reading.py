"""Records of finished runs, today's and those of earlier versions."""

from __future__ import annotations

import json

import pytest

import finished
from secateur.errors import StateError
from secateur.pipelines.reading import RECORD, read_record
from secateur.pipelines.state import RunFolder


@pytest.fixture
def kept(tmp_path):
    """Reads a record that lies on disk with this content."""

    def read(content):
        (tmp_path / "record.json").write_text(json.dumps(content))
        return read_record(RunFolder(tmp_path, "r-1", "p", "d", str(tmp_path), "now", "w", {}))

    return read


def test_what_is_written_is_read(kept):
    assert kept(json.loads(RECORD.dump_json(finished.RECORD))) == finished.RECORD


def test_finalists_that_carry_their_verdicts_still_load(kept):
    """As records were until verdicts had a place of their own."""
    old = json.loads(RECORD.dump_json(finished.RECORD))
    verdicts = old.pop("verdicts")
    for finalist in old["finalists"]:
        verdict = verdicts[finalist["name"]]
        checks = verdict.pop("checks")
        missed = [f"{check['goal']}: {check['missed']}" for check in checks if check["missed"] is not None]
        finalist |= {**verdict, "missed": missed, "feasible": not missed}
        del finalist["finalist"]
    assert kept(old) == finished.RECORD


def test_another_versions_record_is_one_line(kept):
    with pytest.raises(StateError, match=r"record\.json was written by another version of secateur, or is damaged: .*"):
        kept({"finalists": [{"name": "f1"}], "goals": []})
