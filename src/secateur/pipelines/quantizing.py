"""Finalists in int8: twins of the tuned ones and of the original, made of their files and measured as they are.

finalists/NAME-int8/model.onnx     made once
finalists/NAME-int8/result.json    measured
dense/compressed/                  the original as finalists are kept: the torch module of `dense-int8`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from secateur.compression.storage import save_compressed
from secateur.errors import DataUnreadable, EvaluationFailed, ModelError
from secateur.evaluators import Network
from secateur.files import write
from secateur.pipelines.exporting import network_of
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.recovering import OWN_FAULTS, ROLE, Recovery
from secateur.records import CompressedModel, Plan, Quantized, Recovered
from secateur.registry import DENSE


def give_int8(prepared: Prepared, folder: Path) -> None:
    """Make the original's file in int8: what cannot be quantized shows before the search. Raises ModelError."""
    try:
        _quantized(prepared, prepared.evaluator.files.dense, folder)
    except EvaluationFailed as error:
        raise ModelError(f"No int8 models can be made: {error}. Leave 'int8' out of 'quantize'.") from error


def int8_twins(recovery: Recovery, finalists: Iterable[Recovered]) -> Iterator[Recovered]:
    """A twin in int8 of the original, and of each finalist that has figures; each is given out when it is measured."""
    yield _twin(recovery, _original(recovery))
    for finalist in finalists:
        if finalist.failure is None:
            yield _twin(recovery, finalist)


def name_of(twin: str) -> str:
    """The name of an int8 finalist, and of its folder. twin: the name of the one in float32."""
    return f"{twin}-int8"


def _original(recovery: Recovery) -> Recovered:
    """The original as a finalist that nothing was done to."""
    prepared, run = recovery.prepared, recovery.run
    compressed = CompressedModel(prepared.space.dense(), Plan(), prepared.model)
    folder = run.folder(DENSE)
    if not (folder / "compressed" / "compressed.json").is_file():  # written last
        save_compressed(compressed, prepared.model, prepared.definition.workload.as_written, folder / "compressed")
    return Recovered(DENSE, None, compressed.candidate, {}, {}, DENSE, epochs=0, seconds=0.0)


def _twin(recovery: Recovery, finalist: Recovered) -> Recovered:
    """The int8 twin of a finalist, with its figures or its failure."""
    name, evaluator = name_of(finalist.name), recovery.prepared.evaluator
    if (done := recovery.done(name)) is not None:
        return done
    folder = recovery.run.folder("finalists", name)
    made = Quantized(finalist.name, finalist.folder)
    twin = replace(
        finalist,
        name=name,
        folder=str(folder.relative_to(recovery.run.path)),
        searched={},
        measurements={},
        losses=(),
        curve=(),
        scores=(),
        stopped=None,
        on_search=None,
        patterns={},
        quantized=made,
    )
    recovery.step(f"quantizing {finalist.name}")
    try:
        network = evaluator.files.dense
        if finalist.name != DENSE:
            network = network_of(recovery.prepared, finalist, recovery.run)
        with recovery.watch.stage("recover.quantizing"):
            quantized = _quantized(recovery.prepared, network, folder)
            deviation = evaluator.deviation(quantized, network, ROLE)
    except DataUnreadable:
        raise
    except OWN_FAULTS as error:
        return recovery.kept(replace(twin, failure=str(error)))
    recovery.step(f"measuring {name}")
    return recovery.kept(recovery.measured(replace(twin, quantized=replace(made, deviation=deviation)), quantized))


def _quantized(prepared: Prepared, network: Network, folder: Path) -> Network:
    """A network in int8, made once. folder: of its file."""
    file = folder / "model.onnx"
    if file.is_file():
        return replace(network, onnx=file.read_bytes(), quantized=True)
    made = prepared.evaluator.files.quantized(network)
    write(file, made.onnx)
    return made
