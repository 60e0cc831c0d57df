"""Descriptions in Markdown: of the run, of each finalist and its version (a model card), of the registered model."""

from __future__ import annotations

from secateur.formatting import compared, difference_with_interval, gated_costs, number, outcome, patterns, replayed
from secateur.records import ROLES, SHARE, Comparison, Measurement, Recovered, RunRecord, Verdict
from secateur.registry.contents import status
from secateur.registry.package import Target

_STATUS = {
    "knee": "the knee of the recovered front; it gets the alias",
    "refused": "the knee of the recovered front; it has failed the gate against the version that serves, and gets no alias",
    "front": "on the recovered front",
    "dominated": "meets the constraints; another finalist, or the dense model, is at least as good in everything",
    "vetoed": "on the recovered front; test data refuse it the alias",
    "infeasible": "misses a constraint after recovery",
    "failed": "could not be measured",
}
_USE = {
    "train": "fine-tuning",
    "calibration": "batch-norm statistics, saliency",
    "search": "scores trials",
    "selection": "chooses among the finalists; the figures above",
    "test": "used once, on what is registered",
}


def run_description(record: RunRecord) -> str:
    """The parent run."""
    own = sum(t.same_as is None for t in record.trials)
    best = next((f for f in record.finalists if f.name == record.knee), None)
    if best is not None:
        outcome = f"Best: **{best.name}**, {_in_short(record, best)}."
    elif record.registered:
        outcome = "Test data contradict the constraints for each of them, so none gets the alias."
    else:
        outcome = "No finalist passed the gate."
    return (
        f"Channel pruning of **{record.workload}** by secateur {record.environment.get('version', '')}: {own} networks evaluated, "
        f"{len(record.finalists)} finalists, {len(record.registered)} registered. {outcome}\n\n"
        f"Device: {record.device}.\n\nThe report is among the artifacts (`report.html`), with the definition and the whole record; "
        "each finalist and the dense model are nested runs."
    )


def dense_description(record: RunRecord) -> str:
    """The dense model's run."""
    return f"The original **{record.workload}**, which all finalists of `{record.run_id}` were cut from and are compared with."


def model_description(record: RunRecord, target: Target) -> str:
    """The registered model, over all of its versions."""
    return (
        f"Compressed versions of **{record.workload}** from the pipeline `{record.name}`: ONNX, in float32 or int8 (tag "
        f"`secateur.precision`). `@{target.alias}` is the knee of the latest run's front: the version with the best compromise of "
        "its objectives among those that meet all constraints. Each version's description is its model card."
    )


def model_card(record: RunRecord, finalist: Recovered, target: Target | None = None) -> str:
    """A finalist and its version. target: where it is registered, None where it is not."""
    state = status(record, finalist)
    lines = [
        f"**{finalist.name}**: {record.workload}, {_done(record, finalist)}. {_STATUS[state][0].upper()}{_STATUS[state][1:]}."
    ]
    verdict = record.verdicts.get(finalist.name)
    if verdict is not None and verdict.veto is not None:
        lines.append(f"No alias: {verdict.veto}.")
    if "accuracy" in finalist.measurements:  # MLflow folds descriptions after a few lines
        lines[0] = f"{_in_short(record, finalist)}. {lines[0]}"
    if verdict is None:
        return f"{lines[0]}\n\nReason: {finalist.failure}"
    lines += ["### Figures", _table(record, finalist, verdict)]
    if record.comparison is not None and record.comparison.finalist == finalist.name:
        lines += ["### Gate", _gate(record.comparison, record.score_unit)]
    if target is not None:
        lines += ["### Load", _loading(target, finalist)]
    lines += ["### Made from", _lineage(record, finalist)]
    lines += [
        "### Data",
        "\n".join(f"- {r}: {record.samples[r]} samples, {_USE[r]}" for r in ROLES if r in record.samples),
    ]
    lines += ["### Measured how", _method(record, finalist), "### Limits", _limits(record)]
    return "\n\n".join(lines)


def _done(record: RunRecord, finalist: Recovered) -> str:
    """What was done to the original."""
    trainer = (record.definition.get("recover") or {}).get("trainer")
    if finalist.trial is None:
        parts = ["the original network"]
    elif trainer:
        parts = ["with channels removed", f"trained by the project's `{trainer}`"]
    elif finalist.epochs:
        parts = ["with channels removed", f"fine-tuned for {finalist.epochs} epochs against the dense model as teacher"]
    else:
        parts = ["with channels removed", "not fine-tuned"]
    if finalist.paths:
        parts.insert(1, "with gates before its blocks")
    if finalist.quantized is not None:
        parts.append("then quantized to int8")
    return ", ".join(parts)


