"""A tracking server, or the embedded database, through a client with an explicit address."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from secateur.registry.tracking.isolation import as_default, once, patient, translated
from secateur.registry.tracking.models import OnnxModel, save_onnx

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_MOST_METRICS, _MOST_TEXTS = 1000, 100
"""A server takes no more in one request."""
T = TypeVar("T")
_VERSIONS = "mlflow.modelVersions"
_LONGEST = 5000
"""Characters of a version's description in MLflow's database."""


@dataclass(frozen=True)
class DataSet:
    """A data role: what it is, not what is in it."""

    name: str
    digest: str
    role: str
    samples: int
    source: str


@dataclass(frozen=True)
class Point:
    """A metric's value at a step. data: that it was measured on; such a figure belongs to the run's logged model too."""

    key: str
    value: float
    step: int = 0
    data: DataSet | None = None


@dataclass(frozen=True)
class Registered:
    """A version of a registered model. run: that logged it. aliases: that it has."""

    name: str
    number: str
    run: str
    source: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]


@contextlib.contextmanager
def tracking(uri: str) -> Iterator[Tracking]:
    """A tracking server by its address. Raises TrackingError for whatever goes wrong with it."""
    with patient(), translated():
        yield Tracking(uri)


class Tracking:
    """What `publishing` needs of MLflow, in its own words. Experiments and runs go by their ids."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self._uri, self._client = uri, MlflowClient(tracking_uri=uri, registry_uri=uri)

    def experiment(self, name: str, location: str | None, tags: Mapping[str, str]) -> str:
        """The experiment of this name, created where missing. Tags that it has already stand."""
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return str(self._client.create_experiment(name, artifact_location=location, tags=dict(tags)))
        for key in tags.keys() - experiment.tags.keys():
            self._client.set_experiment_tag(experiment.experiment_id, key, tags[key])
        return str(experiment.experiment_id)

    def find_run(self, experiment: str, tags: Mapping[str, str]) -> tuple[str, Mapping[str, str]] | None:
        """The latest run with these tags: its id and all its tags."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        runs = self._client.search_runs([experiment], condition, max_results=1)
        return (str(runs[0].info.run_id), runs[0].data.tags) if runs else None

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """A new run."""
        with once():
            return str(self._client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)

    def discard_run(self, experiment: str, run: str) -> None:
        """Delete a run and the models that it has logged."""
        for model in self._client.search_logged_models([experiment], f"source_run_id = '{run}'"):
            self._client.delete_logged_model(model.model_id)
        self._client.delete_run(run)

    def log(
        self,
        run: str,
        points: Sequence[Point] = (),
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        model: str | None = None,
    ) -> None:
        """Metrics, parameters and tags, in as few requests as a server takes. model: the run's logged model."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        for some in _batches(points, _MOST_METRICS):
            metrics = [
                Metric(
                    _key(p.key),
                    p.value,
                    now,
                    p.step,
                    model_id=model if p.data else None,
                    dataset_name=p.data and p.data.name,
                    dataset_digest=p.data and p.data.digest,
                )
                for p in some
            ]
            self._client.log_batch(run, metrics=metrics, synchronous=True)
        for pairs in _batches((parameters or {}).items(), _MOST_TEXTS):
            self._client.log_batch(run, params=[Param(_key(k), v) for k, v in pairs], synchronous=True)
        for pairs in _batches((tags or {}).items(), _MOST_TEXTS):
            self._client.log_batch(run, tags=[RunTag(*pair) for pair in pairs], synchronous=True)

    def log_data(self, run: str, sets: Iterable[DataSet]) -> None:
        """Say which data a run has seen."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    s.name,
                    s.digest,
                    "code",
                    json.dumps({"tags": {"workload": s.source}}),
                    profile=json.dumps({"samples": s.samples}),
                ),
                [InputTag("mlflow.data.context", s.role)],
            )
            for s in sets
        ]
        self._client.log_inputs(run, datasets=inputs)

    def log_file(self, run: str, file: Path, folder: str | None = None) -> None:
        """Send a file, or what is in a folder, to a run's artifacts."""
        if file.is_dir():
            self._client.log_artifacts(run, str(file), folder)
        else:
            self._client.log_artifact(run, str(file), folder)

    def log_document(self, run: str, name: str, content: Mapping[str, Any]) -> None:
        """Send a file of JSON to a run's artifacts."""
        self._client.log_dict(run, dict(content), name)

    def log_onnx(self, experiment: str, run: str, sent: OnnxModel) -> str:
        """Send an ONNX file as a logged model with signature and input example. Returns the model's id."""
        from mlflow.entities import LoggedModelOutput

        with once():
            model = self._client.create_logged_model(
                experiment, name=sent.name, source_run_id=run, tags=dict(sent.tags), model_type="onnx"
            )
        with tempfile.TemporaryDirectory() as folder:
            save_onnx(sent, run, model, f"{folder}/model")
            self._client.log_model_artifacts(model.model_id, f"{folder}/model")
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
        return str(model.model_id)

    def end_run(self, run: str, *, failed: bool = False) -> None:
        """A run is over."""
        self._client.set_terminated(run, "FAILED" if failed else "FINISHED")

    def registered_model(self, name: str, description: str) -> None:
        """Create a registered model; one that exists keeps its description."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def find_version(self, name: str, tags: Mapping[str, str]) -> str | None:
        """The number of the version with these tags."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        versions = self._client.search_model_versions(f"name = '{name}' and {condition}")
        return str(versions[0].version) if versions else None

    def create_version(self, name: str, model: str, run: str, tags: Mapping[str, str], description: str) -> str:
        """Register a logged model. Returns the version's number."""
        # A server refuses a logged model whose id is not named beside its address; the embedded store does not ask.
        with as_default(self._uri), once():
            created = self._client.create_model_version(
                name, f"models:/{model}", run, dict(tags), model_id=model, description=description[:_LONGEST]
            )
        return str(created.version)

    def note_version(self, model: str, name: str, number: str) -> None:
        """Name a version in its logged model, where MLflow's pages look for it. A server has done so itself."""
        if _VERSIONS not in self._client.get_logged_model(model).tags:
            entry = json.dumps([{"name": name, "version": number}])
            self._client.set_logged_model_tags(model, {_VERSIONS: entry})

    def models(self) -> list[str]:
        """Names of the registered models."""
        names, page = list[str](), None
        while True:
            found = self._client.search_registered_models(page_token=page)
            names += [model.name for model in found]
            if not (page := found.token):
                return names

    def version(self, name: str, number: str) -> Registered | None:
        """A version by its number, or by `@alias`; None where there is none."""

        def ask() -> ModelVersion:
            if number.startswith("@"):
                return self._client.get_model_version_by_alias(name, number[1:])
            return self._client.get_model_version(name, number)

        found = _if_there(ask)
        return found and Registered(
            name,
            str(found.version),
            str(found.run_id),
            str(found.source),
            dict(found.tags),
            tuple(found.aliases),
        )

    def model_tags(self, name: str) -> Mapping[str, str] | None:
        """The tags of a registered model, None where there is no such model."""
        return _if_there(lambda: dict(self._client.get_registered_model(name).tags))

    def tag_model(self, name: str, key: str, value: str) -> None:
        """Set a tag of a registered model."""
        self._client.set_registered_model_tag(name, key, value)

    def parent(self, run: str) -> str | None:
        """The run that a run is nested in, None where it is in none, or is gone."""
        return _if_there(lambda: self._client.get_run(run).data.tags.get("mlflow.parentRunId"))

    def files_of(self, version: Registered, folder: Path) -> Path | None:
        """A version's files in a folder below this one, None where they are gone."""
        return self._download(self._client.get_model_version_download_uri(version.name, version.number), folder)

    def file_of_run(self, run: str, name: str, folder: Path) -> Path | None:
        """A file, or a folder, of a run's artifacts below this folder, None where it has none of that name."""
        return self._download(f"runs:/{run}/{name}", folder)

    def _download(self, address: str, folder: Path) -> Path | None:
        import mlflow

        folder.mkdir(parents=True, exist_ok=True)
        return _if_there(
            lambda: Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder), tracking_uri=self._uri))
        )

    def point(self, name: str, alias: str, number: str) -> None:
        """Give an alias to a version."""
        self._client.set_registered_model_alias(name, alias, number)


def _if_there(ask: Callable[[], T]) -> T | None:
    """What a server answers, None where it says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):  # the former of a missing alias
            return None
        raise


def _key(name: str) -> str:
    """A name as MLflow takes it: a group or a metric of the user's may have another."""
    return re.sub(r"[^\w.\- :/]", "_", name)[:250]


def _batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    listed = list(items)
    return (listed[i : i + most] for i in range(0, len(listed), most))
