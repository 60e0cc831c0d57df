"""An earlier run's front in this run's space."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from invented import make_space, narrowed
from secateur.definition import load_pipeline
from secateur.errors import DefinitionError
from secateur.pipelines import check, run
from secateur.pipelines.stages import adapted
from secateur.records import Candidate


@pytest.fixture
def prepared():
    search = SimpleNamespace(warm_start="earlier-1", where=lambda key: f"pipelines/mine.yaml:7: search.{key}")
    return SimpleNamespace(space=make_space(("l1", "l2")), definition=SimpleNamespace(search=search))


def test_other_groups_widths_and_methods_are_mapped_onto_the_space(prepared):
    earlier = [
        Candidate({**narrowed({"a": 17}, "taylor").edits, **narrowed({"gone": 3}, "l1").edits}),
        narrowed({"a": 15}, "taylor"),
    ]
    (one,) = adapted(prepared, earlier)
    assert one == narrowed({"a": 16}, "l1"), "both are this one here"
    assert adapted(prepared, []) == ()


def test_a_run_that_has_nothing_in_common_is_refused(prepared):
    with pytest.raises(
        DefinitionError, match=r"mine.yaml:7: search.warm_start: nothing .*'earlier-1'.* it cut x; here"
    ):
        adapted(prepared, [narrowed({"x": 3}, "l1")])


PIPELINE = """\
name: mine
workload: my_model.py:workload
search_space: {groups: [{methods: [l1]}]}
evaluator: {objectives: {accuracy: maximize, size: minimize}}
search: {warm_start: nobody}
"""


@pytest.mark.parametrize("start", [check.check_pipeline, lambda *given: run.run_pipeline(*given, "mine")])
def test_a_run_that_is_not_there_is_refused_before_anything_is_loaded(start, tmp_path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "mine.yaml").write_text(PIPELINE)
    (tmp_path / "my_model.py").write_text("raise RuntimeError('loaded')")
    definition, root = load_pipeline("mine", project=tmp_path)
    with pytest.raises(
        DefinitionError, match=r"mine.yaml:5: 'warm_start' must name an earlier run. There are no runs in"
    ):
        start(definition, root)
    assert not (root / "mlruns").exists(), "nothing is written either"
