"""What a person sees of a trial in the Optuna dashboard: attributes to sort by, a note, a table of its cuts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.formatting import number
from secateur.records import Candidate, Measurement, Recovered, Trial
from secateur.search.board import Attribute

if TYPE_CHECKING:  # it imports torch, and who reads a finished run does without
    from secateur.search_spaces import SearchSpace

LISTED = 12
"""Cut groups that a note names before it points at the table."""

Figures = Mapping[str, Measurement]


@dataclass(frozen=True)
class Original:
    """What trials are compared with: the dense model's figures on search data, and its groups' widths.

    methods: all that the search may choose among.
    """

    dense: Figures
    widths: Mapping[str, int]
    methods: Sequence[str]

    @classmethod
    def of(cls, space: SearchSpace, dense: Figures) -> Original:
        """The original of a search space."""
        return cls(dense, {group.name: group.width for group in space.groups}, tuple(space.methods))


def trial_attributes(
    trial: Trial, violations: Mapping[str, float], original: Original, objectives: Sequence[str]
) -> dict[str, Attribute]:
    """A trial's user attributes; numbers, by which the dashboard sorts, wherever that is possible.

    violations: goal → how far it is missed, ≤ 0 holds. objectives: shown as the trial's values and therefore not here.
    """
    evaluation = trial.evaluation
    attributes: dict[str, Attribute] = {"arm": trial.arm, "label": trial.label}
    if trial.same_as is not None:
        attributes["same_as"] = trial.same_as
    if evaluation.failure is None:
        attributes["feasible"] = not broken(violations)
    attributes |= {name: m.value for name, m in evaluation.measurements.items() if name not in objectives}
    attributes |= _speed(evaluation.measurements)
    widths, candidate = original.widths, evaluation.candidate
    attributes["channels removed"] = sum(width - candidate.width(name, width) for name, width in widths.items())
    chosen = Counter(edit.method for edits in candidate.edits.values() for edit in edits)
    attributes |= {f"groups by {method}": chosen[method] for method in original.methods}
    attributes["seconds"] = round(evaluation.seconds, 3)
    return attributes


def later_attributes(
    finalist: Recovered, test: Measurement | None, objectives: Sequence[str], mlflow_run_id: str | None
) -> dict[str, Attribute]:
    """What is known of a finalist's trial once it has been fine-tuned, measured on selection data, and sent to MLflow.

    test: its score on test data.
    """
    attributes: dict[str, Attribute] = {"finalist": finalist.name}
    recovered = {name: m.value for name, m in finalist.measurements.items() if name in objectives}
    recovered |= _speed(finalist.measurements)
    attributes |= {f"recovered {name}": value for name, value in recovered.items()}
    if test is not None:
        attributes["test accuracy"] = test.value
    if mlflow_run_id is not None:
        attributes["mlflow_run_id"] = mlflow_run_id
    return attributes


def _speed(measurements: Figures) -> dict[str, float]:
    latency = measurements.get("latency")
    if latency is None or latency.unit != "of dense" or not latency.value > 0:
        return {}
    milliseconds = {"p50_ms": latency.details["p50_ms"]} if "p50_ms" in latency.details else {}
    return {"speed-up": 1 / latency.value, **milliseconds}


def broken(violations: Mapping[str, float]) -> list[str]:
    """The goals that are missed."""
    return [goal for goal, violation in violations.items() if violation > 0]


def trial_note(trial: Trial, violations: Mapping[str, float], original: Original) -> str:
    """A trial's note in Markdown: where it comes from, what became of it, its figures, what was cut."""
    evaluation = trial.evaluation
    lines = [f"**{trial.label or 'sampler'}** (arm: {trial.arm})"]
    if trial.same_as is not None:
        lines.append(f"The same network as trial {trial.same_as}, whose figures these are.")
    if evaluation.failure is not None:
        lines.append(f"**Failed:** {evaluation.failure}")
    elif evaluation.stopped is not None:
        lines.append(f"**Not evaluated in full:** {evaluation.stopped}")
    # What was rejected unseen has no score yet to miss a goal with; why it was rejected is said above.
    if (missed := broken(violations)) and "accuracy" in evaluation.measurements:
        lines.append(f"**Infeasible**, misses: {'; '.join(missed)}.")
    if evaluation.measurements:
        lines.append(_table({"this network": evaluation.measurements, "dense model": original.dense}))
    lines.append(_cuts(evaluation.candidate, original.widths))
    return "\n\n".join(lines)


def finalist_note(finalist: Recovered, test: Measurement | None, dense: Figures, status: str) -> str:
    """What is added to a finalist's trial.

    test: its score on test data. dense: the original's figures on selection data. status: the gate's word.
    """
    lines = [f"### {finalist.name}: {status}"]
    lines.append(f"Fine-tuned for {finalist.epochs} epochs, {finalist.seconds:.0f} s.")
    columns = {"before (search data)": finalist.searched} if finalist.searched else {}
    columns |= {"after (selection data)": finalist.measurements, "dense model (selection data)": dense}
    lines.append(_table(columns))
    if test is not None:
        lines.append(f"Test data: {_figure(test)}")
    return "\n\n".join(lines)


def _table(columns: Mapping[str, Figures]) -> str:
    """Figures side by side; a row for each that the first column has."""
    first = next(iter(columns.values()))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in first:
        cells = (_figure(figures[name]) if name in figures else "–" for figures in columns.values())
        unit = first[name].unit
        label = name if unit.lower() in ("", name) else f"{name}, {unit}"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(measurement: Measurement) -> str:
    text = number(measurement.value)
    if measurement.interval is not None:
        low, high = measurement.interval
        text += f" ({number(low)} to {number(high)})"
    return f"{text}, predicted" if measurement.provenance == "predicted" else text


def _cuts(candidate: Candidate, widths: Mapping[str, int]) -> str:
    cut = {name: edit for name in widths for edit in candidate.edits.get(name, ())}
    if not cut:
        return "Nothing is cut."
    named = [f"{name} {edit.text(widths[name])} ({edit.method})" for name, edit in [*cut.items()][:LISTED]]
    rest = f", and {len(cut) - LISTED} more (groups.csv)" if len(cut) > LISTED else ""
    return f"Cuts {len(cut)} of {len(widths)} groups: {', '.join(named)}{rest}."


def group_table(candidate: Candidate, widths: Mapping[str, int]) -> str:
    """What was done to each group, as CSV, which the dashboard shows as a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "channels", "kept", "removed", "share removed", "method"])
    for name, whole in widths.items():
        width, methods = candidate.width(name, whole), [edit.method for edit in candidate.edits.get(name, ())]
        writer.writerow(
            [name, whole, width, whole - width, round(1 - candidate.kept(name, whole), 4), " + ".join(methods)]
        )
    return text.getvalue()
