"""One trial of an NNI experiment: rebuilds what a run's folder describes, evaluates one candidate. Started by NNI, one per process.

python -m secateur.pipelines.nni_trial RUN_FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter

from secateur.errors import DeviceLost, SecateurError, first_line
from secateur.execution.protocol import EVALUATION, guarded, limit_memory
from secateur.pipelines.ranking import scored
from secateur.pipelines.stages import evaluation_of, problem_of, saliencies_of
from secateur.pipelines.state import read_run
from secateur.pipelines.worker import rebuilt
from secateur.records import Evaluation, Job, Measurement
from secateur.search.nni import trial
from secateur.search.nni.engine import score_in
from secateur.search.nni.names import DEVICE_LOST

_MEASUREMENTS: TypeAdapter[Mapping[str, Measurement]] = TypeAdapter(Mapping[str, Measurement])


def evaluate(folder: Path) -> None:
    """Ask for the parameters, evaluate, finish. A candidate that fails is a result, with its reason.

    Raises what `secateur.pipelines.worker.rebuilt` raises.
    """
    prepared = rebuilt(folder)
    saliencies = saliencies_of(prepared, read_run(folder))
    prepared = replace(prepared, space=scored(prepared.space, saliencies))
    problem = problem_of(prepared, saliencies, _MEASUREMENTS.validate_json((folder / "dense/search.json").read_bytes()))
    candidate = problem.space.candidate(trial.parameters())
    plan = problem.resolve(candidate)

    def report(measured: Mapping[str, Measurement]) -> None:
        part = Evaluation(candidate, plan.key, measured)
        trial.report(score_in(problem, part), EVALUATION.dump_json(part).decode())

    settings = prepared.definition.search
    torch.set_num_threads(prepared.definition.evaluator.threads)
    limit_memory(settings.limits.memory_gb)
    judged = settings.nni is not None and settings.nni.assessor is not None
    patience = threading.Timer(settings.limits.seconds, _give_up, [settings.limits.seconds])
    patience.daemon = True
    patience.start()
    evaluation = guarded(partial(evaluation_of, prepared, on_part=report if judged else None), Job(candidate, plan))
    patience.cancel()
    evaluation = replace(evaluation, plan_key=plan.key)
    trial.finish(score_in(problem, evaluation), EVALUATION.dump_json(evaluation).decode())


def _give_up(seconds: float) -> None:
    """End this process, whatever it is doing. NNI's log of the trial ends with the reason."""
    sys.stderr.write(f"it took longer than {seconds:g} s\n")
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    """Evaluate what NNI has asked this process for. Its last word on standard error is the reason where it fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        evaluate(folder)
    except DeviceLost as error:
        sys.exit(DEVICE_LOST + " ".join(str(error).split()))
    except SecateurError as error:
        sys.exit(first_line(error))


if __name__ == "__main__":
    main()
