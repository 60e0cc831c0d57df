"""Loss and score of a workload: what they return is checked at every call, and tried before long work."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import WorkloadError
from secateur.records import SHARE, Workload
from secateur.workloads.calls import calling, guarded
from secateur.workloads.pytrees import OUTPUT, PyTree, call, joined, length, mapped, named, rows
from secateur.workloads.roles import collect

AT_ONCE = 64
"""Samples that go through the model at once."""

Function = Callable[[PyTree, PyTree], Tensor]


def checked_loss(loss: Callable[..., Any]) -> Function:
    """The user's loss; raises WorkloadError where it raises or where it gives anything but one number as a tensor."""
    call = guarded(loss, "The workload's loss")

    @functools.wraps(loss, assigned=("__module__", "__name__", "__doc__"), updated=())
    def checked(outputs: PyTree, targets: PyTree) -> Tensor:
        value: Any = call(outputs, targets)
        if not isinstance(value, Tensor):
            raise WorkloadError(
                f"The workload's loss gives a {type(value).__name__}; it must be a tensor with one number, the mean over the batch."
            )
        if value.dim():
            raise WorkloadError(
                f"The workload's loss gives {tuple(value.shape)} for {length(targets)} samples; it must be one number, the mean "
                "over the batch."
            )
        return value

    return checked


def checked_score(score: Any) -> Function:
    """The user's score as a tensor of floats, () or (n,); raises WorkloadError where it raises or gives anything else."""
    call = guarded(_of_the_set(score) if _gathers(score) else score, "The workload's score")

    @functools.wraps(score, assigned=("__module__", "__name__", "__doc__"), updated=())
    def checked(outputs: PyTree, targets: PyTree) -> Tensor:
        value: Any = call(outputs, targets)
        wanted = "it must give one number a sample, or one for all"
        try:
            scores = torch.as_tensor(value).detach().cpu()
        except (TypeError, ValueError, RuntimeError):  # what torch cannot read as numbers
            raise WorkloadError(f"The workload's score gives a {type(value).__name__}; {wanted}.") from None
        if tuple(scores.shape) not in ((), (length(targets),)):
            raise WorkloadError(
                f"The workload's score gives {tuple(scores.shape)} for {length(targets)} samples; {wanted}."
            )
        return scores if scores.dtype == torch.float64 else scores.float()

    return checked


def usable_as_score(score: Any) -> bool:
    """Whether it is a function, or an object with `update` and `compute`."""
    return callable(score) or _gathers(score)


def _gathers(score: Any) -> bool:
    return all(callable(getattr(score, method, None)) for method in ("update", "compute"))


def _of_the_set(score: Any) -> Callable[[PyTree, PyTree], Any]:
    """A score that is gathered, as a function: of a copy each time, so that nothing stays of earlier samples."""

    def computed(outputs: PyTree, targets: PyTree) -> Any:
        fresh = copy.deepcopy(score)
        fresh.update(outputs, targets)
        return fresh.compute()

    return computed


def checked_output(output: Callable[..., Any]) -> Callable[[PyTree], Tensor]:
    """The user's choice among the outputs; raises WorkloadError where it raises or gives anything but a tensor of floats."""
    call = guarded(output, "The workload's output")

    @functools.wraps(output, assigned=("__module__", "__name__", "__doc__"), updated=())
    def checked(outputs: PyTree) -> Tensor:
        value: Any = call(outputs)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != (length(outputs),):
            given = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise WorkloadError(
                f"The workload's output gives {given.replace('torch.', '')} for {length(outputs)} samples; cut networks are "
                f"compared with the dense one by a tensor of floats (n, …). The model returns {', '.join(named(outputs, OUTPUT))}: "
                "choose one with Workload(…, output=lambda outputs: …)."
            )
        return value

    return checked


def try_functions(workload: Workload, model: nn.Module, outputs: PyTree, targets: PyTree) -> None:
    """Output, loss, its gradient and the score, tried on calibration samples. outputs: the model's, with their gradient.

    A score of the whole set, which may say nothing of a few samples (an area under a curve), is tried on all search data then.
    Raises WorkloadError.
    """
    samples = f"{length(targets)} calibration samples"
    workload.output(outputs)
    loss = workload.loss(outputs, targets)
    if not torch.isfinite(loss):
        raise WorkloadError(f"The workload's loss on {samples} is {loss.item()}.")
    if not loss.requires_grad:
        raise WorkloadError(
            "The workload's loss carries no gradient, so nothing can be trained by it. Look for .detach(), .item(), argmax() or a "
            "conversion to numpy in it."
        )
    with calling("The gradient of the workload's loss"):
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    if _problem(workload, mapped(torch.detach, outputs), targets, samples) is not None:
        inputs, targets = collect(workload.data.search)
        searched, samples = _answers(model, inputs), f"all {length(targets):,} search samples"
        if problem := _problem(workload, searched, targets, samples):
            raise WorkloadError(problem)


def _answers(model: nn.Module, inputs: PyTree) -> PyTree:
    with calling("The model on search samples"), torch.no_grad():
        parts = (rows(inputs, slice(start, start + AT_ONCE)) for start in range(0, length(inputs), AT_ONCE))
        return joined([call(model, part) for part in parts])


def _problem(workload: Workload, outputs: PyTree, targets: PyTree, samples: str) -> str | None:
    """What is wrong with the score on these samples, or None."""
    try:
        scores = workload.score(outputs, targets)
    except WorkloadError as error:
        return f"{error} It was called on {samples}."
    if not torch.isfinite(scores).all():
        return f"The workload's score on {samples} is not finite."
    check_unit(workload, scores, samples)
    return None


def check_unit(workload: Workload, scores: Tensor, samples: str) -> None:
    """Raises WorkloadError where scores that are called shares leave [0, 1]: every percentage shown would be wrong.

    samples: what the scores are of, for the message.
    """
    if workload.score_unit != SHARE:
        return
    outside = scores[(scores < 0) | (scores > 1)]
    if outside.numel():
        raise WorkloadError(
            f"The workload's score is {float(outside.flatten()[0]):.4g} on {samples}, but its unit is '{SHARE}': a score in "
            '[0, 1]. Give the unit in the workload: Workload(…, score_unit="dB"), or score_unit="" for a plain number.'
        )
