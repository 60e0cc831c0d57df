"""What the driver lends to jobs, and takes back from evaluations."""

from __future__ import annotations

from secateur.evaluators.waiting import CANDIDATE, WaitingBudget
from secateur.execution import Inline
from secateur.pipelines.allowances import WithAllowances
from secateur.records import Candidate, Evaluation, Job, Measurement, Plan

CANDIDATE_ = Candidate({})


def test_jobs_are_lent_an_allowance_and_what_they_spend_is_gone():
    now, lent = [0.0], []

    def evaluate(job):
        lent.append(job.allowance)
        return Evaluation(job.candidate, "k", {}, waited=job.allowance)

    budget = WaitingBudget(0.25, lambda: now[0])
    lending = WithAllowances(Inline(evaluate), budget, 0.0)
    for number in range(4):
        now[0] += 3.0
        lending.submit(number, Job(CANDIDATE_, Plan()))
        number_done, _ = lending.wait()
        assert number_done == number
        now[0] += lent[-1]
    assert lent == [0.75] * 4
    assert budget.spent == 3.0
    now[0] += 1000.0
    lending.submit(9, Job(CANDIDATE_, Plan()))
    lending.wait()
    assert lent[-1] == CANDIDATE


def test_latency_intervals_leave_with_the_width_that_the_self_comparison_asks_for():
    latency = Measurement(0.5, "of dense", "measured", 12, (0.49, 0.51))
    lending = WithAllowances(
        Inline(lambda job: Evaluation(job.candidate, "k", {"latency": latency})), WaitingBudget(0.25), 0.1
    )
    lending.submit(1, Job(CANDIDATE_, Plan()))
    _, evaluation = lending.wait()
    low, high = evaluation.measurements["latency"].bounds
    assert low < 0.45
    assert high > 0.55
