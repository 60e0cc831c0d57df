"""How to load what came out of a run, as code to copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.records import Recovered, RunRecord, Version
from secateur.report.summary import knee_of


@dataclass(frozen=True)
class Snippet:
    """A few lines of Python."""

    title: str
    code: str


def snippets(record: RunRecord, versions: Sequence[Version]) -> list[Snippet]:
    """For the knee, or the first finalist that has files: ONNX Runtime, MLflow where it is registered, PyTorch."""
    shown = knee_of(record) or next((f for f in record.finalists if f.failure is None), None)
    if shown is None:
        return []
    listed = [Snippet("ONNX Runtime", _onnx(shown))]
    version = next((v for v in versions if v.finalist == shown.name), None)
    if version is not None:
        listed.append(Snippet("MLflow", _mlflow(record, version)))
    return [*listed, Snippet("PyTorch", _torch(shown))]


def _onnx(finalist: Recovered) -> str:
    return (
        "# in the run's folder, where this report lies\n"
        "import onnxruntime\n\n"
        f'session = onnxruntime.InferenceSession("{finalist.folder}/model.onnx")\n'
        "name = session.get_inputs()[0].name\n"
        "(output,) = session.run(None, {name: batch})  # batch: float32 NumPy array"
    )


def _mlflow(record: RunRecord, version: Version) -> str:
    server = (record.definition.get("register") or {}).get("tracking_uri")
    store = (
        "# MLFLOW_TRACKING_URI names the tracking server\n"
        if server
        else "# in the project folder; without the next line where MLFLOW_TRACKING_URI names a server\n"
        'mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")\n'
    )
    reference = f"@{version.aliases[0]}" if version.aliases else f"/{version.version}"
    return (
        f"import mlflow\n\n{store}"
        f'model = mlflow.pyfunc.load_model("models:/{version.name}{reference}")\n'
        'output = model.predict(batch)["output"]  # batch: float32 NumPy array'
    )


def _torch(finalist: Recovered) -> str:
    twin = f"# torch runs no int8 model: this is {finalist.quantized.of} in float32\n" if finalist.quantized else ""
    return (
        f"{twin}"
        "# in the run's folder; relative paths of the workload are taken from the working directory\n"
        "import secateur\n\n"
        f'module = secateur.load_compressed("{finalist.compressed}")  # torch.nn.Module, float32, eval mode'
    )