def _table(record: RunRecord, finalist: Recovered, verdict: Verdict) -> str:
    dense, tested = record.dense["selection"], record.dense["test"].get("accuracy")
    rows = ["| | this model | dense model |", "|---|---|---|"]
    for name, measurement in finalist.measurements.items():
        label = record.score_name if name == "accuracy" else name
        unit = record.score_unit if name in ("accuracy", "device_accuracy") else measurement.unit
        rows.append(f"| {label} | {_figure(measurement, unit)} | {_figure(dense.get(name), unit)} |")
    if verdict.test is not None:
        unit = record.score_unit
        rows.append(f"| {record.score_name}, test data | {_figure(verdict.test, unit)} | {_figure(tested, unit)} |")
    for name, change in (("selection data", verdict.change), ("test data", verdict.test_change)):
        if change is not None:
            shown = difference_with_interval(change, record.score_unit)
            rows.append(f"| change of {record.score_name}, {name}, sample by sample | {shown} | |")
    return "\n".join(rows)


def _gate(comparison: Comparison, unit: str) -> str:
    rows = [
        f"| {check.name} | {compared(check.figure, unit)} | {check.demand} | {'passed' if check.passed else '**failed**'} |"
        for check in comparison.checks
    ]
    table = ["| | beside the version that serves | demand | |", "|---|---|---|---|", *rows] if rows else []
    return "\n".join([outcome(comparison), *([""] if table else []), *table])


def _figure(measurement: Measurement | None, unit: str) -> str:
    """`91.3 [88.1, 93.5] %`, with the 95 % interval where there is one."""
    if measurement is None:
        return "–"

    def shown_as(value: float) -> str:
        return f"{100 * value:.1f}" if unit == SHARE else number(value)

    text = shown_as(measurement.value)
    if measurement.interval is not None:
        text += f" [{', '.join(map(shown_as, measurement.interval))}]"
    milliseconds = measurement.details.get("p50_ms")
    shown = f"{text} {'%' if unit == SHARE else unit}".rstrip()
    return shown + (f" ({milliseconds:.3f} ms)" if milliseconds is not None else "")


def _in_short(record: RunRecord, finalist: Recovered) -> str:
    accuracy = _figure(finalist.measurements["accuracy"], record.score_unit)
    latency = finalist.measurements.get("latency")
    faster = f", {1 / latency.value:.2f}× the dense model's speed" if latency is not None and latency.value > 0 else ""
    average = " on average" if faster and finalist.paths else ""
    return f"{record.score_name} {accuracy}{faster}{average}"


def _loading(target: Target, finalist: Recovered) -> str:
    module = "As a torch module: download `compressed/` of the source run and call `secateur.load_compressed(folder)`."
    if finalist.quantized is not None:
        module += f" Torch runs no int8 model: that is its float32 twin, `{finalist.quantized.of}`."
    return (
        "```python\nimport mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{target.name}@{target.alias}")  # or models:/{target.name}/VERSION\n'
        "model.predict(x)  # a float32 array, or a dict of one array per input\n```\n\n"
        f"{module}"
    )


def _lineage(record: RunRecord, finalist: Recovered) -> str:
    cut = len(finalist.candidate.edits)
    trial = "" if finalist.trial is None else f", trial {finalist.trial}"
    commit = record.environment.get("git_commit")
    return (
        f"Run `{record.run_id}`{trial}; {cut} of {len(record.groups)} groups cut (the run's parameters "
        f"say which, and by which criterion); torch {record.environment.get('torch', 'unknown')}"
        + (f"; commit `{commit[:12]}`" if commit else "")
        + (f"; weights `{weights}`" if (weights := record.environment.get("weights")) else "")
        + "."
        + (f" {replayed(record.replay)}" if record.replay is not None else "")
        + (f" {patterns(finalist.patterns)}" if finalist.patterns else "")
        + _eight_bits(finalist)
    )


def _eight_bits(finalist: Recovered) -> str:
    made = finalist.quantized
    if made is None:
        return ""
    off = (
        ""
        if made.deviation is None
        else f"; the squared error on selection data is {number(100 * made.deviation.value)} % of the spread"
    )
    return (
        "\n\nInt8: weights and activations in eight bits (ONNX Runtime's static quantization, QDQ, a scale for each output "
        f"channel, ranges from calibration data), made of `{made.of}` after its training. Inputs and outputs are float32. Its "
        f"outputs are not those of `{made.of}`{off}."
    )


def _method(record: RunRecord, finalist: Recovered) -> str:
    gates = gated_costs(finalist.paths)
    return (
        f"On {record.device}. Figures are of the exported ONNX file on selection data, after recovery; intervals are 95 %. "
        "Latency is the ratio to the dense model's, both timed in turns in the same measurement."
        + (f" {gates[0].upper()}{gates[1:]}." if gates else "")
    )


def _limits(record: RunRecord) -> str:
    return (
        "- Latency and memory hold for this device and runtime; measure anew elsewhere: `secateur measure`.\n"
        f"- It was chosen among {len(record.finalists)} finalists by the selection data, so its score there is a little "
        "flattering; the test score is not.\n"
        "- The score says nothing about groups of samples, or about data unlike those above."
    )
