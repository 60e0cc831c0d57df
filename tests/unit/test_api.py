from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.data import TensorDataset

import secateur
from conftest import make_workload
from secateur.api.callbacks import listener_of
from secateur.api.running import loaded
from secateur.errors import DefinitionError, StateError, WorkloadError
from secateur.pipelines.evaluating import check_live
from secateur.pipelines.listener import Listener, Progress
from secateur.workloads.live import LIVE, digest_of, held
from secateur.workloads.loading import load_workload
from secateur.workloads.samples import Samples

TREE = {
    "name": "tiny",
    "workload": {"factory": "secateur.workloads.digits:workload"},
    "search_space": {"groups": [{"methods": ["l1"]}]},
    "evaluator": {"objectives": {"accuracy": "maximize", "size": "minimize"}},
}


def test_every_public_name_is_there():
    assert all(getattr(secateur, name) is not None for name in secateur.__all__)
    assert set(dir(secateur)) == set(secateur.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        secateur.prune  # noqa: B018 # the access is what is tested


def test_a_definition_is_a_name_a_file_a_mapping_or_what_was_validated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name, root = loaded("quick", {"search.trials": 5, "search.fidelities.keep": 4}, None)
    assert (by_name.search.trials, by_name.search.fidelities.keep, root) == (5, 4, tmp_path)
    (tmp_path / "pipelines").mkdir()
    file = tmp_path / "pipelines" / "own.yaml"
    file.write_text("name: own\nworkload: m.py:f\nsearch_space: cnn_channels\nevaluator: local_cpu\n")
    monkeypatch.chdir("/")
    assert loaded(file, None, None)[1] == tmp_path
    assert loaded("own", None, tmp_path)[0].name == "own"
    mapped, root = loaded(TREE, {"evaluator.objectives": {"size": "minimize"}}, tmp_path)
    assert (dict(mapped.evaluator.objectives), root) == ({"size": "minimize"}, tmp_path)
    assert loaded(mapped, None, tmp_path)[0] is mapped
    assert loaded(mapped, {"search.seed": 3}, tmp_path)[0].search.seed == 3
    assert TREE["evaluator"]["objectives"] == {"accuracy": "maximize", "size": "minimize"}, "it is the caller's"


@pytest.mark.parametrize(
    ("change", "overrides", "words"),
    [
        ({"serch": {}}, None, "definition.serch: unknown key 'serch'. Did you mean 'search'?"),
        ({"search": {"trials": 0}}, None, "definition.search.trials: 'search.trials' is 0; it must be greater"),
        ({}, {"search.trials": "many"}, "--set search.trials=many: 'search.trials' is 'many'"),
        ({}, {"workload.url": "https://me:s3cret@host/x"}, "'workload.url' carries credentials in a URL"),
        ({}, {"workload.scale": float("nan")}, "'workload.scale' is nan: a number must be finite"),
        ({"evaluator": "local_gpu"}, None, "definition.evaluator: there is no 'local_gpu' in evaluators/."),
    ],
)
def test_mistakes_in_a_mapping_are_named_by_their_key(change, overrides, words, tmp_path):
    with pytest.raises(DefinitionError) as found:
        loaded({**TREE, **change}, overrides, tmp_path)
    assert words in str(found.value)
    assert "s3cret" not in str(found.value)


def test_an_unknown_device_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DefinitionError, match="unknown device 'gpu'. Did you mean 'cpu'"):
        secateur.run(TREE, project=tmp_path, device="gpu")
    assert list(tmp_path.iterdir()) == []


def test_functions_and_listeners_hear_the_same(capsys):
    heard = []

    class Mine(Listener):
        def stage(self, name):
            heard.append(name)

    listener = listener_of([Mine(), lambda progress: heard.append(progress)], progress=False)
    listener.stage("search")
    assert heard == ["search", Progress("search", "begins")]
    listener = listener_of(heard.append, progress=False)
    listener.epoch(1, 3, 1, 0.5)
    listener.epoch(2, 3, 1, 0.25)
    assert heard[-1] == Progress("check", "finalist 2 of 3, epoch 1: loss 0.25", 2, 3)
    assert capsys.readouterr() == ("", "")


