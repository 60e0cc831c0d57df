"""What of a run goes into its record."""

from __future__ import annotations

from secateur.pipelines.recording import _waited
from secateur.pipelines.state import Stopwatch
from secateur.records import Candidate, Evaluation, Trial


def test_a_resumed_run_knows_what_was_waited_before(tmp_path):
    evaluation = Evaluation(Candidate({}), "k", {}, waited=2.0)
    trials = [Trial(0, "sampler", "", evaluation, None), Trial(1, "sampler", "", evaluation, 0)]
    watch = Stopwatch(tmp_path / "seconds.json")
    watch.add("recover.waiting", 3.0)
    assert _waited(trials, watch, 0.0) == 5.0, "each measurement once, although this process has waited for none"
    assert _waited(trials, watch, 7.0) == 7.0, "the dense model's too"
