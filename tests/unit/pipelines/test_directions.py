"""Which way a metric is better is its own; what is asked of it must fit."""

from __future__ import annotations

import re

import pytest

from secateur.definition import Override, load_pipeline
from secateur.errors import DefinitionError
from secateur.pipelines.names import check_names

PIPELINE = """\
name: mine
workload: my_model.py:workload
search_space: {groups: [{methods: [l1]}]}
evaluator:
  objectives: {accuracy: maximize, size: minimize}
  metrics: {worst: "metrics.py:worst"}
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "mine.yaml").write_text(PIPELINE)
    (tmp_path / "metrics.py").write_text('def worst(context):\n    """The worst one."""\n')
    monkeypatch.chdir(tmp_path)

    def checked(*overrides):
        definition, root = load_pipeline("mine", [Override.parse(text) for text in overrides])
        return check_names(definition, root)

    return checked


@pytest.mark.parametrize(
    ("metric", "wrong", "right"), [("latency", "maximize", "minimize"), ("throughput", "minimize", "maximize")]
)
def test_a_metric_with_a_natural_direction_is_not_turned(check, metric, wrong, right):
    with pytest.raises(
        DefinitionError, match=rf"objectives.{metric}.*: '{metric}' is to be {right}d.*'{metric}: {right}'"
    ):
        check(f"evaluator.objectives.{metric}={wrong}")
    check(f"evaluator.objectives.{metric}={right}")


@pytest.mark.parametrize(
    ("goal", "direction"), [("at_most=3", "minimize"), ("smaller_by=0.5", "minimize"), ("at_least=3", "maximize")]
)
def test_a_metric_of_ones_own_that_is_only_constrained_has_the_direction_of_its_limit(check, goal, direction):
    assert check(f"evaluator.constraints.worst.{goal}")["worst"].direction == direction


def test_an_objective_says_the_direction_of_a_metric_of_ones_own(check):
    assert check("evaluator.objectives.worst=minimize")["worst"].direction == "minimize"
    assert check("evaluator.objectives.worst=maximize")["worst"].direction == "maximize"
    with pytest.raises(DefinitionError, match="'at_most' does not fit 'worst', which is to be maximized"):
        check("evaluator.objectives.worst=maximize", "evaluator.constraints.worst.at_most=3")


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ("latency.max_drop=0.1", "'max_drop' does not fit 'latency', which is to be minimized. Allowed: at_most,"),
        ("latancy.at_most=1", "unknown metric 'latancy'. Did you mean 'latency'?"),
    ],
)
def test_goals_that_do_not_fit_their_metric_are_refused(check, goal, said):
    with pytest.raises(DefinitionError, match=re.escape(said)):
        check(f"evaluator.constraints.{goal}")
