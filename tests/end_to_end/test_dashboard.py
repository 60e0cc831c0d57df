"""`secateur dashboard` on a finished run, as Chromium shows it after the pages' scripts have run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from urllib.request import urlopen

import pytest

from end_to_end.conftest import call, serving
from waiting import LIMIT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1400,4200", "--virtual-time-budget=5000",
)  # fmt: skip

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to look at the pages with")


@pytest.fixture(scope="module")
def url(finished):
    project, _ = finished
    with serving(project) as address:
        yield address


@pytest.fixture(scope="module")
def page(url, tmp_path_factory):
    """Address below the dashboard's → the page's text, tags replaced by bars."""
    profile = tmp_path_factory.mktemp("chromium")
    seen = {}

    def read(path):
        if path not in seen:
            done = subprocess.run(
                [CHROMIUM, *QUIET, f"--user-data-dir={profile}", "--dump-dom", f"{url}{path}"],
                capture_output=True, text=True, check=True, timeout=LIMIT,
            )  # fmt: skip
            text = re.sub(r"<(style|script)[^>]*>.*?</\1>", "", done.stdout, flags=re.S)
            seen[path] = html.unescape(re.sub(r"[|\s]*\|[|\s]*", "|", re.sub(r"<[^>]+>", "|", text)))
        return seen[path]

    return read


@pytest.fixture(scope="module")
def record(finished):
    project, _ = finished
    (file,) = (project / "mlruns" / "runs").glob("*/record.json")
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def infeasible(record):
    """Trials below the score that the evaluator file allows before recovery."""
    floor = record["dense"]["search"]["accuracy"]["value"] - 0.25
    scores = {t["number"]: t["evaluation"]["measurements"].get("accuracy") for t in record["trials"]}
    numbers = {number for number, score in scores.items() if score and score["value"] < floor}
    assert 0 < len(numbers) < len(record["trials"])
    return numbers


@pytest.fixture(scope="module")
def runs(finished):
    """Part of our run → MLflow's run id."""
    import mlflow

    project, _ = finished
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlruns' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    found = client.search_runs([experiment.experiment_id])
    return {run.data.tags["secateur.part"]: run.info.run_id for run in found}


@in_a_browser
def test_the_list_of_studies_names_the_run(page, record):
    assert f"1. {record['run_id']}|Direction: MAXIMIZE, MINIMIZE, MINIMIZE|" in page("")


@in_a_browser
def test_the_study_shows_metric_names_the_front_and_what_came_of_it(page, record, runs):
    text = page("/studies/1")
    for name in ("accuracy", "latency", "size"):
        assert f"|{name}|" in text
    for axis in ("latency", "size"):
        figure = text.split(f"The front: top-1 accuracy and {axis}|")[0].rsplit("|plotly-logomark|", 1)[1]
        for part in (
            "f1",
            "f2",
            "infeasible",
            "one threshold for all groups",
            "finalist, passed the gate",
            "dense model",
        ):
            assert f"|{part}|" in f"|{figure}|", (axis, part)
    assert f"|mlflow_run_id|{runs[record['run_id']]}|" in text
    assert "|Study Artifacts|report.html|" in text
    assert "finalists passed the gate." in page("/studies/1/note")


@in_a_browser
def test_infeasible_trials_are_grey_and_not_the_best(page, record, infeasible):
    study = page("/studies/1")
    timeline = study.split("|Timeline|")[1].split("plotly-logomark")[0]
    assert "|Complete|Infeasible|" in timeline
    best = {int(n) for n in re.findall(r"\|Trial (\d+)\|Objective Values", study)}
    assert best
    assert not best & infeasible
    finalist = record["finalists"][0]["trial"]
    listed = page(f"/studies/1/trials?numbers={finalist}").split(f"|{len(record['trials'])} Trials|")[1]
    chips = dict(re.findall(r"Trial (\d+)\|(?:Complete|Pruned)\|(Best Trial)?", listed.split("(trial_id=")[0]))
    assert {int(number) for number, chip in chips.items() if chip} == best
    assert {int(number) for number in chips} == {t["number"] for t in record["trials"]}


