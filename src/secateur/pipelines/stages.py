"""One function per arrow: prepared → trials → finalists → recovered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save
from torch import Tensor, nn

from secateur.compression.costs import parameters_after
from secateur.compression.saliency import Saliencies, compute_saliencies
from secateur.compression.selection import resolve
from secateur.compression.storage import save_compressed
from secateur.compression.surgery import cut
from secateur.definition import RecoverDefinition
from secateur.errors import EvaluationFailed, ModelError
from secateur.evaluators.sample_scores import save_scores
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.records import (
    Candidate,
    CompressedModel,
    Evaluation,
    Goal,
    Job,
    Measurement,
    Recovered,
    Trial,
)
from secateur.recovery.fine_tune import Tuned, fine_tune, train_steps
from secateur.search.front import front
from secateur.search.goals import goals_of
from secateur.search.ledger import Problem, by_hypervolume, feasible, own

_RECOVERED: TypeAdapter[Recovered] = TypeAdapter(Recovered)


def saliencies_of(prepared: Prepared, run: RunFolder) -> Saliencies:
    """Saliency scores, computed once per run and kept: a restarted run must cut the same channels."""
    file = run.path / "saliency.safetensors"
    methods = prepared.space.methods
    if file.is_file():
        loaded: dict[str, dict[str, Tensor]] = {}
        for key, scores in load_file(file).items():
            group, _, method = key.rpartition("/")
            loaded.setdefault(group, {})[method] = scores
        return loaded
    computed = compute_saliencies(prepared.model, prepared.space.groups, methods, prepared.workload)
    flat = {f"{group}/{method}": scores for group, by in computed.items() for method, scores in by.items()}
    write(file, save(flat))
    return computed


def dense_on(prepared: Prepared, role: str) -> Mapping[str, Measurement]:
    """The dense model's figures on one data role. Its latency is a ratio to itself: the interval is the noise floor."""
    evaluator = prepared.evaluator
    return evaluator.measure(evaluator.files.dense, role, evaluator.everything)


def evaluation_of(
    prepared: Prepared,
    saliencies: Saliencies,
    job: Job,
    on_part: Callable[[Mapping[str, Measurement]], None] | None = None,
) -> Evaluation:
    """What a worker does with a job: cut, recalibrate, train a few steps where the job says so, measure.

    on_part: told the figures on the first share of the data, where it is scored in parts.
    """
    if job.probe:
        return prepared.evaluator.probe(job.candidate, prepared.space.groups, saliencies)

    def few_steps(module: nn.Module) -> nn.Module:
        settings = prepared.definition.recover or RecoverDefinition()
        return train_steps(module, prepared.model, prepared.workload, settings, job.steps).module

    return prepared.evaluator.evaluate(
        job,
        prepared.space.groups,
        saliencies,
        first_images=prepared.definition.search.fidelities.first_images,
        refine=few_steps if job.steps else None,
        on_part=on_part,
    )


def goals_on(prepared: Prepared, dense: Mapping[str, Measurement]) -> tuple[Goal, ...]:
    """The definition's goals as limits. dense: the original's figures on the data role in question."""
    definition = prepared.definition
    return goals_of(definition.evaluator.constraints, dense, recovers=definition.recover is not None)


def problem_of(
    prepared: Prepared,
    saliencies: Saliencies,
    dense: Mapping[str, Measurement],
    prior: Sequence[Candidate] = (),
) -> Problem:
    """The search problem of a definition."""
    definition, space = prepared.definition, prepared.space

    def exact(candidate: Candidate) -> dict[str, float]:
        removals = resolve(candidate, space.groups, saliencies)
        return {"macs": prepared.costs.after(removals), "parameters": parameters_after(prepared.model, removals)}

    return Problem(
        space,
        definition.evaluator.objectives,
        key=lambda candidate: resolve(candidate, space.groups, saliencies).key,
        exact=exact,
        dense=dense,
        goals=goals_on(prepared, dense),
        saliencies=saliencies,
        prior=tuple(prior),
        seed=definition.search.seed,
    )


def choose_finalists(prepared: Prepared, trials: Sequence[Trial], dense: Mapping[str, Measurement]) -> list[Trial]:
    """Front members that add the most hypervolume, one after the other; the dense network is not one of them."""
    definition = prepared.definition
    objectives = definition.evaluator.objectives
    sound = [t for t in feasible(own(trials), goals_on(prepared, dense)) if t.arm != "dense"]
    on_front = front([t.evaluation for t in sound], objectives)
    members = [t for t in sound if any(t.evaluation is e for e in on_front)]
    count = definition.recover.finalists if definition.recover else len(members)
    return by_hypervolume(members, objectives, dense, goals_on(prepared, dense), count)


