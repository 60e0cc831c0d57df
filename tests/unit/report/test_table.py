from __future__ import annotations

from dataclasses import replace

from finished import RECORD, figures, finalist, make
from secateur.formatting import UNKNOWN
from secateur.records import GatePath, Measurement, Quantized
from secateur.report import before_and_after, headline
from secateur.report.audit import audit_facts
from secateur.report.front_figure import front_figure
from secateur.report.paths import paths_table
from secateur.report.table import status


def cells(record):
    table = before_and_after(record)
    headings = [column.heading for column in table.columns]
    return {row.cells[0]: dict(zip(headings, row.cells, strict=True)) for row in table.rows}


def test_a_row_for_each_model_from_the_slowest_to_the_fastest():
    table = before_and_after(RECORD)
    assert [row.cells[0] for row in table.rows] == ["dense", "f3-cc", "f1-aa", "f2-bb"]
    assert [row.cells[0] for row in table.rows if row.best] == ["f1-aa"]
    assert [row.cells[0] for row in table.rows if not row.passed] == ["f2-bb"]
    assert cells(RECORD)["f1-aa"]["size"] == "400 kB (40%)"
    assert cells(RECORD)["f1-aa"]["speed-up"] == "2.50× (2.44–2.56)"


def test_the_download_stands_beside_the_size_where_it_was_measured():
    assert cells(RECORD)["f1-aa"]["download"] == "360 kB (40%)"
    assert cells(RECORD)["dense"]["download"] == "900 kB (100%)"
    before = {name: figure for name, figure in figures(0.88, 0.4, 4e5).items() if name != "download"}
    earlier = make([finalist("f1-aa", 0.88, 0.4, measurements=before)], "f1-aa")
    assert cells(earlier)["f1-aa"]["download"] == UNKNOWN
    assert "download" not in cells(replace(earlier, dense={**earlier.dense, "selection": before}))["dense"]


def test_constraints_and_front_are_two_columns():
    record = make(
        [
            finalist("a", 0.88, 0.4),
            finalist("b", 0.88, 0.5),
            finalist("c", 0.7, 0.3),
            finalist("d", 0.7, 0.6),
        ],
        "a",
        {"b": {"on_front": False}, "c": {"missed": "no"}, "d": {"missed": "no", "on_front": False}},
    )
    found = {name: (row["constraints"], row["front"]) for name, row in cells(record).items() if name != "dense"}
    assert found == {
        "a": ("met", "knee"),
        "b": ("met", "no"),
        "c": ("not met", "yes"),
        "d": ("not met", "no"),
    }
    assert status(record, record.finalists[2]).startswith("constraints not met, on the front; not shown: ")


def test_milliseconds_stand_beside_the_dense_models_of_the_same_measurement():
    """The dense model's own measurement was made at another time, at another speed of the machine."""
    slow = figures(0.88, 0.5, 5e5)
    latency = replace(slow["latency"], details={"min_ms": 0.1, "dense_min_ms": 0.2})
    record = make([finalist("a", 0.88, 0.5, measurements=slow | {"latency": latency})], "a")
    assert cells(record)["a"]["ms (dense model)"] == "0.100 (0.200)"
    assert cells(record)["dense"]["ms (dense model)"] == "0.080"


def test_empty_columns_are_left_out():
    without = {k: v for k, v in figures(0.88, 0.5, 5e5).items() if k not in ("latency", "macs")}
    record = make([finalist("a", 0.88, 0.5, measurements=without)], "a", {"a": {"test": None}})
    record = replace(record, dense={"search": without, "selection": without, "test": {}})
    headings = {column.heading for column in before_and_after(record).columns}
    assert not {"speed-up", "ms (dense model)", "MACs", "test score", "test change"} & headings
    assert {"speed-up", "ms (dense model)", "MACs", "test score", "test change"} <= set(cells(RECORD)["dense"])


def test_failures_and_early_stops_are_notes():
    broken = finalist("a", 0.5, 0.4, measurements={}, failure="it broke")
    stopped = finalist("b", 0.8, 0.4, stopped="the loss became NaN in epoch 2")
    rows = {row.cells[0]: row for row in before_and_after(make([broken, stopped], None)).rows}
    assert rows["a"].notes == ("failed: it broke",)
    assert rows["a"].cells[1] == "failed"
    assert rows["b"].notes == ("fine-tuning stopped early: the loss became NaN in epoch 2",)


def test_what_was_not_shown_and_what_test_data_refuses_are_notes():
    figures_say = "-2.8 points, and a loss of 5.3 points cannot be excluded"
    refused = "on test data -13.3 points (-17.7 to -9.9): not within 0.05"
    said = {"a": {"missed": figures_say}, "b": {"veto": refused}}
    record = make([finalist("a", 0.87, 0.4), finalist("b", 0.88, 0.5)], None, said)
    rows = {row.cells[0]: row for row in before_and_after(record).rows}
    assert rows["a"].notes == (f"not shown: accuracy within 0.05 of the dense model: {figures_say}",)
    assert rows["b"].notes == (f"no alias: {refused}",)
    assert headline(record) == (
        "1 of 2 finalists passed the gate. Test data contradicts the constraints for each of them: none gets the alias."
    )


