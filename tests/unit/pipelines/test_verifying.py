"""What of a registered version still holds."""

from __future__ import annotations

import pytest

from secateur.errors import GateFailed
from secateur.pipelines.verifying import Figure, Verification, _holds
from secateur.records import Measurement


def measured(value, low, high):
    return Measurement(value, "of dense", "measured", 8, (low, high))


@pytest.mark.parametrize(
    ("name", "now", "notes", "holds"),
    [
        ("latency", measured(0.55, 0.52, 0.58), {}, True),  # the intervals meet
        ("latency", measured(0.60, 0.57, 0.63), {}, False),
        ("latency", measured(0.60, 0.57, 0.63), {"device": "another"}, None),
        ("latency", measured(0.60, 0.57, 0.63), {"data": "other"}, False),
        ("accuracy", measured(0.47, 0.40, 0.54), {}, False),  # of the same samples: its own interval is no excuse
        ("accuracy", measured(0.49, 0.40, 0.54), {"device": "another"}, True),
        ("accuracy", measured(0.10, 0.05, 0.15), {"data": "other"}, None),
    ],
)
def test_a_measured_figure_must_meet_the_registered_interval(name, now, notes, holds):
    assert _holds(name, measured(0.5, 0.48, 0.53), now, notes) is holds


def test_a_computed_figure_must_be_the_same():
    size = Measurement(100.0, "bytes", "computed")
    assert _holds("size", size, size, {"device": "another", "data": "other"}) is True
    assert _holds("size", size, Measurement(101.0, "bytes", "computed"), {}) is False


def test_what_does_not_hold_is_named():
    one = measured(0.5, 0.4, 0.6)
    fine = Figure("latency", one, one, holds=True)
    Verification("'m' version 1", (), (fine, Figure("energy", one, one, holds=None)), ()).require_held()
    with pytest.raises(
        GateFailed, match=r"'m' version 1: its files are not .* \(model\.onnx\); what does not hold here: size"
    ):
        Verification("'m' version 1", ("model.onnx",), (fine, Figure("size", one, one, holds=False)), ()).require_held()