@in_a_browser
def test_an_infeasible_trial_says_so_and_lists_its_cuts(page, record, infeasible):
    trial = next(t for t in record["trials"] if t["number"] in infeasible)
    text = page(f"/studies/1/trials?numbers={trial['number']}").split("|Note|")[-1]
    assert "|Infeasible|, misses: accuracy" in text
    assert (
        f"|feasible False|groups by l1 {methods(trial, 'l1')}|groups by next_layer {methods(trial, 'next_layer')}|"
        in text
    )
    name, (edit,) = next(iter(trial["evaluation"]["candidate"]["edits"].items()))
    width = next(g["width"] for g in record["groups"] if g["name"] == name)
    assert f"{name} {edit['level']}/{width} ({edit['by']})" in text
    assert text.split("|Artifacts|")[1].startswith("groups.csv|")


def methods(trial, name):
    return sum(edit["by"] == name for (edit,) in trial["evaluation"]["candidate"]["edits"].values())


@in_a_browser
def test_a_finalist_shows_what_it_became(page, record, runs):
    for finalist in record["finalists"]:
        text = page(f"/studies/1/trials?numbers={finalist['trial']}").split("|Note|")[-1]
        trial = record["trials"][finalist["trial"]]
        measured = trial["evaluation"]["measurements"]
        note, attributes = text.split("|User Attributes|")
        attributes, artifacts = attributes.split("|Artifacts|")
        assert f"|{finalist['name']}: " in note
        assert "|before (search data)|after (selection data)|dense model (selection data)|" in note
        assert f"|{finalist['measurements']['size']['value']:,.0f}|" in note
        assert f"|MLflow run:|{runs[finalist['name']]}|" in note
        shown = dict(re.findall(r"\|(finalist|mlflow_run_id|arm|feasible|speed-up|macs|recovered accuracy) ([^|]+)", f"|{attributes}"))  # fmt: skip
        assert shown.pop("arm") == trial["arm"]
        assert shown.pop("feasible") == "True"
        assert shown.pop("finalist") == finalist["name"]
        assert shown.pop("mlflow_run_id") == runs[finalist["name"]]
        assert {name: float(value) for name, value in shown.items()} == pytest.approx(
            {
                "speed-up": 1 / measured["latency"]["value"],
                "macs": measured["macs"]["value"],
                "recovered accuracy": finalist["measurements"]["accuracy"]["value"],
            }
        )
        assert f"|{finalist['name']}.onnx|" in f"|{artifacts}"
        assert "|groups.csv|" in f"|{artifacts}"
    passed = [
        name for name, v in record["verdicts"].items() if v["on_front"] and not any(c["missed"] for c in v["checks"])
    ]
    registered = [f for f in record["finalists"] if f["name"] in passed]
    assert "|, tiny-model version 1|" in page(f"/studies/1/trials?numbers={registered[0]['trial']}")


def test_the_files_behind_the_artifacts_are_those_of_the_run(url, finished, record):
    project, _ = finished
    base = url.removesuffix("/dashboard")
    study = json.loads(urlopen(f"{base}/api/studies/1").read())
    for finalist in record["finalists"]:
        trial = study["trials"][finalist["trial"]]
        (onnx,) = [a for a in trial["artifacts"] if a["filename"] == f"{finalist['name']}.onnx"]
        fetched = urlopen(f"{base}/artifacts/1/{trial['trial_id']}/{onnx['artifact_id']}").read()
        (model,) = project.glob(f"mlruns/runs/*/{finalist['folder']}/model.onnx")
        assert fetched == model.read_bytes()


def test_errors_say_what_to_do(url, finished, tmp_path):
    project, _ = finished
    port = re.search(r":(\d+)/", url).group(1)
    taken = call(project, "dashboard", "--port", port)
    assert taken.returncode == 75
    assert f"Port {port} cannot be opened" in taken.stderr
    nothing = call(tmp_path, "dashboard")
    assert nothing.returncode == 2
    assert "There are no studies yet" in nothing.stderr
