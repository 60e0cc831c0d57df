"""The order in which a run is sent, so that it is sent once: each part is found by its tags, and marked when it is whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from secateur.errors import RegistryUnreachable, first_line
from secateur.files import sha256_of
from secateur.formatting import outcome
from secateur.records import Comparison, Recovered, Version
from secateur.redaction import scrubbed
from secateur.registry.contents import (
    Figures,
    data_sets,
    dense_points,
    figures_file,
    finalist_figures,
    finalist_parameters,
    finalist_points,
    origin,
    parameters,
    run_points,
    status,
    version_tags,
)
from secateur.registry.embedded import ARTIFACTS, open_embedded
from secateur.registry.history import moved, settle
from secateur.registry.model_card import dense_description, model_card, model_description, run_description
from secateur.registry.package import DENSE, Package, Published, Target
from secateur.registry.tracking import OnnxModel, Tracking, TrackingError, tracking

_SENT = "secateur.sent"
_MODEL = "secateur.model_id"
_NOTE = "mlflow.note.content"
_FIGURES = "figures.json"
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Marks training as the experiment's kind. Which mode the pages of an MLflow server open in is a setting of each browser's."""


def publish(package: Package, target: Target) -> Published:
    """Send a run: a parent run, a nested run for the dense model and for each finalist, a version for each survivor.

    Raises RegistryUnreachable where the server does not answer; calling again goes on where this stopped. Raises StateError where
    the embedded database cannot be used.
    """
    uri = target.tracking_uri
    try:
        if uri is None:
            uri = open_embedded(package.state)
        with tracking(uri) as server:
            return _Publisher(package, target, server).publish()
    except TrackingError as error:
        raise RegistryUnreachable(
            f"MLflow at {scrubbed(uri or str(package.state))} could not take run {package.record.run_id}: {first_line(error)}. "
            f"Everything is in {package.folder}; send it later with: secateur flush "
            f"{package.record.run_id}{_from_here(package.state.parent)}"
        ) from error


def _from_here(project: Path) -> str:
    """The option that finds a project from the current folder; nothing where it is the current one."""
    return "" if project.resolve() == Path.cwd() else f" --project {project}"