def recover_finalist(
    prepared: Prepared,
    saliencies: Saliencies,
    trial: Trial,
    number: int,
    run: RunFolder,
    device: str,
    on_epoch: Callable[[int, float], None],
) -> Recovered:
    """Fine-tune one finalist, export it, measure it on selection data. A finished one is read back; a begun one goes on."""
    name = f"f{number}-{trial.evaluation.removals_key[:6]}"
    folder = run.folder("finalists", name)
    result = folder / "result.json"
    if result.is_file():
        return _RECOVERED.validate_json(result.read_bytes())
    candidate = trial.evaluation.candidate
    removals = resolve(candidate, prepared.space.groups, saliencies)
    compressed = prepared.evaluator.compress(candidate, removals)
    settings = prepared.definition.recover
    tuned = Tuned(compressed.module, 0, 0.0, None)
    if settings is not None:
        tuned = fine_tune(
            compressed.module,
            prepared.model,
            prepared.workload,
            settings,
            device=device,
            seed=prepared.definition.search.seed,
            checkpoint=folder / "checkpoint.safetensors",
            on_epoch=on_epoch,
        )
    finalist = Recovered(
        name=name,
        trial=trial.number,
        candidate=candidate,
        searched=trial.evaluation.measurements,
        measurements={},
        folder=str(folder.relative_to(run.path)),
        epochs=tuned.epochs,
        seconds=tuned.seconds,
        stopped=tuned.stopped,
    )
    recovered = _measured(prepared, CompressedModel(candidate, removals, tuned.module), finalist, run)
    write(result, _RECOVERED.dump_json(recovered, indent=1))
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return recovered


def train_small_dense(
    prepared: Prepared,
    saliencies: Saliencies,
    best: Recovered,
    run: RunFolder,
    device: str,
    on_epoch: Callable[[int, float], None],
) -> Recovered:
    """The baseline that needs no pruning: the knee's widths with new weights, trained just as the finalists are.

    Source: Liu et al. 2019 (Rethinking the value of network pruning), arXiv:1810.05270.
    """
    folder = run.folder("finalists", "small-dense")
    result = folder / "result.json"
    if result.is_file():
        return _RECOVERED.validate_json(result.read_bytes())
    settings = prepared.definition.recover or RecoverDefinition()
    removals = resolve(best.candidate, prepared.space.groups, saliencies)
    fresh = cut(prepared.model, removals)
    seed = prepared.definition.search.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in fresh.modules():
            renew = getattr(layer, "reset_parameters", None)
            if callable(renew):
                renew()
    checkpoint = folder / "checkpoint.safetensors"
    tuned = fine_tune(
        fresh,
        prepared.model,
        prepared.workload,
        settings,
        device=device,
        seed=seed,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    trained = replace(
        best,
        name="small-dense",
        searched={},
        measurements={},
        folder=str(folder.relative_to(run.path)),
        epochs=tuned.epochs,
        seconds=tuned.seconds,
        stopped=tuned.stopped,
        on_front=False,
        feasible=False,
    )
    measured = _measured(prepared, CompressedModel(best.candidate, removals, tuned.module), trained, run)
    write(result, _RECOVERED.dump_json(measured, indent=1))
    checkpoint.unlink(missing_ok=True)
    return measured


def _measured(prepared: Prepared, compressed: CompressedModel, tuned: Recovered, run: RunFolder) -> Recovered:
    """A tuned network with its figures on selection data, and its score on the search data once more; its files on disk."""
    folder = run.path / tuned.folder
    evaluator, macs = prepared.evaluator, prepared.costs.after(compressed.removals)
    save_compressed(compressed, prepared.model, prepared.definition.workload.as_written, folder / "compressed")
    try:
        measured = evaluator.export_and_measure(compressed.module, macs, "selection")
        on_search = evaluator.measure(measured.network, "search", ["accuracy"])
    except (EvaluationFailed, ModelError) as error:
        return replace(tuned, failure=str(error))
    save_scores(measured.scores, folder / "scores-selection.npz")
    write(folder / "model.onnx", measured.network.onnx)
    if measured.network.converted is not None:
        write(folder / f"model.{evaluator.runtime.format}", measured.network.converted)
    return replace(tuned, measurements=measured.measurements, on_search=on_search["accuracy"])
