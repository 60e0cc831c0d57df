"""The search's options through the real command line: workers, fidelities, baselines, budgets, an earlier front."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest

from end_to_end.conftest import SEARCH_ALONE, call, make_project, serving


def record_of(project, run_id=None):
    runs = sorted((project / "mlruns" / "runs").iterdir(), key=lambda p: p.stat().st_mtime)
    folder = project / "mlruns" / "runs" / run_id if run_id else runs[-1]
    return json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Two workers, both rungs, the network trained from scratch."""
    project = make_project(tmp_path_factory.mktemp("search"))
    options = (
        "search.workers=2",
        "search.trials=20",
        "search.fidelities.calibration_images=96",
        "search.fidelities.training=[0.15]",
        "search.baselines.small_dense=true",
        "register=null",
    )
    done = call(project, "run", "tiny", *(word for option in options for word in ("--set", option)))
    assert done.returncode == 0, done.stderr
    return project, done, record_of(project)


def test_two_workers_evaluate_every_network_once(searched):
    project, _, record = searched
    own = [t["evaluation"] for t in record["trials"] if t["same_as"] is None]
    keys = [e["plan_key"] for e in own]
    assert len(keys) == len(set(keys)) == 20
    (run,) = (project / "mlruns" / "runs").iterdir()
    assert {f.name for f in (run / "workers").iterdir()} == {"worker-0.log", "worker-1.log"}


def test_two_workers_train_the_finalists_side_by_side(searched):
    project, _, record = searched
    (run,) = (project / "mlruns" / "runs").iterdir()
    log = (run / "log.txt").read_text()
    assert "2 finalists at a time" in log
    assert all(f"finalist {n} of 2, epoch 2: loss" in log for n in (1, 2))
    assert [f["epochs"] for f in record["finalists"]] == [2, 2]


def test_baselines_are_there_and_marked(searched):
    _, done, record = searched
    arms = {a["arm"]: a["networks"] for a in record["arms"]}
    assert set(arms) == {"search", "uniform", "random", "global"}
    assert all(arms.values())
    assert record["small_dense"]["epochs"] == 2
    assert "small-dense" in done.stdout
    assert "baseline" in done.stdout.split("small-dense")[1].splitlines()[0]
    assert (
        record["small_dense"]["candidate"]
        == next(f for f in record["finalists"] if f["name"] == record["knee"])["candidate"]
    )


def test_each_rung_lets_a_part_go_on_and_the_last_gives_the_finalists(searched):
    _, _, record = searched
    first, second = record["rungs"]
    assert (first["name"], second["name"]) == ("96 calibration samples", "3 training steps")
    assert len(first["scores"]) <= 8
    assert len(first["passed"]) <= 4
    assert set(map(str, first["passed"])) == set(second["scores"])
    assert [f["trial"] for f in record["finalists"]] == second["passed"]


def test_the_sweep_was_made_and_the_end_is_explained(searched):
    _, done, record = searched
    assert {s["group"] for s in record["sensitivities"]} == {g["name"] for g in record["groups"]}
    assert record["ended"] == "all trials are done"
    assert record["audit"]["pairs"] == len(record["finalists"])
    assert "rank correlation of search score and fine-tuned score: not known: 2 finalists" in done.stdout
    assert "tuned finalists from search to selection data:" in done.stdout
    assert "rung: 3 training steps: 2 of " in done.stdout


@pytest.fixture(scope="module")
def warm(searched):
    """A second run, from the front of the first, and its study as a dashboard that was there all the while has it in the end."""
    project, _, earlier = searched
    options = ("--set", "search.trials=14", "--set", f"search.warm_start={earlier['run_id']}", *SEARCH_ALONE)
    with serving(project) as address:
        done = call(project, "run", "tiny", *options)
        assert done.returncode == 0, done.stderr
        study = json.loads(urlopen(f"{address.removesuffix('/dashboard')}/api/studies/2").read())
    return record_of(project), study


def test_the_front_of_an_earlier_run_is_evaluated_first(searched, warm):
    (_, _, earlier), (record, _) = searched, warm
    prior = [t for t in record["trials"] if t["arm"] == "prior"]
    before = [t["evaluation"]["candidate"] for t in earlier["trials"]]
    assert prior
    assert all(t["evaluation"]["candidate"] in before for t in prior)


def test_a_run_beside_the_dashboard_is_seen(warm):
    record, study = warm
    assert len(study["trials"]) == len(record["trials"])
    assert all(t["state"] in ("Complete", "Pruned") and t["note"]["body"] and t["artifacts"] for t in study["trials"])


def test_a_budget_out_of_reach_is_explained_before_the_search(tmp_path):
    project = make_project(tmp_path)
    done = call(project, "run", "tiny", "--set", "evaluator.constraints.size.smaller_by=0.97")
    assert done.returncode == 2
    assert "no network of this search space has size smaller by 97% or more" in done.stderr
    assert "of the MACs in 'layer" in done.stderr
    assert "channels must stay" in done.stderr
    assert "set 'at_most:" in done.stderr
    assert not (project / "mlruns" / "studies.db").exists()


def test_a_warm_start_that_does_not_exist_is_named(tmp_path):
    project = make_project(tmp_path)
    done = call(project, "run", "tiny", "--set", "search.warm_start=tiny-1999")
    assert done.returncode == 2
    assert "'warm_start' must name an earlier run. There are no runs in" in done.stderr
    assert not (project / "mlruns").exists()
