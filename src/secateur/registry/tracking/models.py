"""ONNX files as MLflow stores models: with signature, input example and requirements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OnnxModel:
    """A file to send as a model. example: an array per input, (n, …); outputs: the answer to it."""

    name: str
    file: Path
    example: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    tags: Mapping[str, str]


def save_onnx(sent: OnnxModel, run: str, model: Any, folder: str) -> None:
    """Write a file as MLflow's model into a folder. run: by which it was made. model: the logged model that it is for."""
    import mlflow
    import onnx
    from mlflow.models import Model, ModelSignature

    named = len(sent.example) > 1
    content = onnx.load(sent.file)
    mlflow.onnx.save_model(
        content,
        folder,
        mlflow_model=Model(
            artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run, model_id=model.model_id
        ),
        signature=ModelSignature(
            # A file with gates has an input more, which need not be given.
            _schema([place for place in content.graph.input if place.name in sent.example], sent.example, named=named),
            _schema(content.graph.output, sent.outputs, named=True),
        ),
        input_example=dict(sent.example) if named else next(iter(sent.example.values())),
        # Given, because inferring them loads the model in a fresh process.
        pip_requirements=[
            f"mlflow=={mlflow.__version__}",
            f"onnxruntime=={version('onnxruntime')}",
            f"numpy=={np.__version__}",
        ],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    copyfile(
        sent.file, Path(folder) / "model.onnx"
    )  # MLflow writes it anew, in other bytes than those that were measured


def _schema(places: Sequence[Any], example: Mapping[str, NDArray[Any]], *, named: bool) -> Any:
    """Tensors of an ONNX graph as MLflow describes them: axes that the file leaves free are -1."""
    from mlflow.types import Schema, TensorSpec

    specs = []
    for place in places:
        shape = tuple(-1 if axis.dim_param else axis.dim_value for axis in place.type.tensor_type.shape.dim)
        specs.append(TensorSpec(example[place.name].dtype, shape, place.name if named else None))
    return Schema(specs)