def test_lines_of_progress_are_few(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test's client of notebooks imports it
    listener = listener_of((), progress=True)
    listener.stage("recover")
    for finalist in range(1, 101):
        listener.epoch(finalist, 100, 1, 1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "recover: 100 of 100: finalist 100 of 100, epoch 1: loss 1"


def test_what_a_callback_raises_is_one_line_that_names_the_place():
    def broken(_):
        raise KeyError("c")

    with pytest.raises(WorkloadError, match=r"^The callback raised KeyError: 'c' \(at .*test_api.py:\d+\)$"):
        listener_of(broken, progress=False).stage("search")


def test_a_live_workload_is_found_by_its_process_alone(tmp_path):
    tree = {**TREE, "workload": {"factory": LIVE, "live": "abc"}}
    definition, _ = loaded(tree, None, tmp_path)
    made = make_workload()
    with held(made, "abc"):
        assert load_workload(definition.workload, tmp_path).build_model is made.build_model
    with pytest.raises(
        WorkloadError, match="its model and data are in no file. To go on with it, call secateur.compress"
    ):
        load_workload(definition.workload, tmp_path)


def test_a_live_workload_is_evaluated_in_this_process_only(tmp_path):
    tree = {**TREE, "workload": {"factory": LIVE, "live": "abc"}}
    check_live(loaded(tree, None, tmp_path)[0])
    for changes, words in (
        (
            {"search.workers": 2},
            "--set search.workers=2: a model that lives in this process is evaluated in it: 'workers'",
        ),
        ({"search.engine": "nni"}, "'engine' must be optuna"),
    ):
        with pytest.raises(DefinitionError, match=words):
            check_live(loaded(tree, changes, tmp_path)[0])


def test_other_data_has_another_digest():
    data = make_workload().data
    again = make_workload().data
    assert digest_of(data) == digest_of(again)
    fewer = TensorDataset(*(torch.stack(x) for x in zip(*[data.test[i] for i in range(5)], strict=True)))
    assert digest_of(replace(data, test=fewer)) != digest_of(data)
    other = TensorDataset(*(torch.stack(x) for x in zip(*[data.test[i] for i in range(len(data.test))], strict=True)))
    other.tensors[0][-1] += 1
    assert digest_of(replace(data, test=other)) != digest_of(data)


class Picture:
    """A sample that is no tensor until it is collated; its repr holds its address."""

    def __init__(self, shade: float) -> None:
        self.shade = shade


def test_samples_that_are_objects_have_the_same_digest_in_each_process():
    def digest(shade: float) -> str:
        pictures = [(Picture(shade), 1) for _ in range(4)]

        def collated(samples):
            shades = torch.tensor([picture.shade for picture, _ in samples], dtype=torch.bfloat16)
            return shades, torch.tensor([target for _, target in samples])

        return digest_of(replace(make_workload().data, train=Samples(pictures, collated, "train")))

    assert digest(0.25) == digest(0.25)
    assert digest(0.25) != digest(0.5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"test": TensorDataset(torch.zeros(4, 3))}, "The data has no role 'train'; it has: test."),
        ({"train": TensorDataset(torch.zeros(400, 3)), "tset": None}, "There is no data role 'tset'"),
    ],
)
def test_data_without_what_is_needed_is_refused(data, words, tmp_path):
    with pytest.raises(WorkloadError, match=words):
        secateur.compress(torch.nn.Linear(3, 2), data, project=tmp_path)


def test_there_is_no_run_to_open(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DefinitionError, match="There are no runs in"):
        secateur.open_run(project=tmp_path)
    with pytest.raises(StateError):
        secateur.run("quick", project=tmp_path, device="cuda")
