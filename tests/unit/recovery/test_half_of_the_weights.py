from __future__ import annotations

import pytest
import torch

from secateur.compression.compensation.gram import grams_of
from secateur.compression.groups import find_groups
from secateur.compression.resolution import resolve
from secateur.compression.weight_saliency import weight_saliencies
from secateur.definition import RecoverDefinition
from secateur.evaluators.cutting import Cutting
from secateur.records import Candidate, Edit
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.masks import kept
from secateur.workloads import digits
from secateur.workloads.roles import collect


@pytest.mark.slow
def test_half_of_the_digits_networks_weights_are_zero_and_a_point_is_not_lost():
    """By magnitude, with one threshold over all layers, and two epochs of training; on the 850 samples that nothing is fitted to."""
    workload = digits.workload()
    model = workload.build_model()
    found = find_groups(model, workload.example_inputs)
    groups = [group for group in (*found.groups, *found.fixed) if group.weights]
    scores = weight_saliencies(model, groups, ["magnitude"], workload, {})
    every = torch.cat([own["weights/magnitude"] for own in scores.values()])
    share = {name: float((own["weights/magnitude"] > every.median()).float().mean()) for name, own in scores.items()}
    edits = {name: (Edit("weights", round(1000 * left), "magnitude"),) for name, left in share.items()}
    plan = resolve(Candidate(edits), groups, scores)
    cutting = Cutting(model, workload)
    cutting.grams = grams_of(model, groups, workload, 97)
    settings = RecoverDefinition(epochs=2, batch=64, learning_rate=0.01)
    tuned = fine_tune(cutting.cut(plan, 97), model, workload, settings, Training(masks=kept(plan.masked))).module
    zeros = sum(int((tuned.get_submodule(name).weight == 0).sum()) for name in plan.masked)
    assert zeros == pytest.approx(len(every) / 2, rel=0.01)

    def right(network):
        roles = (collect(getattr(workload.data, role)) for role in ("search", "selection", "test"))
        with torch.no_grad():
            return torch.cat([workload.score(network(*inputs), targets) for inputs, targets in roles]).mean()

    assert right(tuned) > right(model) - 0.01
