"""One self-contained HTML file: nothing is fetched when it is opened, and it reads on a phone."""

from __future__ import annotations

import io
from html import escape
from importlib.resources import files
from pathlib import Path

from plotly.offline import get_plotlyjs
from ruamel.yaml import YAML

from secateur.files import write
from secateur.records import RunRecord
from secateur.report.device import device_section, noise_floor, steadiness
from secateur.report.figures import ARM_NAMES, AXES, cuts_figure, front_figure, sensitivity_figure
from secateur.report.table import HEADINGS, audit_facts, headline, rows
from secateur.report.units import difference

_CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


def write_report(record: RunRecord, path: Path) -> Path:
    """Write the page. Returns its path. Raises StateError where the disk does not take it."""
    body = "\n".join(
        (
            _header(record),
            _cards(record),
            _front(record),
            _table(record),
            device_section(record),
            _cuts(record),
            _sensitivity(record),
            _audit(record),
            _method(record),
        )
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(record.name)}: compressed models</title><style>{_asset('page.css')}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>{body}</main><script>{_asset('page.js')}</script></body></html>\n"
    )
    write(path, page)
    return path


def _asset(name: str) -> str:
    return (files("secateur.report") / name).read_text(encoding="utf-8")


def _header(record: RunRecord) -> str:
    return (
        f"<header><h1>{escape(record.name)}: smaller, verified models</h1>"
        f'<p class="note">{escape(record.workload)} · run {escape(record.run_id)} · {escape(record.started)}</p>'
        f'<p class="lead">{escape(headline(record))}</p></header>'
    )


def _cards(record: RunRecord) -> str:
    best = next((f for f in record.finalists if f.name == record.knee), None)
    if best is None:
        return ""
    dense = record.dense["selection"]
    cards = []
    if "latency" in best.measurements:
        cards.append((f"{1 / best.measurements['latency'].value:.2f}×", "speed-up, measured on the device"))
    cards.append((f"{dense['size'].value / best.measurements['size'].value:.2f}×", "smaller file"))
    cards.append((f"{dense['macs'].value / best.measurements['macs'].value:.2f}×", "fewer multiply-accumulates"))
    if best.test is not None:
        cards.append(
            (
                difference(best.test.value - record.dense["test"]["accuracy"].value, record.score_unit),
                f"{record.score_name} on test data, against the dense model",
            )
        )
    listed = "".join(
        f"<div class='card'><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in cards
    )
    return f'<div class="cards">{listed}</div>'


def _front(record: RunRecord) -> str:
    # Latency is measured for every trial only where it is an objective; the other costs are always known.
    axes = [
        axis for axis in AXES if axis in record.dense["search"] and (axis != "latency" or axis in record.objectives)
    ]
    own = sum(t.same_as is None and t.evaluation.complete for t in record.trials)
    buttons = "".join(
        f'<button data-axis="{axis}" aria-pressed="{"true" if i == 0 else "false"}">{axis}</button>'
        for i, axis in enumerate(axes)
    )
    panels = "".join(
        f'<div class="panel" id="panel-{axis}"{"" if i == 0 else " hidden"}>'
        f"{_div(front_figure(record, axis), f'front-{axis}')}</div>"
        for i, axis in enumerate(axes)
    )
    return (
        "<section><h2>The front</h2>"
        f'<p class="note">{own} networks were evaluated on {record.samples["search"]:,} search samples before recovery; the '
        f"finalists (green) were tuned and measured again on {record.samples['selection']:,} selection samples. Bars are 95 % "
        "intervals; hover for details.</p>"
        f'<div class="tabs">{buttons}</div>{panels}</section>'
    )


def _table(record: RunRecord) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in HEADINGS)
    lines = []
    for row in rows(record):
        kind = "best" if row.best else ("" if row.passed else "out")
        cells = "".join(
            f"<td{' class=wrap' if i == 1 and len(cell) > 40 else ''}>{escape(cell)}</td>"  # a short status
            for i, cell in enumerate(row.cells)
        )
        lines.append(f'<tr class="{kind}">{cells}</tr>')
    return (
        "<section><h2>Before and after</h2>"
        '<p class="note">Score before recovery: search data. Score after and all costs: selection data. Test score: measured once, '
        "for what is registered. Latency: share of the dense model's, measured alternately with it.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div></section>'
    )