def test_an_int8_model_is_compared_with_its_float32_twin():
    off = Measurement(0.0123, "relative squared error", "measured", 100)
    slow = finalist("a-int8", 0.87, 0.45, quantized=Quantized("a", "a", off), searched={})
    fast = finalist("dense-int8", 0.89, 0.5, quantized=Quantized("dense", "dense"), searched={})
    same = finalist("b-int8", 0.87, 0.41, quantized=Quantized("a", "a"), searched={})
    rows = {r.cells[0]: r.notes for r in before_and_after(make([finalist("a", 0.88, 0.4), slow, fast, same], "a")).rows}
    assert rows["a"] == ()
    said = "int8 of a, outputs 1.23 % off (squared error over their spread), slower on this device: 1.12× the time"
    assert rows["a-int8"] == (said,)
    assert rows["dense-int8"] == ("int8 of dense, 2.00× faster",)
    assert rows["b-int8"] == ("int8 of a, as fast, within what could be measured",)


def test_a_change_that_was_taken_sample_by_sample_has_its_interval():
    change = Measurement(-0.02, "score", "measured", 100, (-0.05, 0.01))
    record = make([finalist("a", 0.88, 0.4)], "a", {"a": {"change": change, "test_change": change}})
    assert (cells(record)["a"]["change"], cells(record)["a"]["test change"]) == ("-2.0 points (-5.0 to +1.0)",) * 2
    assert headline(record).endswith("-2.0 points (-5.0 to +1.0) of top-1 accuracy on selection data.")


def test_a_network_trained_from_scratch_is_a_baseline():
    scratch = finalist("small-dense", 0.87, 0.4)
    row = cells(replace(RECORD, small_dense=scratch))["small-dense"]
    assert (row["constraints"], row["front"]) == ("–", "baseline")


def test_a_score_with_a_unit_is_no_share_anywhere():
    """-3.2 dB is not -320 %, and a gain of 0.5 dB is not 50 points, even where both scores lie in [0, 1]."""
    decibel = replace(RECORD, score_unit="dB", audit=replace(RECORD.audit, regret=0.25))
    row = cells(decibel)["f1-aa"]
    assert (row["score before recovery"], row["score after"], row["change"]) == (
        "0.68 ± 0.02 dB",
        "0.88 ± 0.02 dB",
        "-0.02 dB",
    )
    assert "-0.02 dB of top-1 accuracy" in headline(decibel)
    facts = audit_facts(decibel)
    assert facts["regret"].startswith("0.25 dB: ")
    assert facts["fine-tuned finalists from search to selection data"] == "-0.004 dB on average"
    assert front_figure(decibel, "size").layout.yaxis.tickformat == ""
    assert front_figure(RECORD, "size").layout.yaxis.tickformat == ".0%"


def test_exact_latency_has_no_interval_to_divide_by():
    exact = Measurement(0.5, "of dense", "measured")
    record = make([finalist("a", 0.88, 0.5, measurements=figures(0.88, 0.5, 5e5) | {"latency": exact})], "a")
    assert cells(record)["a"]["speed-up"] == "2.00× (2.00–2.00)"
    assert cells(record)["a"]["ms (dense model)"] == "–"


def test_a_model_with_gates_has_its_ends_as_a_note_and_its_paths_in_a_table():
    def path(closed, macs, latency):
        details = {"min_ms": latency, "dense_min_ms": 1.0}
        return GatePath(
            closed, macs, Measurement(latency, "of dense", "measured", 8, (latency, latency), "cpu", details)
        )

    paths = (path((), 9e6, 1.2), path(("a",), 5e6, 0.8), path(("b",), 6e6, 0.9), path(("a", "b"), 2e6, 0.5))
    record = make([finalist("f1", 0.88, 0.7, paths=paths), finalist("f2", 0.88, 0.6)], "f2")
    rows = {row.cells[0]: row for row in before_and_after(record).rows}
    (note,) = rows["f1"].notes
    assert note.startswith(
        "gates choose the blocks of each sample: latency and MACs are averages over calibration samples; "
    )
    assert note.endswith(
        "every gate open: 9 M MACs, latency 1.200 ± 0.000 of dense; every gate closed: 2 M MACs, latency 0.500 ± 0.000 of dense"
    )
    assert rows["f2"].notes == ()
    assert [row.cells for row in paths_table(record).rows] == [
        ("f1", "every gate open", "9 M", "1.200 ± 0.000", "1.200", "1.000"),
        ("f1", "a closed", "5 M", "0.800 ± 0.000", "0.800", "1.000"),
        ("f1", "b closed", "6 M", "0.900 ± 0.000", "0.900", "1.000"),
        ("f1", "every gate closed", "2 M", "0.500 ± 0.000", "0.500", "1.000"),
    ]
    untimed = make([finalist("f1", 0.88, 0.7, paths=tuple(replace(path, latency=None) for path in paths))], "f1")
    assert paths_table(untimed).rows[0].cells == ("f1", "every gate open", "9 M")
    assert paths_table(make([finalist("f2", 0.88, 0.6)], "f2")) is None
