"""`compress`: a run without YAML, for a model that lives in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from secateur.api.callbacks import Callbacks
from secateur.api.finished import Run
from secateur.api.running import Overrides, run
from secateur.compression.copies import copied
from secateur.compression.storage import weights_digest
from secateur.definition import LENGTHS
from secateur.errors import DefinitionError, WorkloadError
from secateur.records import DataRoles, Direction, Workload
from secateur.recovery.trainers import Function
from secateur.workloads.live import LIVE, digest_of, held, held_trainer
from secateur.workloads.loading import build_model, guarded_workload
from secateur.workloads.pairs import arguments
from secateur.workloads.roles import drawn, split_roles
from secateur.workloads.samples import Samples, collate_of, in_batches, map_style
from secateur.workloads.scores import cross_entropy, top1

Data = DataRoles | Dataset[Any] | Mapping[str, Dataset[Any]]
"""The five roles; or one data set, or `{"train": …, "test": …}`, of which `split_roles` makes the roles that are missing."""


def compress(
    model: nn.Module,
    data: Data,
    *,
    loss: Callable[[Any, Any], Tensor] = cross_entropy,
    score: Any = top1,
    example_inputs: tuple[Any, ...] | Mapping[str, Any] | None = None,
    workload: Mapping[str, Any] | None = None,
    name: str = "model",
    objectives: Mapping[str, Direction] | None = None,
    constraints: Mapping[str, Mapping[str, float]] | None = None,
    search_space: str | Mapping[str, Any] = "cnn_channels",
    evaluator: str | Mapping[str, Any] = "local_cpu",
    trials: int = 60,
    epochs: int = 3,
    trainer: Function | None = None,
    set: Overrides | None = None,  # noqa: A002 # the name that the command line has
    project: str | Path | None = None,
    device: str = "cpu",
    fresh: bool = False,
    callbacks: Callbacks = (),
    progress: bool = True,
) -> Run:
    """Search, measure, fine-tune and judge smaller versions of a trained module; the module itself is not changed.

    data: see Data. loss, score: as in `Workload`; the defaults are those of a classifier. example_inputs: as in `Workload`; by
    default the inputs of two calibration samples, where these are pairs. workload: further fields of `Workload` (`score_name`,
    `augment`, …). name: of the runs. objectives, constraints: replace those of the evaluator. search_space, evaluator: a name, a
    path, or a mapping as YAML has it. trials: candidates of the search. epochs: fine-tuning of each finalist; 0 leaves it out. set:
    any other key of a pipeline, `{"recover.learning_rate": 0.01}`; one that says how long finalists are trained goes before
    `epochs`. trainer: a training of your own in place of the built-in one, as `recover.trainer` names one in a file. The rest is as
    in `secateur.run`; the run lies in `mlruns/` of the project, by default the working directory.

    Candidates are evaluated in this process, one after the other: worker processes could not rebuild the module. So there is no
    limit of time or memory for a candidate, and one that crashes the interpreter ends the run. The same call goes on with an
    unfinished run where weights, options, the size of the data and its first and last samples are the same; `loss`, `score` and
    the other samples are not compared. `secateur resume` cannot: the module is in no file.

    Raises what `secateur.run` raises.
    """
    roles = _roles(data)
    live = Workload(
        name=name,
        build_model=lambda: copied(model),
        example_inputs=_two_samples(roles) if example_inputs is None else example_inputs,
        data=roles,
        loss=loss,
        score=score,
        **(workload or {}),
    )
    dense = build_model(live)
    key = weights_digest(dense)[:16]
    definition = {
        "name": name,
        "workload": {"factory": LIVE, "live": key, "data": digest_of(guarded_workload(live).data)},
        "search_space": search_space if isinstance(search_space, str) else dict(search_space),
        "evaluator": evaluator if isinstance(evaluator, str) else dict(evaluator),
        "search": {"trials": trials},
        "recover": _recover(epochs, set or {}),
    }
    changes: dict[str, Any] = {}
    if objectives is not None:
        changes["evaluator.objectives"] = dict(objectives)
    if constraints is not None:
        changes["evaluator.constraints"] = {metric: dict(goals) for metric, goals in constraints.items()}
    if trainer is not None and not epochs:
        raise DefinitionError(
            "compress: epochs=0 leaves training out, and a trainer is given. Give epochs, or no trainer."
        )
    with held(live, key), held_trainer(trainer) as trainer_name:
        if trainer_name is not None:
            changes["recover.trainer"] = trainer_name
        finished = run(
            definition,
            set={**changes, **(set or {})},
            project=project,
            device=device,
            fresh=fresh,
            callbacks=callbacks,
            progress=progress,
        )
    return Run(finished.folder, lambda: copied(dense))


def _recover(epochs: int, changes: Overrides) -> dict[str, int] | None:
    if not epochs:
        return None
    return {} if any(f"recover.{name}" in changes for name in LENGTHS) else {"epochs": epochs}


def _roles(data: Data) -> DataRoles:
    if isinstance(data, DataRoles):
        return data
    if not isinstance(data, Mapping):
        return split_roles(data)
    given = dict(data)
    if "train" not in given:
        raise WorkloadError(f"The data has no role 'train'; it has: {', '.join(given) or 'none'}.")
    train = given.pop("train")
    return split_roles(train, seed=0, **given)


def _two_samples(data: DataRoles) -> Any:
    """The default of `example_inputs`."""
    dataset = map_style(data.calibration, "calibration")
    batch = next(iter(in_batches(drawn(Samples(dataset, collate_of(dataset), "calibration"), 2), 2)))
    if isinstance(batch, (tuple, list)) and len(batch) == 2:  # a pair
        return arguments(batch[0])
    raise WorkloadError(
        f"A batch is a {type(batch).__name__}, which does not say what of it the model takes. Give example_inputs: a dict of its "
        "keyword arguments."
    )