def _cuts(record: RunRecord) -> str:
    if not record.finalists:
        return ""
    return (
        "<section><h2>What was cut</h2>"
        '<p class="note">A strip for each finalist, from the mildest cut to the strongest: the removed share of each group, '
        "and how many channels stay. The colour is the criterion that chose them; no bar: the group stayed whole.</p>"
        f"{_div(cuts_figure(record), 'cuts')}</section>"
    )


def _sensitivity(record: RunRecord) -> str:
    if not record.sensitivities:
        return ""
    return (
        "<section><h2>Sensitivity</h2>"
        '<p class="note">Each group cut alone, everything else whole: the squared error of the outputs against the dense '
        "model's on calibration images, relative to their spread. Steep curves are cut last.</p>"
        f"{_div(sensitivity_figure(record), 'sensitivity')}</section>"
    )


def _audit(record: RunRecord) -> str:
    """Whether the search could be believed."""
    arms = "".join(
        f"<tr><td>{escape(ARM_NAMES.get(a.arm, 'the search'))}</td><td>{a.networks}</td><td>{a.hypervolume:.4f}</td></tr>"
        for a in record.arms
    )
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in audit_facts(record).items())
    return (
        '<section><h2>Can the search be believed?</h2><p class="note">Hypervolume of what each arm has found on search data, '
        "before recovery, with costs as shares of the dense model's. Baselines get few networks: they are there to be beaten.</p>"
        "<div class='scroll'><table><thead><tr><th>arm</th><th>networks</th><th>hypervolume</th></tr></thead>"
        f"<tbody>{arms}</tbody></table></div><dl>{facts}</dl></section>"
    )


def _method(record: RunRecord) -> str:
    roles = ", ".join(f"{role} {count:,}" for role, count in record.samples.items())
    facts = {
        "measured on": record.device,
        "latency": "blocks of 10 runs of dense model and candidate in turn, the smallest of each block, the median ratio, "
        "without rounds in which the dense model is slower than it is known to be; 8 rounds for candidates of the search, 24 to "
        "60 for finalists, until the bootstrap 95 % interval is narrower than 0.5 %",
        "accuracy": f"{record.score_name} of the exported ONNX file on the host, checked against torch for every candidate",
        "batch norms": "recalibrated by difference on calibration data; the uncut network is left exactly as it was",
        "data (samples)": roles,
        "gate": ", ".join(goal.text for goal in record.goals) or "none",
        "during the search": ", ".join(
            f"{g.metric} {g.sense.replace('_', ' ')} {g.limit_in_search:.4g}" for g in record.goals
        )
        or "no limit",
        "the search ended because": record.ended,
        "noise floor": noise_floor(record),
        "the device": steadiness(record),
        "exports instead of rewritten files": str(record.exports),
        "seconds": ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in record.seconds.items()),
        **{key.replace("_", " "): value for key, value in record.environment.items()},
    }
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    excluded = "".join(
        f"<tr><td>{escape(e.name)}</td><td>{escape(e.layer_type)}</td><td>{e.width}</td>"
        f"<td class='wrap'>{escape(e.reason)}</td></tr>"
        for e in record.excluded
    )
    stream = io.StringIO()
    YAML().dump(dict(record.definition), stream)
    return (
        f"<section><h2>How everything was measured</h2><dl>{listed}</dl>"
        f"<details><summary>Groups that were not cut ({len(record.excluded)})</summary><div class='scroll'><table><thead><tr>"
        f"<th>group</th><th>type</th><th>channels</th><th>reason</th></tr></thead><tbody>{excluded}</tbody></table></div></details>"
        f"<details><summary>Definition</summary><pre>{escape(stream.getvalue())}</pre></details></section>"
    )


def _div(figure: object, name: str) -> str:
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=_CONFIG)  # type: ignore[attr-defined] # plotly publishes no types
    return html
