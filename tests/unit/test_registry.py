"""What of the registry can be asked without MLflow; the rest is in tests/end_to_end/test_mlflow.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from finished import RECORD, finalist, make
from secateur.records import Candidate, GatePath, Goal, Measurement, Quantized
from secateur.registry import Package, Target
from secateur.registry.contents import (
    dense_points,
    figures_file,
    finalist_figures,
    finalist_parameters,
    finalist_points,
    run_points,
    status,
)
from secateur.registry.model_card import model_card, run_description
from secateur.registry.publishing import _from_here, _Publisher


class Server:
    """alias → (version, when its run was started), of the registered model 'm'."""

    def __init__(self, aliases):
        self.aliases = dict(aliases)

    def version(self, name, number):
        assert name == "m"
        found = self.aliases.get(number.removeprefix("@"))
        return found and SimpleNamespace(number=found[0], tags={"secateur.started": found[1]})

    def point(self, name, alias, version):
        assert name == "m"
        self.aliases[alias] = (version, "now")


@pytest.mark.parametrize(
    ("held", "moves"),
    [({}, True), ({"candidate": ("1", "2026-11-01")}, True), ({"candidate": ("1", "2026-11-03")}, False)],
)
def test_a_run_that_is_flushed_late_does_not_take_the_alias_from_a_newer_one(held, moves):
    publisher = object.__new__(_Publisher)  # its constructor asks the server for the experiment
    publisher.server, publisher.target = Server(held), Target("m", "candidate", None)
    publisher.record = SimpleNamespace(started="2026-11-02")
    publisher._point("candidate", "7")
    assert (publisher.server.aliases["candidate"][0] == "7") == moves


@pytest.mark.parametrize(("variable", "expected"), [("", None), ("http://mlflow:5000", "http://mlflow:5000")])
def test_an_empty_address_in_the_environment_is_the_embedded_database(monkeypatch, variable, expected):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    assert Target.of({"name": "m", "alias": "candidate", "tracking_uri": None}).tracking_uri == expected


def test_the_hint_names_the_project_where_it_is_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _from_here(tmp_path) == ""
    assert _from_here(tmp_path / "other") == f" --project {tmp_path / 'other'}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "f1-aa"}, "knee"),
        ({"name": "x"}, "front"),
        ({"name": "x", "on_front": False}, "dominated"),
        ({"name": "x", "missed": "-9.0 points"}, "infeasible"),
        ({"name": "x", "veto": "loses too much"}, "vetoed"),
    ],
)
def test_the_status_of_a_finalist(changes, expected):
    said = dict(changes)
    name = said.pop("name")
    one = finalist(name, 0.8, 0.5)
    assert status(make([one], "f1-aa", {name: said}), one) == expected
    broken = replace(one, failure="it broke")
    assert status(make([broken], None), broken) == "failed"


def package(record=RECORD) -> Package:
    return Package(record, Path(), Path(), {}, {}, {"selection": "d1", "test": "d2", "search": "d3"})


def test_a_handful_of_figures_sorts_and_everything_else_is_in_a_file():
    changed = Measurement(-0.02, "score", "measured", 100, (-0.05, 0.01))
    record = make(
        [replace(RECORD.finalists[0], losses=(0.5,), on_search=RECORD.finalists[0].searched["accuracy"])],
        "f1-aa",
        {"f1-aa": {"change": changed}},
    )
    points = finalist_points(package(record), record.finalists[0])
    headline = {p.key: p.data.name for p in points if p.data}
    assert headline == {
        "accuracy": "w/selection", "accuracy_change": "w/selection", "accuracy_search": "w/search", "accuracy_test": "w/test",
        "latency": "w/selection", "speedup": "w/selection", "size": "w/selection", "macs": "w/selection",
    }  # fmt: skip
    assert {p.key for p in points} - headline.keys() == {"training/loss", "training/search_score"}
    assert {p.key: p.value for p in run_points(package(record))} == {
        "accuracy": 0.88, "accuracy_change": -0.02, "accuracy_search": pytest.approx(0.68), "accuracy_test": 0.9,
        "latency": 0.4, "speedup": 2.5, "size": 4e5, "macs": 4e6, "trials": 3, "finalists": 1, "registered": 1,
    }  # fmt: skip
    assert {p.key for p in dense_points(package())} == headline.keys() - {"accuracy_change"}
    figures = json.loads(json.dumps(figures_file(finalist_figures(record, record.finalists[0]))))
    assert figures["selection"]["accuracy_change"]["interval"] == [-0.05, 0.01]
    assert figures["selection"]["latency"]["details"]["p90_ms"] == 2
    assert figures["search"]["damage"]["unit"] == "relative squared error"
    assert figures["test"].keys() == {"accuracy"}


def test_a_goal_of_ones_own_is_among_the_figures_that_people_compare():
    goal = Goal("damage", "at_most", 0.2, 0.5, "damage at most 0.2")
    points = finalist_points(package(replace(RECORD, goals=(goal,))), RECORD.finalists[0])
    assert "damage" in {p.key for p in points}


def test_curves_are_metrics_by_step_and_else_by_epoch():
    tuned = replace(RECORD.finalists[0], losses=(0.5,), on_search=RECORD.finalists[0].searched["accuracy"])

    def steps(one):
        points = finalist_points(package(), one)
        return {
            key: [p.step for p in points if p.key == f"training/{key}"] for key in ("loss", "score", "search_score")
        }

    assert steps(tuned) == {"loss": [1], "score": [], "search_score": [0, tuned.epochs]}
    known = replace(tuned, curve=((4, 0.6), (7, 0.4)), scores=((7, 0.8),))
    assert steps(known) == {"loss": [4, 7], "score": [7], "search_score": [0, 7]}


def test_without_fine_tuning_no_metric_is_logged_twice_at_a_step():
    """MLflow's database refuses a second value of one metric at one step and time, whatever data set it is of."""
    untouched = replace(RECORD.finalists[0], epochs=0, losses=(), on_search=RECORD.finalists[0].searched["accuracy"])
    places = [(p.key, p.step) for p in finalist_points(package(), untouched)]
    assert len(places) == len(set(places))
    assert "not fine-tuned" in model_card(RECORD, untouched)


