from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invented import ladder, whole
from secateur.search.knapsack import Curve, damage_curve, saving_curve, solve


def test_curves_are_those_of_the_whole_group_where_it_may_not_stay_whole():
    half, quarter = ladder(whole(32), (16, 8))
    assert damage_curve((half, quarter), {0: 0.2}) == pytest.approx([0.2, 0.45])
    assert saving_curve((half, quarter), {0: 0.1}) == pytest.approx([0.10, 0.15])
    assert solve({"a": Curve((0.2, 0.45), (0.1, 0.15))}, [0.0, 0.14]) == [{"a": 0}, {"a": 1}]


def test_curves_pass_through_what_was_measured():
    options = ladder(whole(32), (32, 24, 16, 8))
    damage = damage_curve(options, {2: 0.2})
    assert damage[0] == 0.0
    assert damage[2] == pytest.approx(0.2)
    assert damage[1] == pytest.approx(0.2 / 4), "half as much removed: a quarter of the damage"
    assert damage[3] == pytest.approx(0.2 * 1.5**2)
    assert saving_curve(options, {2: 0.1}) == pytest.approx([0.0, 0.05, 0.10, 0.15])


def test_between_measured_points_curves_are_linear_and_they_never_fall():
    options = ladder(whole(40), (40, 30, 20, 10))
    damage = damage_curve(options, {1: 0.3, 3: 0.1})
    assert damage == pytest.approx([0.0, 0.3, 0.3, 0.3]), "more removed cannot hurt less: that was noise"
    assert saving_curve(options, {1: 0.1, 3: 0.3}) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def curve(damage, saving):
    options = ladder(whole(8), (8, 6, 4, 2))
    return Curve(tuple(damage_curve(options, {2: damage})), tuple(saving_curve(options, {2: saving})))


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
        curves[f"g{number}"] = Curve(*zip(*points, strict=True))
    largest = sum(max(c.saving) for c in curves.values())
    target = share * largest
    chosen = solve(curves, [target])[0]

    def total(position, what):
        return sum(getattr(curve, what)[position[name]] for name, curve in curves.items())

    best = min(
        total(dict(zip(curves, positions, strict=True)), "damage")
        for positions in itertools.product(*(range(len(c.damage)) for c in curves.values()))
        if total(dict(zip(curves, positions, strict=True)), "saving") >= target
    )
    assert total(chosen, "damage") <= best + 1e-9
    assert total(chosen, "saving") >= target - 0.01 * largest


def test_targets_are_met_in_order():
    curves = {name: curve(damage, 0.2) for name, damage in (("a", 0.1), ("b", 0.4))}
    total = sum(c.saving[-1] for c in curves.values())
    chosen = solve(curves, [total * share for share in (0.2, 0.5, 0.9)])
    steps = [sum(position.values()) for position in chosen]
    assert steps == sorted(steps)
    assert chosen[0]["b"] == 0, "the sensitive group is cut last"
