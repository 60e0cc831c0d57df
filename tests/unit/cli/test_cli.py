from __future__ import annotations

import dataclasses
import io
import json
import sys

import pytest

import secateur
from secateur.cli import main
from secateur.evaluators import METRICS
from secateur.pipelines.catalogue import CATALOGUE, schemas

BAD_FACTORIES = """
import dataclasses
import torch
from conftest import make_workload
from nets import network
from torch.utils.data import TensorDataset

def overlapping():
    made = make_workload(network("VGG"))
    return dataclasses.replace(made, data=dataclasses.replace(made.data, test=made.data.search))

def raises():
    raise RuntimeError("the drive is not there")

def nan_loss():
    return dataclasses.replace(make_workload(network("VGG")), loss=lambda o, t: (o.sum() * float("nan")))

def wrong_loss():
    return dataclasses.replace(make_workload(network("VGG")), loss=lambda o, t: o - t[:, None, None])

class Broken(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.second = torch.nn.Conv2d(8, 8, 3)
        self.head = torch.nn.Linear(8, 5)
    def forward(self, x):
        x = torch.relu(self.first(x))
        if x.mean() > 100.0:
            x = -x
        return self.head(torch.relu(self.second(x)).mean((2, 3)))

def odd_samples():
    made = make_workload(network("VGG"))
    odd = TensorDataset(torch.zeros(70, 3, 9, 9, dtype=torch.float64), torch.zeros(70, dtype=torch.long))
    return dataclasses.replace(made, data=dataclasses.replace(made.data, test=odd))

def untraceable():
    return dataclasses.replace(make_workload(network("VGG")), build_model=Broken)

def weights(*, path):
    from secateur.workloads.checkpoints import load_weights
    load_weights(network("VGG"), path)
"""

PIPELINE = """\
name: bad
workload: bad.py:{factory}
search_space: {{groups: [{{methods: [l1]}}]}}
evaluator: {{objectives: {{accuracy: maximize, size: minimize}}}}
"""