def test_a_model_card_says_what_how_and_where_it_ends():
    decibels = Measurement(-3.21, "dB", "measured", 100, (-3.5, -3.0))
    best = replace(RECORD.finalists[0], measurements=RECORD.finalists[0].measurements | {"accuracy": decibels})
    card = model_card(replace(RECORD, score_unit="dB", score_name="PSNR"), best, Target("m", "candidate", None))
    assert "| PSNR | -3.21 [-3.5, -3] dB |" in card
    assert "models:/m@candidate" in card
    assert "- test: 100 samples, used once, on what is registered" in card
    assert "Latency and memory hold for this device" in card
    assert len(card) < 5000
    assert "gates" not in card
    gated = model_card(RECORD, replace(RECORD.finalists[0], paths=(GatePath((), 9), GatePath(("a",), 2))))
    assert (
        "× the dense model's speed on average. **f1-aa**: w, with channels removed, with gates before its blocks"
        in gated
    )
    assert "are averages over calibration samples; every gate open: 9 MACs; every gate closed: 2 MACs." in gated
    broken = replace(best, failure="it broke")
    assert model_card(make([broken], None), broken).endswith("Reason: it broke")


def test_a_card_of_an_int8_model_says_what_it_was_made_of_and_that_torch_does_not_run_it():
    off = Measurement(0.0123, "relative squared error", "measured", 100)
    made = finalist("f1-aa-int8", 0.87, 0.2, quantized=Quantized("f1-aa", "f1-aa", off), searched={})
    alone = replace(
        made, name="dense-int8", trial=None, candidate=Candidate({}), epochs=0, quantized=Quantized("dense", "dense")
    )
    record = make([*RECORD.finalists, made, alone], "f1-aa-int8")
    card = model_card(record, made, Target("m", "candidate", None))
    assert (
        "w, with channels removed, fine-tuned for 3 epochs against the dense model as teacher, then quantized to int8."
        in card
    )
    assert "made of `f1-aa` after its training" in card
    assert "the squared error on selection data is 1.23 % of the spread" in card
    assert "Torch runs no int8 model: that is its float32 twin, `f1-aa`." in card
    assert "w, the original network, then quantized to int8." in model_card(record, alone)
    assert "Run `r-1`; 0 of 2 groups cut" in model_card(record, alone)
    assert finalist_parameters(record, made)["precision"] == "int8"
    assert finalist_parameters(record, RECORD.finalists[0])["precision"] == "float32"


def test_a_run_whose_finalists_test_data_refuses_does_not_say_that_none_passed():
    assert RECORD.registered
    refused = run_description(replace(RECORD, knee=None))
    assert "none gets the alias" in refused
    assert "No finalist passed" not in refused
    assert "No finalist passed the gate" in run_description(replace(RECORD, knee=None, finalists=()))


def test_the_score_of_the_device_has_the_unit_of_the_score():
    best = RECORD.finalists[0]
    own = Measurement(0.9, "score", "measured", 50, (0.8, 0.95))
    card = model_card(RECORD, replace(best, measurements={**best.measurements, "device_accuracy": own}))
    assert "| device_accuracy | 90.0 [80.0, 95.0] % |" in card
