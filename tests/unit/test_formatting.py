"""How figures are written."""

from __future__ import annotations

import pytest

from secateur import formatting
from secateur.records import SHARE, Measurement


def measured(value, low, high):
    return Measurement(value, "score", "measured", interval=(low, high))


@pytest.mark.parametrize(
    ("unit", "score", "with_interval", "difference", "with_its_interval", "amount"),
    [
        (SHARE, "90.0 %", "90.0 % ± 2.0", "-1.5 points", "-1.5 points (-3.0 to +0.5)", "5.0 points"),
        ("dB", "0.9 dB", "0.9 ± 0.02 dB", "-0.015 dB", "-0.015 dB (-0.03 to +0.005)", "0.05 dB"),
        ("", "0.9", "0.9 ± 0.02", "-0.015", "-0.015 (-0.03 to +0.005)", "0.05"),
    ],
)
def test_scores_are_shown_in_their_unit(unit, score, with_interval, difference, with_its_interval, amount):
    assert formatting.score(0.9, unit) == score
    assert formatting.score_with_interval(measured(0.9, 0.88, 0.92), unit) == with_interval
    assert formatting.difference(-0.015, unit) == difference
    assert formatting.difference_with_interval(measured(-0.015, -0.03, 0.005), unit) == with_its_interval
    assert formatting.amount(0.05, unit) == amount


def test_a_negative_score_is_a_plain_number():
    assert formatting.score(-3.2, "dB") == "-3.2 dB"
    assert formatting.score_with_interval(None, SHARE) == "–"


def test_counts_and_bytes_are_rounded_for_people():
    assert [formatting.kilobytes(v) for v in (900, 123456, 2.5e6)] == ["1 kB", "123 kB", "2.50 MB"]
    assert [formatting.short(v) for v in (12, 1234, 40_551_040, 3e9)] == ["12", "1.23 k", "40.6 M", "3 G"]


def test_a_number_on_its_own_is_written_in_full_from_a_thousand_on():
    shown = [formatting.number(v) for v in (0.29961, 12.0, 12.5, 1000, 31861.4, -533488)]
    assert shown == ["0.2996", "12", "12.5", "1,000", "31,861", "-533,488"]
