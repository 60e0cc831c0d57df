"""A worker of a run: rebuilds what the run's folder describes, and evaluates candidates. Started by the driver, one per process.

python -m secateur.pipelines.worker RUN_FOLDER [--training-threads N] [--device cuda] [--memory-gb X]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from secateur.compression.storage import weights_digest
from secateur.definition import load_pipeline
from secateur.errors import StateError
from secateur.execution.protocol import serve
from secateur.pipelines.calibration import load_predictor
from secateur.pipelines.gathering import give_grams
from secateur.pipelines.preparation import Prepared, prepare
from secateur.pipelines.sparse_training import give_sparse
from secateur.pipelines.stages import evaluation_of
from secateur.pipelines.state import read_run
from secateur.records import Evaluation, Job


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


def prepared_worker(folder: Path, training_threads: int, device: str) -> Callable[[Job], Evaluation]:
    """The function that evaluates candidates of a run. device: for training. Raises what `rebuilt` raises.

    One small network at a time keeps one thread busy; more of them only wait for each other. Training is worth more.
    """
    prepared = rebuilt(folder)
    threads = prepared.definition.evaluator.threads

    def evaluate(job: Job) -> Evaluation:
        torch.set_num_threads(training_threads if job.fidelity.steps else threads)
        return evaluation_of(prepared, job, device=device)

    return evaluate


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
