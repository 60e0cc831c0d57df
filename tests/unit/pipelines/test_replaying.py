from __future__ import annotations

from dataclasses import replace

import finished
from secateur.pipelines.recording import Judged
from secateur.pipelines.replaying import _precedent, shortcoming
from secateur.records import Candidate, Evaluation, Trial


def short(trials=(), finalists=()):
    return shortcoming(trials, Judged(finalists, {}, None, {}, None), None)


def test_a_choice_that_has_failed_is_not_said_to_miss_the_constraints():
    failed = Trial(0, "prior", "prior x", Evaluation(Candidate({}), "", {}, "the metric raised ValueError: no"), None)
    assert short([failed]).endswith("has failed on the new weights: the metric raised ValueError: no")
    finalist = replace(finished.RECORD.finalists[0], failure="it does not export")
    assert short(finalists=[finalist]).endswith("has failed on the new weights: it does not export")
    assert short(finalists=finished.RECORD.finalists[:1]).endswith("does not keep the constraints on the new weights")


def test_a_version_that_names_no_finalist_gives_no_precedent():
    assert "does not say which finalist" in _precedent(finished.RECORD, "", "version 3")
    assert _precedent(finished.RECORD, finished.RECORD.finalists[0].name, "version 3").candidate == finished.CUT
