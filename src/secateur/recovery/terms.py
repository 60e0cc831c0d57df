"""What a student is trained to: a sum of weighted terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn

from secateur.definition import DistillDefinition, GatesDefinition
from secateur.gating.budget import budget_loss
from secateur.gating.prices import Prices
from secateur.records import Workload
from secateur.workloads.pytrees import PyTree, call

BUDGET_WEIGHT = 30.0
"""Of the squared distance to the budget of MACs."""


@dataclass(frozen=True)
class Batch:
    """inputs: as the model takes them. outputs: as the student returns them. targets. All tensors (n, …), on one device.

    samples: their numbers in the train role, n; empty where nobody knows them.
    """

    inputs: PyTree
    outputs: PyTree
    targets: PyTree
    samples: Sequence[int] = ()


@dataclass(frozen=True)
class Term:
    """A share of the loss. of: scalar, mean over a batch."""

    weight: float
    of: Callable[[Batch], Tensor]


Answer: TypeAlias = Callable[[Sequence[int]], Tensor]
"""Numbers of training samples → what a teacher's output for them is."""


def terms_of(
    workload: Workload, teacher: nn.Module, distill: DistillDefinition | None, answer: Answer | None = None
) -> tuple[Term, ...]:
    """The workload's loss, and agreement with the teacher where a definition asks for distillation.

    answer: where the teacher need not be asked.
    """
    if distill is None:
        return (Term(1.0, partial(_labels, workload)),)
    return (
        Term(distill.weight, partial(_logits, workload, teacher, distill.temperature, answer)),
        Term(1 - distill.weight, partial(_labels, workload)),
    )


def gate_terms(student: nn.Module, prices: Prices, gates: GatesDefinition) -> tuple[Term, ...]:
    """What a student with gates is trained to beside the other terms: its budget."""
    return (Term(BUDGET_WEIGHT, lambda _: budget_loss(student, prices, gates.budget)),)


def total(terms: tuple[Term, ...], batch: Batch) -> Tensor:
    """The loss of a batch: scalar."""
    return reduce(torch.add, (term.weight * term.of(batch) for term in terms))


def _labels(workload: Workload, batch: Batch) -> Tensor:
    return workload.loss(batch.outputs, batch.targets)


def _logits(workload: Workload, teacher: nn.Module, temperature: float, answer: Answer | None, batch: Batch) -> Tensor:
    with torch.no_grad():
        taught = answer(batch.samples) if answer else workload.output(call(teacher, batch.inputs))
    return distillation_loss(workload.output(batch.outputs), taught, temperature)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of the softened class distributions, mean over the batch. Logits: (n, classes).

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    return (
        F.kl_div(
            F.log_softmax(student / temperature, dim=-1),
            F.log_softmax(teacher / temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        * temperature**2
    )