class _Publisher:
    def __init__(self, package: Package, target: Target, server: Tracking) -> None:
        self.package, self.target, self.server = package, target, server
        self.record = package.record
        location = None if target.tracking_uri else (package.state / ARTIFACTS).resolve().as_uri()
        self.experiment = server.experiment(self.record.name, location, _KIND)

    def publish(self) -> Published:
        parent = self._parent()
        runs = {self.record.run_id: parent, DENSE: self._dense(parent)}
        versions = []
        for finalist in self.record.finalists:
            runs[finalist.name], model = self._finalist(parent, finalist)
            if self._registered(finalist):
                versions.append(self._version(finalist, runs[finalist.name], model))
        self.server.end_run(parent)
        return Published(versions, runs)

    def _registered(self, finalist: Recovered) -> bool:
        """Whether it gets a version: a knee that has failed the gate may be left out."""
        comparison = self.record.comparison
        failed = comparison is not None and comparison.finalist == finalist.name and not comparison.passed
        return finalist in self.record.registered and not (failed and self.target.leaves_out)

    def _begun(self, part: str, tags: Mapping[str, str]) -> tuple[str, Mapping[str, str] | None]:
        """The run of a part, and its tags where an earlier attempt has finished it. Half-sent ones are deleted."""
        named = {"secateur.run_id": self.record.run_id, "secateur.part": part}
        while (earlier := self.server.find_run(self.experiment, named)) is not None:
            run, present = earlier
            if present.get(_SENT) == "true":
                return run, present
            self.server.discard_run(self.experiment, run)
        return self.server.create_run(self.experiment, part, {**named, **origin(self.record), **tags}), None

    def _parent(self) -> str:
        record = self.record
        run, sent = self._begun(record.run_id, {"secateur.kind": "pipeline", _NOTE: run_description(record)})
        if sent is None:
            environment = {f"secateur.{key}": value for key, value in record.environment.items()}
            self.server.log_data(run, data_sets(self.package).values())
            for name in ("definition.yaml", "record.json", "report.html"):
                if (self.package.folder / name).is_file():
                    self.server.log_file(run, self.package.folder / name)
            self._log_last(run, environment | {"secateur.device": record.device})
        return run

    def _log_last(self, run: str, tags: Mapping[str, str]) -> None:
        self.server.log(run, run_points(self.package), parameters(self.record), {**tags, _SENT: "true"})

    def _dense(self, parent: str) -> str:
        tags = {"secateur.kind": "dense", "mlflow.parentRunId": parent, _NOTE: dense_description(self.record)}
        run, sent = self._begun(DENSE, tags)
        if sent is None:
            self.server.log_file(run, self.package.folder / DENSE / "model.onnx")
            self._log_figures(run, self.record.dense)
            self.server.log(run, dense_points(self.package))
            self._end(run)
        return run

    def _end(self, run: str, model: str = "", *, failed: bool = False) -> None:
        """Mark a run as sent once it is over, so that one which an attempt leaves open is found and sent anew."""
        self.server.end_run(run, failed=failed)
        self.server.log(run, tags={_SENT: "true"} | ({_MODEL: model} if model else {}))

    def _log_figures(self, run: str, figures: Figures) -> None:
        self.server.log_data(run, data_sets(self.package, figures).values())
        self.server.log_document(run, _FIGURES, figures_file(figures))

    def _finalist(self, parent: str, finalist: Recovered) -> tuple[str, str]:
        """Run id and logged model's id of a finalist, sent now or by an earlier attempt. A failed one has no model."""
        record = self.record
        tags = {
            "secateur.kind": "finalist",
            "secateur.status": status(record, finalist),
            "mlflow.parentRunId": parent,
            _NOTE: model_card(
                record,
                finalist,
                self.target if self._registered(finalist) else None,
            ),
        }
        run, sent = self._begun(finalist.name, tags)
        if sent is not None:
            return run, sent.get(_MODEL, "")
        folder, model = self.package.folder / finalist.folder, ""
        if finalist.failure is None:
            self.server.log_file(run, self.package.folder / finalist.compressed, "compressed")
            for converted in set(folder.glob("model.*")) - {folder / "model.onnx"}:
                self.server.log_file(run, converted)
            named = {"secateur.status": status(record, finalist), "secateur.run_id": record.run_id}
            onnx = OnnxModel(finalist.name, folder / "model.onnx", self.package.example, self.package.outputs, named)
            model = self.server.log_onnx(self.experiment, run, onnx)
        self._log_figures(run, finalist_figures(record, finalist))
        self.server.log(
            run,
            finalist_points(self.package, finalist),
            finalist_parameters(record, finalist),
            model=model or None,
        )
        self._end(run, model, failed=finalist.failure is not None)
        return run, model

    def _version(self, finalist: Recovered, run: str, model: str) -> Version:
        record, name = self.record, self.target.name
        sha256 = sha256_of(self.package.folder / finalist.folder / "model.onnx")
        self.server.registered_model(name, model_description(record, self.target))
        number = self.server.find_version(
            name, {"secateur.run_id": record.run_id, "secateur.finalist": finalist.name}
        ) or self.server.create_version(
            name, model, run, version_tags(self.package, finalist), model_card(record, finalist, self.target)
        )
        self.server.note_version(model, name, number)
        aliases: list[str] = []
        if status(record, finalist) == "knee":
            self._point(self.target.alias, number)
            aliases.append(self.target.alias)
            if record.comparison is not None and self.target.promotes and self._promoted(record.comparison, number):
                aliases.append(record.comparison.alias)
        return Version(name, number, tuple(aliases), run, sha256, finalist.name)

    def _promoted(self, comparison: Comparison, number: str) -> bool:
        """Let a version serve that has passed the gate, unless another one serves by now than it was compared with."""
        name, alias = self.target.name, comparison.alias
        holder = self.server.version(name, f"@{alias}")
        if holder is not None and holder.number == number:  # an earlier attempt has done it, and may not have said so
            settle(self.server, name)
            return True
        if (holder.number if holder else None) != comparison.version:
            logging.getLogger("secateur").warning(
                "@%s of %s has moved since version %s was compared with it: nothing was promoted.", alias, name, number
            )
            return False
        version = self.server.version(name, number)
        assert version is not None  # noqa: S101 # it has just been made
        moved(self.server, version, alias, "gate", f"run {self.record.run_id}: {outcome(comparison)}")
        return True

    def _point(self, alias: str, number: str) -> None:
        """Give the alias to a version, unless a run that was started later has it: an old run may be flushed late."""
        holder = self.server.version(self.target.name, f"@{alias}")
        if holder is None or holder.tags.get("secateur.started", "") <= self.record.started:
            self.server.point(self.target.name, alias, number)
