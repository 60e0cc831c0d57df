"""Whether the search could be believed, in words."""

from __future__ import annotations

from secateur.formatting import amount, difference
from secateur.records import PredictionAudit, RunRecord


def audit_facts(record: RunRecord) -> dict[str, str]:
    """Whether the search's score said what fine-tuning would give, and how far choosing the best has flattered."""
    audit = record.audit
    done = "refitted" if record.definition.get("recover", True) is None else "fine-tuned"
    facts = {
        f"rank correlation of search score and {done} score": (
            f"{_order(audit.kendall, audit.kendall_interval)} over {audit.pairs} finalists, which are the best of the search"
            if audit.kendall is not None
            else f"not known: {audit.pairs} finalists are too few, or all alike"
        ),
    }
    if audit.regret is not None:
        facts["regret"] = (
            f"{amount(audit.regret, record.score_unit)}: the finalist that the search scored best, against the best one"
        )
    for name, shrinkage in (
        ("search to selection data", audit.search_to_selection),
        ("selection to test data", audit.selection_to_test),
    ):
        if shrinkage is not None:
            facts[f"{done} finalists from {name}"] = f"{difference(shrinkage, record.score_unit)} on average"
    if record.prediction is not None:
        facts["latency predictor"] = _prediction(record.prediction)
    for rung in record.rungs:
        order = rung.kendall
        correlation = f"; against the search score {_order(order.value, order.interval)}" if order is not None else ""
        facts[f"rung: {rung.name}"] = f"{len(rung.passed)} of {len(rung.scores)} went on{correlation}"
    return facts


def _order(kendall: float, interval: tuple[float, float] | None) -> str:
    """A rank correlation with its 95 % interval; records of earlier versions have none."""
    return f"Kendall {kendall:.2f}" + (f" (95 %: {interval[0]:.2f} to {interval[1]:.2f})" if interval else "")


def _prediction(audit: PredictionAudit) -> str:
    screened = f"{audit.screened} networks were given up on its prediction and not measured"
    if audit.mean_error is None or audit.within_tenth is None or audit.covered is None:
        return f"{screened}; none was both predicted and measured"
    order = "Kendall not known" if audit.kendall is None else _order(audit.kendall, audit.kendall_interval)
    return (
        f"over {audit.pairs} networks that it predicted and the device then measured: mean error {audit.mean_error:.1%}, "
        f"{audit.within_tenth:.0%} within 10 %, {order}, {audit.covered:.0%} inside its interval; {screened}, so "
        "how well those were predicted is not known"
    )
