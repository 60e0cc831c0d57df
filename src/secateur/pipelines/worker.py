"""A worker of a run: rebuilds what the run's folder describes, evaluates candidates and trains finalists. One per process.

python -m secateur.pipelines.worker RUN_FOLDER [--training-threads N] [--device cuda] [--memory-gb X]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from secateur.compression.storage import weights_digest
from secateur.definition import load_pipeline
from secateur.errors import StateError
from secateur.execution.protocol import OnEpoch, Skills, serve
from secateur.pipelines.calibration import load_predictor
from secateur.pipelines.finalists import finalist_named
from secateur.pipelines.gathering import give_grams
from secateur.pipelines.preparation import Prepared, prepare
from secateur.pipelines.recovering import Recovery
from secateur.pipelines.sparse_training import give_sparse
from secateur.pipelines.stages import evaluation_of, saliencies_of
from secateur.pipelines.state import RunFolder, Stopwatch, read_run
from secateur.records import Evaluation, Job, TrainingJob
from secateur.recovery.trainers import Trainer, trainer_of


def rebuilt(folder: Path) -> Prepared:
    """What a run's folder describes.

    Raises what `secateur.pipelines.preparation.prepare` raises, and StateError where the weights are not those of the run.
    """
    run = read_run(folder)
    definition, _ = load_pipeline(str(folder / "definition.yaml"))
    prepared = prepare(
        definition, Path(run.project), dense_onnx=run.dense_onnx.read_bytes(), groups=run.groups, lasting=True
    )
    if not run.identity.startswith(weights_digest(prepared.model)[:16]):
        prepared.close()
        raise StateError(
            f"the weights that build_model gives now are not those that run {run.run_id} was started with. build_model must return "
            "the same weights at every call, in every process; where they were changed on purpose, start a new run."
        )
    load_predictor(prepared, run)
    give_sparse(prepared, run.sparse)
    give_grams(prepared, run.grams)
    return prepared


def prepared_worker(folder: Path, training_threads: int, device: str) -> Skills:
    """What evaluates candidates of a run and trains its finalists. device: for training. Raises what `rebuilt` raises.

    One small network at a time keeps one thread busy; more of them only wait for each other. Training is worth more.
    """
    prepared, run = rebuilt(folder), read_run(folder)
    threads = prepared.definition.evaluator.threads

    def evaluate(job: Job) -> Evaluation:
        torch.set_num_threads(training_threads if job.fidelity.steps else threads)
        return evaluation_of(prepared, job, device=device)

    def train(job: TrainingJob, on_epoch: OnEpoch) -> str | None:
        torch.set_num_threads(job.threads)
        own, finalist = replace(prepared, trainer=_trainer(prepared, run)), job.finalist
        begun = finalist_named(
            own, saliencies_of(own, run), finalist.name, finalist.trial, finalist.candidate, finalist.searched
        )
        return Recovery(own, run, device, Stopwatch()).train(begun, on_epoch)

    return Skills(evaluate, train)


def _trainer(prepared: Prepared, run: RunFolder) -> Trainer | None:
    """The user's own, where there is one. Raises StateError where it is not the one that the run was started with."""
    recover = prepared.definition.recover
    trainer = None if recover is None else trainer_of(recover, Path(run.project))
    if trainer is not None and not run.identity.endswith(trainer.digest):
        raise StateError(
            f"The file of {trainer.name} was changed while run {run.run_id} was going on. Put it back and resume the run, or start "
            "a new one."
        )
    return trainer


def main() -> None:
    """Serve until the driver is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training-threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-gb", type=float)
    options = parser.parse_args()
    serve(lambda: prepared_worker(options.folder, options.training_threads, options.device), options.memory_gb)


if __name__ == "__main__":
    main()