@pytest.fixture
def secateur_command(monkeypatch, capsys, tmp_path):
    """The command line, called in this process in an empty folder. Returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["secateur", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


def test_help_and_version(secateur_command):
    code, out, _ = secateur_command("--help")
    assert code == 0
    for command in ("init", "check", "run", "resume", "show", "flush", "list", "schema"):
        assert command in out
    assert secateur_command("--version")[1].strip() == secateur.__version__


@pytest.mark.parametrize("what", CATALOGUE)
def test_listings(what, secateur_command):
    code, out, _ = secateur_command("list", what, "--json")
    entries = json.loads(out)
    assert code == 0
    assert entries
    assert all(entry["name"] and entry["what"] for entry in entries)
    _, table, _ = secateur_command("list", what)
    assert all(entry["name"].split(":")[0][:20] in table.replace("\n", "") for entry in entries)


def test_unknown_listing(secateur_command):
    code, _, err = secateur_command("list", "method")
    assert code == 2
    assert "unknown listing 'method'. Did you mean 'methods'?" in err


def test_schemas_know_the_names_and_are_valid_json_schema(secateur_command):
    code, out, _ = secateur_command("schema", "search_space")
    assert code == 0
    methods = json.loads(out)["$defs"]["GroupRule"]["properties"]["methods"]["items"]["enum"]
    assert "fpgm" in methods
    assert set(schemas()) == {"pipeline", "search_space", "evaluator"}


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("overlapping", "The data roles 'search' and 'test' share 60 samples"),
        (
            "raises",
            "pipelines/bad.yaml:2: the workload factory bad.py:raises raised RuntimeError: the drive is not there",
        ),
        ("nan_loss", r"The workload's loss on \d+ calibration samples is nan"),
        ("wrong_loss", r"The workload's loss gives \(\d+, \d+, 5\) for \d+ samples; it must be one number"),
        (
            "odd_samples",
            r"The data role 'test': sample 0 gives inputs \(3, 9, 9\) float64; example_inputs are \(3, 8, 8\) float32",
        ),
        ("untraceable", r"`if x.mean\(\) > 100.0:` at .*bad.py:\d+ cannot be traced \(.*data-dependent.*torch.where"),
        ("nothing", "pipelines/bad.yaml:2: bad.py has no 'nothing'"),
    ],
)
def test_bad_workloads_end_with_code_2_before_anything_is_written(factory, words, secateur_command, tmp_path):
    import re

    (tmp_path / "bad.py").write_text(BAD_FACTORIES)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "bad.yaml").write_text(PIPELINE.format(factory=factory))
    code, _, err = secateur_command("check", "bad")
    assert code == 2
    assert re.search(words, err), err
    assert not (tmp_path / "mlruns").exists()


def test_a_missing_and_a_truncated_weights_file(secateur_command, tmp_path):
    (tmp_path / "bad.py").write_text(BAD_FACTORIES)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "bad.yaml").write_text(PIPELINE.format(factory="weights"))
    code, _, err = secateur_command("check", "bad", "--set", "workload.path=nowhere.pth")
    assert code == 2
    assert "The weights file nowhere.pth does not exist" in err
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    code, _, err = secateur_command("check", "bad", "--set", "workload.path=cut.safetensors")
    assert code == 2
    assert "is not a complete safetensors file" in err
    code, _, err = secateur_command("check", "bad")
    assert "needs path; give it under `workload:` or with --set workload.path=…" in err


def test_misspelt_names_of_later_stages_point_at_their_line(secateur_command, tmp_path):
    (tmp_path / "pipelines").mkdir()
    text = PIPELINE.format(factory="raises") + "search: {sampler: tpee}\n"
    (tmp_path / "pipelines" / "bad.yaml").write_text(text)
    (tmp_path / "bad.py").write_text(BAD_FACTORIES)
    code, _, err = secateur_command("run", "bad")
    assert code == 2
    assert "pipelines/bad.yaml:5: unknown sampler 'tpee'. Did you mean 'tpe'? Allowed: gp, nni_evolution," in err
    for override, words in (
        ("evaluator.objectives={acuracy: maximize}", "unknown metric 'acuracy'. Did you mean 'accuracy'?"),
        ("evaluator.runtime=onnx", "unknown runtime 'onnx'. Did you mean 'onnxruntime'?"),
        ("evaluator.device=pi", "'device' is of the kind 'pi'. Allowed: local, ssh, adb."),
    ):
        code, _, err = secateur_command("run", "bad", "--set", "search.sampler=tpe", "--set", override)
        assert code == 2
        assert words in err


def test_unknown_pipelines_and_devices(secateur_command):
    code, _, err = secateur_command("run", "quik")
    assert code == 2
    assert "there is no 'quik' in pipelines/. Did you mean 'quick'?" in err
    code, _, err = secateur_command("run", "quick", "--device", "gpu")
    assert code == 2
    assert "unknown device 'gpu'. Did you mean 'cpu'? Allowed: cpu, cuda." in err


def test_commands_about_runs_say_that_there_are_none(secateur_command):
    for command in ("show", "resume", "flush"):
        code, _, err = secateur_command(command)
        assert code == 2
        assert "There are no runs in" in err


def test_init_lays_out_a_project_that_checks(secateur_command, tmp_path, monkeypatch):
    code, out, _ = secateur_command("init", "mine")
    assert code == 0
    assert "mine/pipelines/compress.yaml" in out
    monkeypatch.chdir(tmp_path / "mine")
    code, out, err = secateur_command("check", "compress")
    assert code == 0, err
    assert "Groups that may be cut" in out
    code, _, err = secateur_command("init", ".")
    assert code == 75
    assert "exists already; nothing was written" in err


def test_init_lists_every_group_of_the_users_model(secateur_command, tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(
        "from conftest import make_workload\nfrom nets import network\n\n\ndef workload():\n    return make_workload(network('residual'))\n"
    )
    code, _, err = secateur_command("init", ".", "--workload", "model.py:workload")
    assert code == 0, err
    text = (tmp_path / "pipelines" / "compress.yaml").read_text()
    for group in ("conv1", "layer1.0.conv1", "layer2.0.conv1", "layer2.0.conv2"):
        assert f"#  - {group} " in text
    assert "stays whole: linear (its channels are the model's output)" in text
    code, _, err = secateur_command("check", "compress")
    assert code == 0, err


def test_init_elsewhere_finds_the_workload_from_there(secateur_command, tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(
        "from conftest import make_workload\nfrom nets import network\n\n\ndef workload():\n    return make_workload(network('VGG'))\n"
    )
    code, _, err = secateur_command("init", "project", "--workload", "model.py:workload")
    assert code == 0, err
    monkeypatch.chdir(tmp_path / "project")
    code, _, err = secateur_command("check", "compress")
    assert code == 0, err


def test_cuda_is_refused_where_there_is_none(secateur_command, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = secateur_command("run", "quick", "--device", "cuda")
    assert code == 75
    assert "torch sees no CUDA device here" in err


def test_runs_are_listed_compared_and_deleted(secateur_command, tmp_path, monkeypatch):
    import finished
    from secateur.files import write
    from secateur.pipelines.reading import RECORD

    assert "There are no runs in" in secateur_command("runs", "--project", "p")[2]
    assert json.loads(secateur_command("runs", "--project", "p", "--json")[1]) == []
    for name, seed in (("r-1", 3), ("r-2", 4)):
        folder = tmp_path / "p" / "mlruns" / "runs" / name
        facts = {
            "run_id": name,
            "pipeline": "quick",
            "digest": "",
            "project": str(tmp_path),
            "started": "now",
            "identity": "",
        }
        write(folder / "run.json", json.dumps({**facts, "environment": {}}))
        record = dataclasses.replace(finished.RECORD, run_id=name, definition={"seed": seed})
        write(folder / "record.json", RECORD.dump_json(record))
    code, out, err = secateur_command("runs", "--project", "p", "--json")
    assert (code, [(e["run"], e["state"], e["best"]) for e in json.loads(out)]) == (
        0,
        [("r-1", "not registered yet", "f1-aa"), ("r-2", "not registered yet", "f1-aa")],
    ), err
    code, out, _ = secateur_command("runs", "compare", "r-1", "r-2", "--project", "p")
    assert code == 0
    assert "definition: seed" in out
    assert secateur_command("runs", "compare", "r-1", "--project", "p")[0] == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, out, err = secateur_command("runs", "delete", "r-1", "--project", "p")
    assert (code, (tmp_path / "p" / "mlruns" / "runs" / "r-1").exists()) == (1, True), "nobody said yes"
    assert secateur_command("runs", "delete", "r-1", "--yes", "--project", "p")[0] == 0
    assert [e["run"] for e in json.loads(secateur_command("runs", "--project", "p", "--json")[1])] == ["r-2"]
    assert "there is no run 'r-1'" in secateur_command("export", "r-1", "f1", "--to", "x", "--project", "p")[2].lower()


def test_the_projects_pipelines_are_listed_beside_ours(secateur_command, tmp_path):
    (tmp_path / "p" / "pipelines").mkdir(parents=True)
    (tmp_path / "p" / "pipelines" / "own.yaml").write_text("# What it is for. And more.\nname: own\n")
    _, out, _ = secateur_command("list", "pipelines", "--json", "--project", "p")
    listed = {entry["name"]: entry["what"] for entry in json.loads(out)}
    assert listed["own"] == "What it is for"
    assert {"quick", "own"} <= set(listed)


def test_the_verbosity_may_stand_anywhere(secateur_command):
    from secateur.cli.verbosity import SETTINGS

    for words, level in (
        (("-v", "list", "methods"), 1),
        (("list", "methods", "-vv"), 2),
        (("list", "-q", "methods"), -1),
    ):
        assert secateur_command(*words)[0] == 0
        assert SETTINGS.level == level
    assert "-v" not in secateur_command("list", "methods")[1]


def test_the_shell_completes_names(tmp_path, monkeypatch):
    import typer
    from typer.main import get_command

    from secateur.cli import completion
    from secateur.cli.main import app

    finalist = tmp_path / "mlruns" / "runs" / "quick-1" / "finalists" / "f1-aa"
    finalist.mkdir(parents=True)
    (finalist / "result.json").write_text("{}")
    (finalist.parents[1] / "run.json").write_text("{}")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "quick-own.yaml").write_text("")
    context = typer.Context(get_command(app))
    context.params = {"project": tmp_path, "run_id": "quick-1"}
    assert completion.pipelines(context, "quick") == ["quick", "quick-own"]
    assert completion.runs(context, "q") == ["quick-1"]
    assert completion.finalists(context, "") == ["f1-aa"]
    assert completion.metrics(context, "lat") == ["latency"]
    assert completion.metrics(context, "") == sorted(METRICS.own)
    assert completion.listings("pip") == ["pipelines"]
    assert set(completion.LISTINGS) == set(CATALOGUE)
    context.params = {"project": tmp_path / "nowhere"}
    assert completion.runs(context, "") == []
