"""The end of a run that has been judged: it is registered, and its report says where. It needs no torch: nothing is computed."""

from __future__ import annotations

import json

from secateur.files import write
from secateur.logs import logging_to
from secateur.pipelines.dashboard import show_registered
from secateur.pipelines.example import load_example
from secateur.pipelines.listener import Listener, logged, reporting, together
from secateur.pipelines.outcome import Outcome
from secateur.pipelines.reading import VERSIONS, read_record, versions_of
from secateur.pipelines.state import DATABASE, RunFolder, locked
from secateur.records import RunRecord, Version
from secateur.registry import Package, Target, publish
from secateur.report.page import write_report
from secateur.search.storage import storage_errors


def finish_run(run: RunFolder, listener: Listener | None = None) -> Outcome:
    """Register a run that has been judged: what is left after a tracking server was down. Sent once, however often it is called.

    Raises StateError where the run has not got that far, and what `run_pipeline` raises at its end.
    """
    record = read_record(run)
    with locked(run), logging_to(run.log), storage_errors(run.state / DATABASE):
        return finish(run, record, together(reporting(logged), listener or Listener()))


def finish(run: RunFolder, record: RunRecord, listener: Listener) -> Outcome:
    """Register a run where its definition says so, once: since then its version may have been taken back.

    Raises RegistryUnreachable and StateError.
    """
    report = run.path / "report.html"
    if run.done:
        return Outcome(record, run.path, report, versions_of(run))
    versions: list[Version] | None = None
    register = record.definition.get("register")
    if register is not None:
        listener.stage("register")
        example = load_example(run)
        digests = json.loads((run.path / "data.json").read_text(encoding="utf-8"))
        package = Package(record, run.path, run.state, example.inputs, example.outputs, digests)
        published = publish(package, Target.of(register))
        versions = published.versions
        write_report(record, report, versions)
        show_registered(run, record, published)
        write(run.path / "registry.json", VERSIONS.dump_json(versions, indent=1))
    write(run.path / "done", "")
    return Outcome(record, run.path, report, versions)
