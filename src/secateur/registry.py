"""The one door to MLflow: a run's record and files, sent once, however often it is tried.

Nothing is logged while a search runs: a dead tracking server blocks every call for minutes. The run writes everything to disk;
`publish` sends it, finds by tags what an earlier attempt has already sent, and registers last.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.databases import Schema, ensure
from secateur.errors import RegistryUnreachable, first_line
from secateur.files import sha256_of
from secateur.records import Measurement, Recovered, RunRecord, Version
from secateur.redaction import scrubbed

_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""MLflow's own defaults wait four minutes for a server that is down. What the user has set stands."""

DENSE = "dense"
DATABASE = "mlflow.db"
"""The embedded database, in the project's state folder; `artifacts/` beside it."""


def _make_database(file: Path) -> None:
    """Run MLflow's migrations on a new file. It syncs to disk after each of them, which only a file in its place needs."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine, event

    def hurry(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    try:
        SqlAlchemyStore(f"sqlite:///{file}", (file.parent / "artifacts").resolve().as_uri()).engine.dispose()
    finally:
        event.remove(Engine, "connect", hurry)


_SCHEMA = Schema("MLflow", ("alembic_version", "experiments"), ("runs", "registered_models"), _make_database)


def open_embedded(state: Path) -> None:
    """Make the embedded database of a project where there is none, or only half of one. Raises StateError."""
    ensure(state / DATABASE, _SCHEMA)


@dataclass(frozen=True)
class Target:
    """Where to publish: the registered model's name and alias, and the server; None is the embedded database."""

    name: str
    alias: str
    tracking_uri: str | None


@dataclass(frozen=True)
class Package:
    """What lies on disk for one run.

    example: one array per model input, the input example of the registered models. output: the model's answer to it.
    """

    record: RunRecord
    folder: Path
    state: Path
    example: Mapping[str, NDArray[Any]]
    output: NDArray[Any]


@dataclass(frozen=True)
class Published:
    """What a tracking server holds of a run. runs: MLflow's run id of each part: our run id, `dense`, a finalist's name."""

    versions: list[Version]
    runs: Mapping[str, str]


def publish(package: Package, target: Target) -> Published:
    """Send a run: a parent run, a nested run for the dense model and for each finalist, a version for each survivor.

    Raises RegistryUnreachable where the server does not answer; calling again goes on where this stopped.
    """
    with _process_as_it_was():
        return _published(package, target)


