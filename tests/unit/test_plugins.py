from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

import plugged
from conftest import REPOSITORY, make_workload
from secateur.agent import runtimes as agent
from secateur.agent.latency import Protocol
from secateur.compression.criteria import METHODS
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.compression.groups import find_groups
from secateur.compression.saliency import compute_saliencies
from secateur.compression.weight_saliency import weight_saliencies
from secateur.definition import EvaluatorDefinition, SearchSpaceDefinition, WorkloadReference, pipeline_from
from secateur.errors import DefinitionError, PluginError
from secateur.evaluators import METRICS
from secateur.evaluators.devices import bundle as packing
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.local import LocalTransport
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.work import Setup
from secateur.evaluators.runtimes import RUNTIMES
from secateur.pipelines.catalogue import CATALOGUE
from secateur.pipelines.names import check_names
from secateur.search.samplers import SAMPLERS
from secateur.search_spaces import build_space
from secateur.workloads.loading import load_workload


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The distribution of `plugged`, or others, for the time of a test."""
    kept = dict(agent.RUNTIMES)

    def install(*arguments, **more):
        folder = tmp_path / "site"
        plugged.install(folder, *arguments, **more)
        monkeypatch.syspath_prepend(str(folder))
        plugged.forget()

    yield install
    monkeypatch.undo()
    for module in [m for m in sys.modules if m.endswith("_of_test")]:
        del sys.modules[module]
    agent.RUNTIMES.clear()
    agent.RUNTIMES.update(kept)
    packing.bundle.cache_clear()
    plugged.forget()


def test_nothing_is_imported_before_it_is_used(installed):
    installed()
    assert {"count", "l1"} <= set(METHODS)
    assert "howmany" in METRICS
    assert "things_of_test" not in sys.modules
    assert METHODS["count"].summary == "the sum of the weights and one"
    assert "things_of_test" in sys.modules


def test_listings_name_the_distribution(installed, tmp_path):
    installed()
    for listing, name in (
        ("methods", "count"),
        ("methods", "weights/square"),
        ("methods", "n_m/square"),
        ("metrics", "howmany"),
        ("samplers", "noise"),
        ("runtimes", "zero"),
        ("devices", "cable"),
        ("workloads", "tiny-noise"),
        ("trainers", "nothing"),
    ):
        entries = {entry["name"]: entry for entry in CATALOGUE[listing](tmp_path)}
        assert entries[name]["from"] == "things 1.2", listing
        assert {entry["from"] for entry in entries.values()} == {"things 1.2", "secateur"}
        assert len({tuple(entry) for entry in entries.values()}) == 1, "one set of columns"


def test_a_definition_uses_them_like_ours(installed, tmp_path):
    installed()
    tree = {
        "name": "x",
        "workload": {"factory": "tiny-noise"},
        "search_space": {"groups": [{"methods": ["count", "weights/square"]}]},
        "evaluator": {
            "objectives": {"howmany": "maximize", "size": "minimize"},
            "runtime": "zero",
            "device": {"kind": "cable", "length": 2},
        },
        "search": {"sampler": "noise"},
    }
    definition = pipeline_from(tree, [], tmp_path)
    assert list(check_names(definition, tmp_path)) == ["howmany"]
    written = json.loads(json.dumps(definition.as_written()))
    assert written["evaluator"]["device"] == {
        "kind": "cable",
        "length": 2.0,
        "python": "python3",
        "folder": "/tmp/cable",
    }
    assert pipeline_from(written, [], tmp_path).evaluator.device.length == 2.0, "as a resumed run reads it"
    workload = load_workload(definition.workload, tmp_path)
    groups = find_groups(workload.build_model(), workload.example_inputs).groups[:1]
    assert (
        float(compute_saliencies(workload.build_model(), groups, ["count"], workload)[groups[0].name]["count"].min())
        >= 1
    )
    assert weight_saliencies(workload.build_model(), groups, ["square"], workload, {})[groups[0].name].keys() == {
        "weights/square"
    }
    assert SAMPLERS["noise"].make(3) is not None
    devices = open_devices(definition.evaluator, tmp_path)
    assert [device.setup.runtime for device in devices.each] == ["zero"]
    tree["evaluator"]["device"] = {"kind": "cabel", "length": 2}
    with pytest.raises(DefinitionError, match=r"'cabel'. Did you mean 'cable'\? Allowed: local, ssh, adb, cable\."):
        pipeline_from(tree, [], tmp_path)
    tree["evaluator"]["device"] = {"kind": "cable", "lenght": 2}
    with pytest.raises(DefinitionError, match="definition.evaluator.device: .*length: Field required"):
        pipeline_from(tree, [], tmp_path)


def test_metrics_of_plug_ins_that_are_not_named_are_not_measured(installed):
    installed()
    assert "howmany" not in METRICS.own
    assert set(METRICS) - set(METRICS.own) == {"howmany"}


def test_a_runtime_travels_to_the_device_as_one_file(installed, tmp_path):
    from unit.evaluators.devices.test_agent import WORK

    installed()
    assert RUNTIMES["zero"] is agent.RUNTIMES["zero"]
    setup = Setup("zero", "onnx", python=shlex.quote(sys.executable), folder=str(tmp_path / "device"))
    device = Device(LocalTransport(tmp_path), setup)
    assert "zero 7.1" in device.fingerprint
    found = device.measure(WORK)
    assert found.report is not None
    assert found.report.ratio > 0
    device.close()
    assert isinstance(WORK.timing, Protocol)
    assert packing.bundle("zero").sha256 != packing.bundle("onnxruntime").sha256
    assert np.isfinite(found.report.ratio)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("from . import helpers", "imports a part of its own package"),
        ("import broad_of_test.helpers", "imports broad_of_test.helpers, a part of its own package"),
        ("def f():\n    from secateur.records import Measurement", "imports secateur.records; a device has"),
    ],
)
def test_a_runtime_of_more_than_one_file_cannot_travel(text, reason, installed):
    installed(points={"runtimes": {"broad": "broad_of_test:RUNTIME"}}, broad_of_test=f"{plugged.RUNTIME}\n{text}\n")
    with pytest.raises(
        PluginError, match="The runtime 'broad' of things 1.2 cannot travel to a device: broad_of_test"
    ) as found:
        packing.bundle("broad")
    assert reason in str(found.value)
    assert "\n" not in str(found.value)


def test_one_that_cannot_be_imported_is_one_line_with_its_distribution(installed, tmp_path):
    installed(
        points={"criteria": {"odd": "odd_of_test:CRITERION"}, "metrics": {"plain": "odd_of_test:PLAIN"}},
        odd_of_test="PLAIN = 3\nimport nowhere",
    )
    with pytest.raises(PluginError) as found:
        METHODS["odd"]
    assert str(found.value) == (
        "The plug-in 'odd' (secateur.criteria) of things 1.2 cannot be imported from odd_of_test:CRITERION: "
        "ModuleNotFoundError: No module named 'nowhere'"
    )
    listed = {entry["name"]: entry["what"] for entry in CATALOGUE["methods"](tmp_path)}
    assert listed["odd"] == str(found.value)
    assert METHODS["l1"].summary == listed["l1"], "ours are not touched by it"


def test_one_that_is_something_else_is_refused(installed):
    installed(points={"metrics": {"plain": "plain_of_test:PLAIN"}}, plain_of_test="PLAIN = 3")
    with pytest.raises(
        PluginError, match="of things 1.2 is a int; plain_of_test:PLAIN must be a secateur.evaluators.metrics.Metric"
    ):
        METRICS["plain"]


def test_names_that_are_taken_are_refused(installed):
    installed(points={"criteria": {"l1": "things_of_test:CRITERION", "mine": "things_of_test:CRITERION"}})
    installed("others", points={"criteria": {"mine": "things_of_test:CRITERION"}})
    for name, who in (
        ("l1", "secateur and by things 1.2"),
        ("mine", "(things 1.2 and by others 1.2|others 1.2 and by things 1.2)"),
    ):
        with pytest.raises(
            PluginError, match=f"The name '{name}' in secateur.criteria is taken by {who}. Uninstall one"
        ):
            METHODS[name]
    assert METHODS["l2"].summary


def test_a_project_adds_its_own_by_assignment(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", METHODS["l1"])
    monkeypatch.setitem(WEIGHT_METHODS, "mine", WEIGHT_METHODS["lamp"])
    workload = make_workload()
    found = find_groups(workload.build_model(), workload.example_inputs)
    rule = {"methods": ["mine", "weights/mine", "n_m/mine"]}
    assert build_space(SearchSpaceDefinition(groups=[rule]), found).methods == rule["methods"]
    groups = found.groups[:1]
    assert set(compute_saliencies(workload.build_model(), groups, ["mine"], workload)[groups[0].name]) == {"mine"}


def test_ours_are_the_only_ones_where_nothing_is_installed():
    plugged.forget()
    assert [name for registry in plugged.REGISTRIES for name in registry if registry.plugin(name)] == []
    assert EvaluatorDefinition(objectives={"size": "minimize"}).device.kind == "local"
    assert WorkloadReference(factory="a:b").factory == "a:b"


def test_somebody_elses_tests_subclass_the_contracts(installed, tmp_path):
    installed()
    (tmp_path / "test_theirs.py").write_text(
        "from secateur.testing import CriterionContract, MetricContract, WeightCriterionContract\n\n"
        "class TestCount(CriterionContract):\n    name = 'count'\n\n"
        "class TestSquare(WeightCriterionContract):\n    name = 'square'\n\n"
        "class TestHowMany(MetricContract):\n    name = 'howmany'\n"
    )
    paths = os.pathsep.join([str(tmp_path / "site"), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            str(tmp_path / "test_theirs.py"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout
