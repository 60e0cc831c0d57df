"""The page on an invented record, parsed; the page of a real run is looked at in end_to_end."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs_version

from finished import RECORD, finalist, make
from secateur.records import Audit, GatePath, Refitted, Rung, Version
from secateur.report.page import code, write_report

VERSIONS = [
    Version("digits-cnn", "7", ("candidate",), "mlflow-run-1", "00", "f1-aa"),
    Version("digits-cnn", "8", (), "mlflow-run-3", "11", "f3-cc"),
]


class Page(HTMLParser):
    """Ids, links, open tags, the text of each section, and the figures' data."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.fetched, self.sections, self.figures = [], [], [], {}, {}
        self.depth, self.section, self.inside, self.data = [], "head", None, None
        self.feed(text)
        assert self.depth == [], "every tag is closed"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.fetched += [found[name] for name in ("src", "srcset") if name in found]
        if tag == "section":
            self.section = found["id"]
        if tag not in ("meta", "link", "br", "rect"):
            self.depth.append(tag)
        self.data = found["id"] if found.get("type") == "application/json" else None

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag
        self.data = None

    def handle_data(self, text):
        if self.data:
            self.figures[self.data.removesuffix("-data")] = json.loads(text)
        elif self.depth and self.depth[-1] not in ("script", "style"):
            self.sections[self.section] = self.sections.get(self.section, "") + text


def page_of(record, tmp_path, versions=None):
    return Page(write_report(record, tmp_path / "report.html", versions).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "finalists",
    [
        RECORD.finalists,
        (),
        (finalist("f1", 0.5, 0.4, measurements={}, failure="it <broke>"),),
    ],
)
def test_the_page_is_whole_and_escapes_what_it_shows(finalists, tmp_path):
    record = make(finalists, "f1-aa" if finalists == RECORD.finalists else None)
    page = page_of(record, tmp_path)
    shown = "".join(page.sections.values())
    assert "a <name>" in shown
    assert "a <reason>" in page.sections["section-whole"]
    assert len(set(page.ids)) == len(page.ids)
    for item in finalists:
        assert item.name in page.sections["section-table"]
        assert item.failure is None or item.failure in page.sections["section-table"]


def test_the_contents_lead_to_the_sections_that_are_there(tmp_path):
    page = page_of(RECORD, tmp_path)
    assert [link.removeprefix("#") for link in page.links] == [i for i in page.ids if i.startswith("section-")]
    bare = page_of(replace(RECORD, sensitivities=(), excluded=(), finalists=(), knee=None), tmp_path)
    assert [link.removeprefix("#") for link in bare.links] == [i for i in bare.ids if i.startswith("section-")]
    assert "#section-sensitivity" in page.links
    assert "#section-sensitivity" not in bare.links
    assert "#section-paths" not in page.links
    gated = replace(RECORD, finalists=(finalist("f1-aa", 0.88, 0.4, paths=(GatePath((), 9), GatePath(("a",), 2))),))
    assert "#section-paths" in page_of(gated, tmp_path).links
    assert "#section-training" not in page.links
    tuned = replace(RECORD, finalists=(finalist("f1-aa", 0.88, 0.4, losses=(0.5, 0.4)),))
    assert "#section-training" in page_of(tuned, tmp_path).links


def test_nothing_is_fetched_and_the_browser_is_told_so(tmp_path):
    page = page_of(RECORD, tmp_path)
    assert page.fetched == []
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert len(text) < 1_500_000, "the basic bundle, and figures without plotly's template"


def test_the_bundle_reads_what_the_installed_plotly_writes(tmp_path):
    """A new plotly.py writes for its own major version of plotly.js: then the vendored file is renewed, too."""
    page_of(RECORD, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    vendored = re.search(r"plotly\.js \(basic - minified\) v(\d+)\.", text)
    assert vendored is not None
    assert vendored[1] == get_plotlyjs_version().split(".")[0]


def test_each_panel_has_its_figure_and_all_but_the_first_are_hidden(tmp_path):
    page = page_of(RECORD, tmp_path)
    axes = ["latency", "size", "macs", "parameters"]
    assert list(page.figures) == [*(f"front-{axis}" for axis in axes), "cuts", "sensitivity"]
    traces = {t["name"]: t for t in page.figures["front-size"]["data"] if "name" in t}
    assert traces["finalist, passed the gate"]["x"] == pytest.approx([0.4, 0.8])
    assert {t["type"] for figure in page.figures.values() for t in figure["data"]} <= {"scatter", "bar"}
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [bool(hidden) for hidden in re.findall(r'<div class="panel" id="panel-\w+"( hidden)?>', text)] == [
        False,
        True,
        True,
        True,
    ]


def test_a_cost_that_trials_have_only_where_it_is_asked_for_has_a_panel_only_there(tmp_path):
    assert "front-download" not in page_of(RECORD, tmp_path).figures
    asked = replace(RECORD, objectives={**RECORD.objectives, "download": "minimize"})
    assert "front-download" in page_of(asked, tmp_path).figures


def test_the_front_is_first_shown_over_what_was_asked_for(tmp_path):
    asked = replace(RECORD, objectives={"accuracy": "maximize", "download": "minimize"})
    assert next(iter(page_of(asked, tmp_path).figures)) == "front-download"


def test_how_to_load_what_was_registered(tmp_path):
    record = replace(RECORD, definition={"register": {"name": "digits-cnn", "tracking_uri": None}})
    said = page_of(record, tmp_path, VERSIONS).sections["section-load"]
    assert 'mlflow.pyfunc.load_model("models:/digits-cnn@candidate")' in said
    assert 'InferenceSession("f1-aa/model.onnx")' in said
    assert 'secateur.load_compressed("f1-aa/compressed")' in said
    for version in VERSIONS:
        assert version.run_id in said
    assert "sqlite:///mlruns/mlflow.db" in said


def test_before_registration_the_page_says_so_and_shows_no_server(tmp_path):
    secret = {"register": {"name": "digits-cnn", "tracking_uri": "https://user:secret@mlflow.example"}}
    said = page_of(replace(RECORD, definition=secret), tmp_path).sections["section-load"]
    assert "before the models were registered" in said
    assert "secateur show r-1" in said
    said = page_of(replace(RECORD, definition=secret), tmp_path, VERSIONS).sections["section-load"]
    assert "MLFLOW_TRACKING_URI" in said
    assert "secret" not in said


def test_layers_that_keep_their_weights_are_on_the_page_with_the_reason(tmp_path):
    some = Refitted(512, 3, {"up": "a ConvTranspose2d is not refitted"})
    said = "".join(page_of(replace(RECORD, refitted=some), tmp_path).sections.values())
    assert "3 of 4 refitted by least squares on up to 512 calibration samples; not" in said
    assert "a ConvTranspose2d is not refitted" in said


def test_the_audit_is_on_the_page(tmp_path):
    rung = Rung("50 training steps", {1: 0.8, 2: 0.7}, (1,))
    said = page_of(replace(RECORD, rungs=(rung,)), tmp_path).sections["section-audit"]
    for text in ("Kendall 0.33 over 3 finalists", "1.2 points", "-0.4 points on average", "1 of 2 went on"):
        assert text in said
    unknown = page_of(replace(RECORD, audit=Audit(2, None, None, None, None)), tmp_path)
    assert "not known: 2 finalists are too few" in unknown.sections["section-audit"]


def test_backticks_become_code_and_nothing_else_gets_through():
    assert code("say `a<b>` & go") == "say <code>a&lt;b&gt;</code> &amp; go"
