"""What the latency predictor's table has to know before the search."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from secateur.compression.groups import find_groups
from secateur.definition import SearchSpaceDefinition
from secateur.errors import EvaluationFailed
from secateur.evaluators.onnx_template import make_template
from secateur.evaluators.operators import operators_of
from secateur.pipelines import calibration
from secateur.search_spaces import build_space


class Template:
    """Of a model with a tensor that no rule explains: every second network would change it."""

    unexplained = ("mul",)

    def __init__(self, whole):
        self.whole, self.files, self.asked = whole, [], 0

    def render(self, module):
        self.asked += 1
        if self.asked % 2:
            raise EvaluationFailed("two.weight changes")
        self.files.append(self.whole.render(module))
        return self.files[-1]


def test_operators_are_looked_up_of_every_network_whose_file_can_be_rewritten(monkeypatch, workload, dense_onnx):
    monkeypatch.setattr(calibration, "COVERED", 4)
    model = workload.build_model()
    found = find_groups(model, workload.example_inputs)
    space = build_space(SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l2"]}]}), found)
    template = Template(make_template(model, workload.example_inputs, dense_onnx))
    prepared = SimpleNamespace(
        model=model,
        space=space,
        evaluator=SimpleNamespace(files=SimpleNamespace(template=template)),
        definition=SimpleNamespace(search=SimpleNamespace(seed=0), evaluator=SimpleNamespace(batch=1)),
    )
    saliencies = {group.name: {"l2": torch.arange(group.width).float()} for group in space.groups}
    seen = list(calibration._likely(prepared, saliencies))
    assert (template.asked, len(template.files)) == (4, 2)
    assert seen == [operator for file in template.files for operator in operators_of(file, 1)]
    assert seen