@contextlib.contextmanager
def _process_as_it_was() -> Iterator[None]:
    """MLflow keeps its server in the process and in the environment: what else a notebook logs must not land there afterwards."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_DISABLE_TELEMETRY", *_PATIENCE)
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        import mlflow

        mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])  # whoever sets it by a call sets the variable as well
        mlflow.set_registry_uri(before["MLFLOW_REGISTRY_URI"] or "")
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _published(package: Package, target: Target) -> Published:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for key, value in _PATIENCE.items():
        os.environ.setdefault(key, value)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    uri = target.tracking_uri or f"sqlite:///{(package.state / DATABASE).resolve()}"
    try:
        if target.tracking_uri is None:
            open_embedded(package.state)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        return _Publisher(package, target, embedded=target.tracking_uri is None).publish()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RegistryUnreachable(
            f"MLflow at {scrubbed(uri)} could not take run {package.record.run_id}: {first_line(error)}. Everything is "
            f"in {package.folder}; send it later with: secateur flush {package.record.run_id}{_from_here(package.state.parent)}"
        ) from error


def _from_here(project: Path) -> str:
    """The option that finds a project from the current folder; nothing where it is the current one."""
    return "" if project.resolve() == Path.cwd() else f" --project {project}"


class _Publisher:
    def __init__(self, package: Package, target: Target, *, embedded: bool) -> None:
        from mlflow import MlflowClient

        self.package, self.target, self.embedded = package, target, embedded
        self.record = package.record
        self.client = MlflowClient()

    def publish(self) -> Published:
        experiment = self._experiment()
        parent = self._run(experiment, self.record.run_id, {"secateur.kind": "pipeline"}, parent=None)
        if parent is not None:
            self._log_parent(parent)
        parent_id = self._find(experiment, self.record.run_id)
        self._dense_run(experiment, parent_id)
        versions, runs = [], {self.record.run_id: parent_id, DENSE: self._find(experiment, DENSE)}
        for finalist in self.record.finalists:
            if finalist.failure is None:
                run_id, model_uri = self._finalist_run(experiment, parent_id, finalist)
                runs[finalist.name] = run_id
                if finalist in self.record.registered:
                    versions.append(self._version(finalist, run_id, model_uri))
        self.client.set_terminated(parent_id)
        return Published(versions, runs)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.record.name)
        if found is not None:
            return str(found.experiment_id)
        location = f"file://{(self.package.state / 'artifacts').resolve()}" if self.embedded else None
        return str(self.client.create_experiment(self.record.name, artifact_location=location))

    def _find(self, experiment: str, name: str) -> str:
        runs = self.client.search_runs(
            [experiment],
            f"tags.`secateur.run_id` = '{self.record.run_id}' and tags.`secateur.part` = '{name}'",
            max_results=1,
        )
        return str(runs[0].info.run_id) if runs else ""

    def _run(self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None) -> str | None:
        """A new run for a part of the package; None where an earlier attempt has finished it. A half-sent one is deleted."""
        found = self._find(experiment, name)
        if found:
            run = self.client.get_run(found)
            if run.data.tags.get("secateur.sent") == "true":
                return None
            self.client.delete_run(found)
        nested = {"mlflow.parentRunId": parent} if parent else {}
        created = self.client.create_run(
            experiment,
            run_name=name,
            tags={"secateur.run_id": self.record.run_id, "secateur.part": name, **tags, **nested},
        )
        return str(created.info.run_id)

    def _sent(self, run_id: str) -> None:
        self.client.set_tag(run_id, "secateur.sent", "true")
        self.client.set_terminated(run_id)

    def _log_parent(self, run_id: str) -> None:
        for key, value in self.record.environment.items():
            self.client.set_tag(run_id, f"secateur.{key}", value)
        self.client.set_tag(run_id, "secateur.device", self.record.device)
        for key, value in _flat(self.record.definition):
            self.client.log_param(run_id, key, value)
        own = [t for t in self.record.trials if t.same_as is None]
        self.client.log_metric(run_id, "trials", len(own))
        self.client.log_metric(run_id, "finalists", len(self.record.finalists))
        self.client.log_metric(run_id, "registered", len(self.record.registered))
        for stage, seconds in self.record.seconds.items():
            self.client.log_metric(run_id, f"seconds.{stage}", seconds)
        for name in ("definition.yaml", "record.json", "report.html"):
            if (self.package.folder / name).is_file():
                self.client.log_artifact(run_id, str(self.package.folder / name))
        self._sent(run_id)

    def _dense_run(self, experiment: str, parent: str) -> None:
        run_id = self._run(experiment, DENSE, {"secateur.kind": "dense"}, parent)
        if run_id is not None:
            for role, measurements in self.record.dense.items():
                self._log_measurements(run_id, measurements, role)
            self.client.log_artifact(run_id, str(self.package.folder / DENSE / "model.onnx"))
            self._sent(run_id)

    def _finalist_run(self, experiment: str, parent: str, finalist: Recovered) -> tuple[str, str]:
        """Run id and model URI of a finalist, logged now or by an earlier attempt."""
        run_id = self._run(experiment, finalist.name, {"secateur.kind": "finalist"}, parent)
        if run_id is None:
            run_id = self._find(experiment, finalist.name)
            return run_id, self.client.get_run(run_id).data.tags["secateur.model_uri"]
        self._log_measurements(run_id, finalist.searched, "search")
        self._log_measurements(run_id, finalist.measurements, "selection")
        if finalist.test is not None:
            self._log_measurements(run_id, {"accuracy": finalist.test}, "test")
        for name, cut in finalist.candidate.cuts.items():
            self.client.log_param(run_id, f"{name}.kept", cut.kept)
            if cut.method is not None:
                self.client.log_param(run_id, f"{name}.method", cut.method)
        folder = self.package.folder / finalist.folder
        self.client.log_artifacts(run_id, str(folder / "compressed"), "compressed")
        for converted in set(folder.glob("model.*")) - {folder / "model.onnx"}:
            self.client.log_artifact(run_id, str(converted))
        model_uri = self._log_model(run_id, folder / "model.onnx")
        self.client.set_tag(run_id, "secateur.model_uri", model_uri)
        self._sent(run_id)
        return run_id, model_uri

    def _log_model(self, run_id: str, file: Path) -> str:
        import mlflow
        import onnx
        from mlflow.models import infer_signature

        example = dict(self.package.example)
        given = example if len(example) > 1 else next(iter(example.values()))
        with _resumed(mlflow, run_id):
            logged = mlflow.onnx.log_model(
                onnx.load(file),
                name="model",
                signature=infer_signature(given, {"output": self.package.output}),
                input_example=given,
                # Given, because inferring them loads the model in a fresh process.
                pip_requirements=[
                    f"mlflow=={mlflow.__version__}",
                    f"onnxruntime=={_installed('onnxruntime')}",
                    f"numpy=={np.__version__}",
                ],
                onnx_execution_providers=["CPUExecutionProvider"],
                save_as_external_data=False,
            )
        return str(logged.model_uri)

    def _version(self, finalist: Recovered, run_id: str, model_uri: str) -> Version:
        from mlflow.exceptions import MlflowException

        name = self.target.name
        tags = self._version_tags(finalist)
        with contextlib.suppress(MlflowException):  # it exists already; any other trouble shows in the next call
            self.client.create_registered_model(name)
        found = self.client.search_model_versions(
            f"name = '{name}' and tags.`secateur.run_id` = '{self.record.run_id}' and tags.`secateur.finalist` = '{finalist.name}'"
        )
        version = (
            found[0]
            if found
            # A server refuses a logged model whose id is not named beside its URI; the embedded store does not ask.
            else self.client.create_model_version(
                name, model_uri, run_id, tags, model_id=model_uri.removeprefix("models:/")
            )
        )
        aliases = (self.target.alias,) if finalist.name == self.record.knee else ()
        for alias in aliases:
            self._point(alias, str(version.version))
        return Version(name, str(version.version), aliases, run_id, tags["secateur.onnx_sha256"], finalist.name)

    def _point(self, alias: str, version: str) -> None:
        """Give the alias to a version, unless a run that was started later has it: an old run may be flushed late."""
        from mlflow.exceptions import MlflowException

        holder = None
        with contextlib.suppress(MlflowException):  # nobody has it yet
            holder = self.client.get_model_version_by_alias(self.target.name, alias)
        if holder is None or holder.tags.get("secateur.started", "") <= self.record.started:
            self.client.set_registered_model_alias(self.target.name, alias, version)

    def _version_tags(self, finalist: Recovered) -> dict[str, str]:
        tags = {
            "secateur.run_id": self.record.run_id,
            "secateur.started": self.record.started,
            "secateur.finalist": finalist.name,
            "secateur.device": self.record.device,
            "secateur.onnx_sha256": sha256_of(self.package.folder / finalist.folder / "model.onnx"),
            "secateur.rule": "knee of the front" if finalist.name == self.record.knee else "on the front",
        }
        for name, measurement in finalist.measurements.items():
            tags[f"secateur.{name}"] = f"{measurement.value:.6g}"
        if finalist.test is not None:
            tags["secateur.test_accuracy"] = f"{finalist.test.value:.6g}"
        for name, change in (("change", finalist.change), ("test_change", finalist.test_change)):
            if change is not None:
                tags[f"secateur.{name}"] = "{:.6g} ({:.6g} to {:.6g})".format(change.value, *change.bounds)
        if finalist.veto is not None:
            tags["secateur.no_alias"] = finalist.veto
        return tags

    def _log_measurements(self, run_id: str, measurements: Mapping[str, Measurement], role: str) -> None:
        for name, measurement in measurements.items():
            self.client.log_metric(run_id, f"{role}.{name}", measurement.value)
            if measurement.interval is not None:
                self.client.log_metric(run_id, f"{role}.{name}.low", measurement.interval[0])
                self.client.log_metric(run_id, f"{role}.{name}.high", measurement.interval[1])
            for detail, value in measurement.details.items():
                self.client.log_metric(run_id, f"{role}.{name}.{detail}", value)


@contextlib.contextmanager
def _resumed(mlflow: Any, run_id: str) -> Iterator[None]:
    """The fluent interface, which alone logs models, on a run that the client made."""
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        yield


def _installed(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and short values, as MLflow's parameters want them."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value is not None:
            yield name, str(value)[:500]
