"""The arms of a comparison: each asks a judge for networks and returns its steps, in order."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import torch_pruning
from torch import nn

from judging import Judge, Meter, Step, plan_of
from secateur.compression.costs import layer_costs
from secateur.execution import Inline
from secateur.pipelines.preparation import Prepared
from secateur.records import Evaluation, Job
from secateur.search.ledger import Ledger, Problem
from secateur.search.loop import Stopping, search
from secateur.search.study import Study, Subject


def run_search(problem: Problem, work: Callable[[Job], Evaluation], budget: int, seed: int) -> None:
    """Our search with its own sampler, in a storage of its own. Evaluations run in this process, in full: nobody is given up."""
    problem = replace(problem, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(problem.space, problem.objectives, problem.dense)
        study = Study(Path(folder) / "s.db", "benchmark", subject, "tpe", seed)
        search(Ledger(problem, study), Inline(work), Stopping(budget))


def secateur(judge: Judge, budget: int, seed: int) -> list[Step]:
    """What `secateur run` does but for racing: thresholds, sensitivity sweep, then the re-fitted knapsack and TPE in turn.

    The probes of the sweep are no evaluations of networks; their CPU time is charged to the next one.
    """
    meter, prepared = Meter(judge), judge.prepared

    def work(job: Job) -> Evaluation:
        if job.fidelity.probe:
            return prepared.evaluator.probe(job)
        return meter.evaluate(job.candidate)

    run_search(judge.problem, work, budget, seed)
    return meter.steps


def plain_loop(judge: Judge, budget: int, seed: int) -> list[Step]:
    """A multi-objective Optuna study as its documentation writes it: in memory, the default sampler, suggestions per group.

    The space, the objectives and the evaluation are ours. What it draws twice it evaluates twice, and pays for it.
    """
    space, meter = judge.prepared.space, Meter(judge)

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        values: dict[str, float | str] = {
            p.name: trial.suggest_categorical(p.name, p.names)
            if p.names
            else trial.suggest_float(p.name, p.low, p.high)
            for p in space.parameters()
        }
        evaluation = meter.evaluate(space.candidate(values))
        if evaluation.failure is not None:
            raise optuna.TrialPruned(evaluation.failure)
        return tuple(evaluation.measurements[name].value for name in judge.objectives)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=list(judge.objectives.values()))
    study.sampler = type(study.sampler)(seed=seed)  # type: ignore[call-arg] # the default, whichever it is, seeded
    study.optimize(objective, n_trials=budget)
    return meter.steps


def uniform_family(judge: Judge, budget: int) -> list[Step]:
    """The same fraction everywhere: ever finer fractions, every method, until the budget is spent or nothing new appears."""
    space, meter = judge.prepared.space, Meter(judge)
    seen: set[str] = set()
    for step in (0.125, 0.0625, 0.03125, 0.015625):
        for fraction in np.arange(0.0, 0.8 + 1e-9, step):
            for method in space.methods:
                candidate = space.uniform(float(fraction), method)
                key = judge.problem.resolve(candidate).key
                if len(seen) < budget and key not in seen:
                    seen.add(key)
                    meter.evaluate(candidate)
    return meter.steps


def written_once(prepared: Prepared) -> set[str]:
    """Groups whose channels one layer writes: no stream runs through them."""
    return {
        group.name
        for group in prepared.space.groups
        if sum(m.side == "out" and m.kind in ("convolution", "linear") for m in group.members) == 1
    }


def ignored_layers(prepared: Prepared, model: nn.Module, *, streams: bool) -> list[nn.Module]:
    """Layers of a copy of the model that torch-pruning keeps wide: the head and, without `streams`, what writes to a stream."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    alone = written_once(prepared)
    head = [m for m in layers.values() if isinstance(m, nn.Linear)][-1:]
    return head if streams else head + [m for n, m in layers.items() if n not in alone and m not in head]


def torch_pruning_networks(
    judge: Judge, *, globally: bool, streams: bool, round_to: int | None = 8
) -> Iterator[tuple[float, nn.Module]]:
    """All different networks that torch-pruning's magnitude pruner makes at ratios from .02 to .9, with their share of the MACs.

    streams: also cut what runs past the blocks. Where the shortcut pads channels (option A of He et al. 2015) torch-pruning
    couples channel c before the pad with c behind it, and not with the channel that it becomes: without `streams` it is kept
    from doing so. round_to: widths are multiples of it.
    """
    prepared = judge.prepared
    seen: set[tuple[int, ...]] = set()
    for ratio in np.arange(0.02, 0.901, 0.02):
        model = copy.deepcopy(prepared.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = torch_pruning.pruner.MagnitudePruner(
                model,
                prepared.workload.example_inputs,
                importance=torch_pruning.importance.MagnitudeImportance(p=2),
                pruning_ratio=float(ratio),
                global_pruning=globally,
                round_to=round_to,
                ignored_layers=ignored_layers(prepared, model, streams=streams),
            )
            pruner.step()
        widths = tuple(m.weight.shape[0] for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
        if widths not in seen:
            seen.add(widths)
            macs = layer_costs(model.eval(), prepared.workload.example_inputs).total
            yield macs / prepared.costs.total, model


def torch_pruning_front(
    judge: Judge, budgets: int, *, globally: bool, streams: bool, round_to: int | None = 8
) -> tuple[list[Step], list[Step]]:
    """torch-pruning at `budgets` evenly spread shares of the MACs it can reach, and all the networks that it can make.

    A judge who refits needs cuts that are legal in our groups, hence `streams=False` where shortcuts pad channels.
    """
    networks = sorted(
        torch_pruning_networks(judge, globally=globally, streams=streams, round_to=round_to), key=lambda pair: pair[0]
    )
    meter = Meter(judge)
    for _, module in networks:
        if judge.refits:
            meter.evaluate_plan(plan_of(judge.prepared.model, judge.prepared.space.groups, module.state_dict()))
        else:
            meter.evaluate_foreign(module)
    shares = np.array([share for share, _ in networks])
    wanted = np.linspace(shares[0], shares[-1], budgets)
    nearest = sorted({int(np.abs(shares - target).argmin()) for target in wanted})
    return [meter.steps[i] for i in nearest], meter.steps
