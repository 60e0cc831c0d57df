from __future__ import annotations

from dataclasses import replace

from finished import DENSE, RECORD, figures, finalist, make
from invented import narrowed
from secateur.records import Candidate, Edit, GroupSummary, Measurement, Quantized
from secateur.report.hints import hints

GROUPS = (
    GroupSummary("heavy", "Conv2d", 64, 10, int(6e6), ("l2",), (64, 32)),
    GroupSummary("light", "Conv2d", 64, 10, int(5e5), ("l2",), (64, 32)),
)


def seen(heavy, light, latency=0.9, macs=0.5, dense_ms=20.0, step=None, groups=GROUPS):
    measured = figures(0.88, latency, 5e5)
    measured["macs"] = Measurement(macs * DENSE["macs"].value, "MACs", "computed")
    measured["latency"] = replace(measured["latency"], details={"dense_min_ms": dense_ms})
    candidate = narrowed({name: width for name, width in (("heavy", heavy), ("light", light)) if width < 64})
    record = make([finalist("f1", 0.88, latency, candidate=candidate, measurements=measured)], "f1")
    return {hint.cause: hint for hint in hints(replace(record, groups=groups, device_step=step))}


def test_time_that_lags_behind_macs():
    found = seen(32, 32, latency=0.9, macs=0.5)["Work that is not arithmetic"]
    assert "does 50% of the dense model's MACs and takes 90% of its time" in found.seen
    assert found.remedy
    assert not seen(32, 32, latency=0.5, macs=0.5)["Work that is not arithmetic"].remedy


WIDTH = "A width off the device's step"


def test_widths_off_the_measured_step_are_named():
    found = seen(40, 32, step=16)[WIDTH]
    assert found.seen.startswith(
        "1 of 2 groups that were cut keep a number of channels that is not a multiple of 16, the step meas"
    )
    assert "heavy (40)" in found.seen
    assert "multiple_of: device" in found.remedy
    fits = seen(40, 32, step=8)[WIDTH]
    assert (fits.seen, fits.remedy) == (
        "Every width that was chosen is a multiple of 8, the step measured on the device.",
        "",
    )
    assert "heavy" not in seen(64, 40, step=16)[WIDTH].seen, "it is whole"
    assert seen(64, 64, step=16)[WIDTH].seen == seen(64, 64)[WIDTH].seen == "No group was cut."


def test_where_the_step_was_not_measured_the_search_space_is_all_there_is_to_go_by():
    free = seen(33, 32)[WIDTH].seen
    assert free.startswith("2 of 2 groups that were cut could keep any number of channels: heavy (33), light (32).")
    assert free.endswith("was not measured.")
    bound = tuple(replace(group, multiple=multiple) for group, multiple in zip(GROUPS, (4, 8), strict=True))
    found = seen(36, 32, groups=bound)[WIDTH]
    assert "is a multiple of what the search space says (4, 8). The step of the device was not measured." in found.seen
    assert found.remedy


def test_a_bottleneck_that_was_spared_is_named():
    found = seen(64, 8)["The layers that were cut are not the bottleneck"]
    assert "heavy (60% of the MACs, keeps 100%)" in found.seen
    assert "light" not in found.seen
    assert not seen(16, 64)["The layers that were cut are not the bottleneck"].remedy


def test_fixed_costs_only_of_small_models():
    assert "0.200 ms" in seen(32, 32, dense_ms=0.2)["Fixed costs of a small model"].seen
    assert "Fixed costs of a small model" not in seen(32, 32, dense_ms=20.0)


ZEROS = "Zeros without a kernel"


def of_masks(*transforms, **evaluator):
    """What is said of a finalist that is masked by these transforms."""
    edits = tuple(Edit(transform, 50, "l2") for transform in transforms)
    record = make([finalist("f1", 0.88, 0.9, candidate=Candidate({"heavy": edits}))], "f1")
    found = hints(replace(record, definition={"evaluator": evaluator}))
    return {hint.cause: hint for hint in found}.get(ZEROS)


def test_zeros_of_masks_are_no_speed():
    found = of_masks("channels", "weights", runtime="onnxruntime", runtime_options={})
    assert "f1 holds weights that were set to zero. No kernel of onnxruntime skips" in found.seen
    assert "`download`" in found.remedy
    assert "Does not apply" in of_masks("channels", runtime="onnxruntime").seen


def test_of_a_runtime_that_is_not_here_nothing_is_claimed():
    assert of_masks("weights", runtime="of a plug-in") is None
    assert of_masks("weights") is None, "an earlier version's record"


def test_nothing_is_said_where_latency_was_not_measured():
    without = {k: v for k, v in figures(0.88, 0.4, 4e5).items() if k != "latency"}
    assert hints(make([finalist("f1", 0.88, 0.4, measurements=without)], "f1")) == []
    assert hints(make([], None)) == []
    assert hints(RECORD)


def test_a_pattern_is_said_with_the_layers_of_the_file_that_have_it():
    edits = Candidate({"heavy": (Edit("n_m", "2:4", "l2"),)})
    shown = finalist("f1", 0.88, 0.9, candidate=edits, patterns={"2:4": (8, 10)})
    found = hints(replace(make([shown], "f1"), definition={"evaluator": {"runtime": "onnxruntime"}}))
    (zeros,) = [hint for hint in found if hint.cause == ZEROS]
    assert zeros.seen.endswith("2:4 as sparse tensor cores read it: 8 of 10 layers.")


def test_int8_that_takes_longer_than_float32_is_named():
    twins = [finalist("f1", 0.88, 0.4), finalist("f1-int8", 0.87, 0.5, quantized=Quantized("f1", "f1"))]
    fast = finalist("dense-int8", 0.89, 0.6, quantized=Quantized("dense", "dense"))
    said = {hint.cause: hint.seen for hint in hints(make([*twins, fast], "f1"))}["Int8 without fast kernels"]
    assert said.startswith(
        "1 of 2 int8 models are slower on this device: f1-int8 (1.25× the time of its float32 twin)."
    )
    said = {hint.cause: hint.seen for hint in hints(make([twins[0], fast], "f1"))}["Int8 without fast kernels"]
    assert said == "Does not apply: none of the 1 int8 models is slower than its float32 twin."
    assert "Int8 without fast kernels" not in {hint.cause for hint in hints(make(twins[:1], "f1"))}
