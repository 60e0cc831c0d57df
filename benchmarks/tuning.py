"""A short fine-tuning, the same for whoever is compared, and the score that it leads to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from secateur.definition import DistillDefinition, RecoverDefinition
from secateur.evaluators.sample_scores import Scores, scores_of
from secateur.pipelines.preparation import Prepared
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.workloads.roles import collect

BATCH = 128
RECIPE = RecoverDefinition(
    epochs=1, batch=BATCH, learning_rate=0.02, distill=DistillDefinition(temperature=4.0, weight=0.9)
)


def tune_briefly(prepared: Prepared, module: nn.Module, steps: int, seed: int = 0) -> nn.Module:
    """So many steps of distillation from the dense network, on as many training samples as that takes; cosine schedule.

    A training set that is too small is gone through again and again.
    """
    workload = prepared.workload
    size = len(workload.data.train)  # type: ignore[arg-type] # map-style
    order = np.random.default_rng(seed).permutation(size)
    samples = np.resize(order, steps * BATCH).tolist()
    part = replace(workload, data=replace(workload.data, train=Subset(workload.data.train, samples)))
    return fine_tune(module, prepared.model, part, RECIPE, Training(seed=seed)).module


def score_on(prepared: Prepared, module: nn.Module, role: str) -> float:
    """Mean score in torch on one data role."""
    return scores_on(prepared, module, role).value


@torch.no_grad()
def scores_on(prepared: Prepared, module: nn.Module, role: str) -> Scores:
    """The same, sample by sample."""
    inputs, targets = collect(getattr(prepared.workload.data, role))
    batches = zip(*(x.split(250) for x in inputs), strict=True)
    outputs = torch.cat([module.eval()(*batch) for batch in batches])
    return scores_of(prepared.workload, outputs, targets)
