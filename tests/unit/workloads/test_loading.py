from __future__ import annotations

import sys

import pytest
import torch

from secateur.definition import WorkloadReference
from secateur.errors import DefinitionError, WorkloadError
from secateur.workloads.loading import build_model, load_workload

FACTORY = """
from conftest import make_workload

def workload(*, samples: int = 600):
    return make_workload(samples=samples)

def needs(*, data):
    return make_workload()

def raises():
    raise OSError("no such drive")

def wrong():
    return 3

def model_raises():
    import dataclasses
    def build():
        raise KeyError("conv1")
    return dataclasses.replace(make_workload(), build_model=build)

def nan():
    import copy, dataclasses, torch
    made = make_workload()
    broken = copy.deepcopy(made.build_model())
    with torch.no_grad():
        next(broken.parameters())[0] = float("nan")
    return dataclasses.replace(made, build_model=lambda: broken)

NUMBER = 3
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before


def load(project, spec, **options):
    return load_workload(WorkloadReference(factory=spec, **options), project)


def test_a_factory_in_a_file_with_an_option(project):
    assert len(load(project, "mine.py:workload", samples=500).data.train) == 261
    assert load(project, "mine.py:workload").name == "tiny"


def test_a_factory_in_the_projects_own_package_called_pipelines(project):
    """The project may have a package with the name of one of our folders; both are found."""
    package = project / "pipelines"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text("from pipelines.data import SAMPLES\n" + FACTORY.replace("= 600", "= SAMPLES"))
    (package / "data.py").write_text("SAMPLES = 400\n")
    try:
        assert len(load(project, "pipelines.models:workload").data.train) == 196
        import secateur.pipelines

        assert "secateur" in secateur.pipelines.__name__
    finally:
        for name in [n for n in sys.modules if n == "pipelines" or n.startswith("pipelines.")]:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("spec", "options", "error", "words"),
    [
        ("mine.py", {}, DefinitionError, "write module:attribute or path/to/file.py:attribute"),
        ("other.py:workload", {}, DefinitionError, "there is no file"),
        ("a" * 5000 + ".py:workload", {}, DefinitionError, "there is no file"),
        ("~nobodyatall/x.py:workload", {}, DefinitionError, "there is no file"),
        ("a\0b.py:workload", {}, DefinitionError, "there is no file"),
        ("no.such.module:workload", {}, DefinitionError, "there is no module 'no.such.module'"),
        ("mine.py:worklaod", {}, DefinitionError, "has no 'worklaod'. Did you mean 'workload'?"),
        ("mine.py:NUMBER", {}, DefinitionError, "is a int, not a function"),
        ("mine.py:workload", {"sample": 3}, DefinitionError, "takes no option 'sample'. Did you mean 'samples'?"),
        ("mine.py:needs", {}, DefinitionError, "needs data; give it under `workload:` or with --set workload.data=…"),
        ("mine.py:raises", {}, WorkloadError, "raised OSError: no such drive (at "),
        ("mine.py:wrong", {}, WorkloadError, "returned a int; a secateur.Workload is needed"),
    ],
)
def test_what_is_wrong_is_said(project, spec, options, error, words):
    with pytest.raises(error) as caught:
        load(project, spec, **options)
    assert words in str(caught.value)


def test_a_file_that_does_not_import_is_said_with_its_line(project):
    (project / "bad.py").write_text("import torch\n\n1 / 0\n")
    with pytest.raises(WorkloadError, match=r"raised ZeroDivisionError: division by zero \(at .*bad.py:3\)"):
        load(project, "bad.py:workload")


def test_build_model_is_checked(project):
    with pytest.raises(WorkloadError, match="build_model of 'tiny' raised KeyError: 'conv1'"):
        build_model(load(project, "mine.py:model_raises"))
    with pytest.raises(WorkloadError, match="The weights of 'tiny' are not finite: 'conv1.weight'"):
        build_model(load(project, "mine.py:nan"))
    model = build_model(load(project, "mine.py:workload"))
    assert not model.training
    assert all(p.dtype == torch.float32 for p in model.parameters())
