"""What a registered version claims, measured anew: its files are fetched and checked, its figures taken again on this device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from secateur.agent.runtimes import RUNTIMES
from secateur.compression.storage import load_compressed
from secateur.definition import Override, load_pipeline
from secateur.errors import DefinitionError, EvaluationFailed, GateFailed
from secateur.evaluators import Network
from secateur.pipelines.preparation import Prepared, check_device, prepare
from secateur.pipelines.reading import record_of_version
from secateur.pipelines.recovering import ROLE
from secateur.pipelines.state import STATE
from secateur.records import SCORE, Measurement, RunRecord
from secateur.registry import registry
from secateur.registry.history import version_of
from secateur.registry.serving import ONNX, SELECTION, Fetched, fetched
from secateur.registry.tracking import Registered
from secateur.workloads.live import LIVE
from secateur.workloads.roles import digest


@dataclass(frozen=True)
class Figure:
    """A figure as it was registered and as it is now. holds: None where the two cannot be compared here."""

    name: str
    registered: Measurement
    now: Measurement
    holds: bool | None


@dataclass(frozen=True)
class Verification:
    """What is left of a version's claims.

    altered: files whose sha256 is another, or that are gone. notes: what differs from when it was made.
    """

    version: str
    altered: tuple[str, ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]

    def require_held(self) -> None:
        """Raises GateFailed where a file was altered or a figure does not hold."""
        lost = [figure.name for figure in self.figures if figure.holds is False]
        if self.altered or lost:
            parts = [f"its files are not those that were registered ({', '.join(self.altered)})"] * bool(self.altered)
            parts += [f"what does not hold here: {', '.join(lost)}"] * bool(lost)
            raise GateFailed(f"{self.version}: {'; '.join(parts)}.")


def verify(root: Path, name: str, number: str, tracking_uri: str | None) -> Verification:
    """Fetch a version and measure it. root: the project, whose workload and device are used. number: or `@alias`.

    Files that are not those that were registered are named, and then nothing is measured. Raises DefinitionError where there is no
    such version, or where it was not made by secateur from a project, GateFailed where it cannot be run any more, and what
    `prepare` raises.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with registry(root / STATE, tracking_uri) as server:
            version = version_of(server, name, number)
            named, parent = f"'{name}' version {version.number}", server.parent(version.run)
            written = server.file_of_run(parent, "definition.yaml", folder) if parent else None
            record = record_of_version(server, version, folder)
            if written is None or record is None:
                raise DefinitionError(
                    f"{named} cannot be verified: it was not registered by secateur, or its run is gone."
                )
            if record.definition["workload"]["factory"] == LIVE:
                raise DefinitionError(
                    f"{named} cannot be verified: its workload is in the program that called secateur.compress."
                )
            without_training = [Override.parse("recover=null")]
            definition, _ = load_pipeline(str(written), without_training, root)
            found = fetched(server, version, folder, RUNTIMES[definition.evaluator.runtime].format)
        missing = {ONNX, "compressed/compressed.json"} - found.files.keys()
        if missing or found.altered:
            return Verification(named, (*found.altered, *sorted(missing)), (), ())
        with closing(prepare(definition, root)) as prepared:
            check_device(prepared)
            try:
                return _measured(prepared, version, record, found, named)
            except EvaluationFailed as error:
                raise GateFailed(f"{named} does not run here as it was registered: {error}.") from error


def _measured(prepared: Prepared, version: Registered, record: RunRecord, found: Fetched, named: str) -> Verification:
    finalist = next(f for f in record.finalists if f.name == version.tags["secateur.finalist"])
    module = load_compressed(found.files["compressed/compressed.json"].parent, prepared.model)
    macs = int(finalist.measurements["macs"].value)
    converted = found.files.get(f"model.{prepared.evaluator.runtime.format}")
    other = converted.read_bytes() if converted is not None and converted != found.files[ONNX] else None
    network = Network(module, found.files[ONNX].read_bytes(), macs, other, finalist.quantized is not None)
    wanted = dict.fromkeys([SCORE, *record.objectives, *(goal.metric for goal in record.goals), "size"])
    names = [name for name in wanted if name in finalist.measurements]
    now = prepared.evaluator.score(network, ROLE, names).measurements
    notes = _differences(prepared, version, record)
    figures = (
        Figure(
            name, finalist.measurements[name], now[name], _holds(name, finalist.measurements[name], now[name], notes)
        )
        for name in names
    )
    return Verification(named, (), tuple(figures), tuple(notes.values()))


def _differences(prepared: Prepared, version: Registered, record: RunRecord) -> Mapping[str, str]:
    """What is not as it was: `device`, `data`."""
    notes = {}
    if prepared.evaluator.device != record.device:
        notes["device"] = f"It was measured on {record.device}; this is {prepared.evaluator.device}."
    then = version.tags.get(SELECTION)
    if then is not None and digest(getattr(prepared.workload.data, ROLE)) != then:
        notes["data"] = "The selection data are not those on which it was scored."
    return notes


def _holds(name: str, registered: Measurement, now: Measurement, notes: Mapping[str, str]) -> bool | None:
    """A computed figure must be the same, and a measured one have an interval that meets the registered one's."""
    if registered.provenance == "computed":
        return registered.value == now.value
    if registered.interval is None or ("data" if name == SCORE else "device") in notes:
        return None
    low, high = registered.interval
    return low <= now.value <= high if name == SCORE else now.bounds[0] <= high and low <= now.bounds[1]
