from __future__ import annotations

from dataclasses import replace

from finished import DENSE, RECORD, figures, finalist, make
from secateur.records import ArmResult, Measurement
from secateur.report import headline
from secateur.report.summary import cards, warnings


def latency(value, low, high, **details):
    found = DENSE["latency"]
    return replace(found, value=value, interval=(low, high), details={**found.details, **details})


def test_the_headline_is_honest_about_gain_and_loss():
    assert headline(RECORD) == (
        "2 of 3 finalists passed the gate. f1-aa, the knee of the front: 2.50× faster, 2.50× smaller, -2.0 points of top-1 accuracy "
        "on selection data."
    )
    failed = make([finalist("f1", 0.5, 0.4)], None, {"f1": {"missed": "-40.0 points"}})
    assert headline(failed) == "None of the 1 finalists passed the gate."
    assert cards(failed) == []


def test_a_download_is_told_where_it_is_an_objective():
    """Of a network with zeros the file is as large as before."""
    download = Measurement(1e5, "bytes", "computed")
    best = finalist("f1-aa", 0.88, 0.4, measurements={**figures(0.88, 0.4, 1e6), "download": download})
    record = make([best], "f1-aa")
    assert "download" not in headline(record)
    assert not [card for card in cards(record) if "download" in card.text]
    asked = replace(record, objectives={"accuracy": "maximize", "download": "minimize"})
    assert "1.00× smaller, 9.00× smaller to download" in headline(asked)
    (card,) = (card for card in cards(asked) if "download" in card.text)
    assert (card.value, card.text) == ("9.00×", "smaller download, compressed: 100 kB instead of 900 kB")


def arms(uniform):
    return (ArmResult("search", 40, 0.2), uniform, ArmResult("random", 0, 0.0), ArmResult("global", 2, 0.19))


def test_a_search_that_did_not_beat_a_baseline_says_so_first():
    """The whole search has more than the uniform family, but from seven times as many networks."""
    as_many = Measurement(0.15, "hypervolume", "computed", 400, (0.1, 0.18))
    said = headline(replace(RECORD, arms=arms(ArmResult("uniform", 6, 0.16, as_many))))
    assert said.startswith(
        "The search did not beat the baseline at equal numbers of networks: uniform (hypervolume 0.1600 with 6 networks); as many of "
        "the search's own have 0.1500 (median of 400 draws, 95 % of them 0.1000 to 0.1800)."
    )
    assert headline(replace(RECORD, arms=arms(ArmResult("uniform", 6, 0.14, as_many)))) == headline(RECORD)


def test_few_networks_are_a_sanity_check():
    as_many = Measurement(0.1, "hypervolume", "computed", 400, (0.05, 0.12))
    assert headline(replace(RECORD, arms=arms(ArmResult("uniform", 2, 0.16, as_many)))) == headline(RECORD)
    said = headline(replace(RECORD, arms=arms(ArmResult("uniform", 2, 0.21, as_many))))
    assert said.startswith(
        "Sanity check: uniform (hypervolume 0.2100 with 2 networks) has reached what the whole search has (0.2000)."
    )


def test_a_small_network_trained_from_scratch_that_scores_as_high_is_told():
    scratch = finalist("small-dense", 0.87, 0.4)
    record = replace(RECORD, small_dense=scratch)
    assert "gained nothing" not in headline(record)
    as_good = replace(record, small_dense=replace(scratch, measurements=figures(0.88, 0.4, 4e5)))
    assert headline(as_good).startswith("Trained from scratch, the widths of f1-aa score as well as pruned")


def test_a_dense_model_that_differs_from_itself_is_a_warning():
    said = warnings(replace(RECORD, self_comparison=latency(1.064, 1.003, 1.094)))
    assert [text for text in said if "1.064" in text and "1.003 to 1.094" in text and "widened" in text]
    assert warnings(RECORD) == []
    assert warnings(replace(RECORD, self_comparison=latency(1.002, 0.99, 1.01))) == []


def test_many_disturbed_measurements_are_a_warning():
    disturbed = figures(0.88, 0.4, 4e5) | {"latency": latency(0.4, 0.39, 0.41, disturbed=1.0)}
    record = make([finalist("f1", 0.88, 0.4, measurements=disturbed)], "f1")
    said = [text for text in warnings(record) if "quiet" in text]
    assert len(said) == 1
    assert said[0].startswith("1 of 3 latency measurements (33%)"), "the dense trial, a trial and the finalist"


def test_a_loss_is_no_good_news():
    found = cards(RECORD)
    assert [card.value for card in found] == ["2.50×", "2.50×", "2.50×", "-2.0 points"]
    assert [card.gain for card in found] == [True, True, True, False]
    assert "0.032 ms against 0.080 ms in the same measurement" in found[0].text
