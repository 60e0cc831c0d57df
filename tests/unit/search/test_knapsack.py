from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.search.knapsack import Curve, damage_curve, saving_curve, solve


def test_curves_are_those_of_the_whole_group_where_it_may_not_stay_whole():
    assert damage_curve(32, (16, 8), {16: 0.2}) == pytest.approx([0.2, 0.45])
    assert saving_curve(32, (16, 8), {16: 0.1}) == pytest.approx([0.10, 0.15])
    assert solve({"a": Curve((16, 8), (0.2, 0.45), (0.1, 0.15))}, [0.0, 0.14]) == [{"a": 16}, {"a": 8}]


def test_curves_pass_through_what_was_measured():
    damage = damage_curve(32, (32, 24, 16, 8), {16: 0.2})
    assert damage[0] == 0.0
    assert damage[2] == pytest.approx(0.2)
    assert damage[1] == pytest.approx(0.2 / 4), "half as much removed: a quarter of the damage"
    assert damage[3] == pytest.approx(0.2 * 1.5**2)
    assert saving_curve(32, (32, 24, 16, 8), {16: 0.1}) == pytest.approx([0.0, 0.05, 0.10, 0.15])


def test_between_measured_points_curves_are_linear_and_they_never_fall():
    damage = damage_curve(40, (40, 30, 20, 10), {30: 0.3, 10: 0.1})
    assert damage == pytest.approx([0.0, 0.3, 0.3, 0.3]), "more removed cannot hurt less: that was noise"
    assert saving_curve(40, (40, 30, 20, 10), {30: 0.1, 10: 0.3}) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def curve(damage, saving):
    widths = (8, 6, 4, 2)
    return Curve(
        widths, tuple(damage_curve(widths[0], widths, {4: damage})), tuple(saving_curve(widths[0], widths, {4: saving}))
    )


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=3), min_size=1, max_size=4
    ),
    st.floats(0.05, 0.95),
)
def test_against_trying_everything(groups, share):
    """Savings in hundredths of the largest total, so that the grid is fine enough for the answer to be exact."""
    curves = {}
    for number, options in enumerate(groups):
        saving, damage = 0.0, 0.0
        points = [(0.0, 0.0)]
        for extra_damage, extra_saving in options:
            saving, damage = saving + extra_saving, damage + extra_damage
            points.append((damage, saving))
        curves[f"g{number}"] = Curve(tuple(range(len(points), 0, -1)), *zip(*points, strict=True))
    largest = sum(max(c.saving) for c in curves.values())
    target = share * largest
    kept = solve(curves, [target])[0]

    def total(choice, what):
        return sum(getattr(curve, what)[curve.widths.index(choice[name])] for name, curve in curves.items())

    best = min(
        total(dict(zip(curves, widths, strict=True)), "damage")
        for widths in itertools.product(*(c.widths for c in curves.values()))
        if total(dict(zip(curves, widths, strict=True)), "saving") >= target
    )
    assert total(kept, "damage") <= best + 1e-9
    assert total(kept, "saving") >= target - 0.01 * largest


def test_targets_are_met_in_order():
    curves = {name: curve(damage, 0.2) for name, damage in (("a", 0.1), ("b", 0.4))}
    total = sum(c.saving[-1] for c in curves.values())
    kept = solve(curves, [total * share for share in (0.2, 0.5, 0.9)])
    widths = [sum(k.values()) for k in kept]
    assert widths == sorted(widths, reverse=True)
    assert kept[0]["b"] == 8, "the sensitive group is cut last"
