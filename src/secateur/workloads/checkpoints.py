"""Read trained weights: safetensors, or a torch checkpoint that loads with `weights_only=True`. Nothing else is unpickled."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from secateur.errors import WorkloadError, first_line, nearest

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load a file into a module, strictly. `module.` prefixes and a wrapping `state_dict` key are taken off.

    Raises WorkloadError where the file is missing, truncated, needs unpickling, or does not fit the module.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WorkloadError(f"The weights file {path} does not exist.")
    state = _read(path)
    wanted = model.state_dict()
    for key in sorted(set(wanted) - set(state)):
        if not key.endswith("num_batches_tracked"):
            raise WorkloadError(f"{path}: there is no tensor '{key}' for {type(model).__name__}.{nearest(key, state)}")
    for key, tensor in state.items():
        if key not in wanted:
            raise WorkloadError(
                f"{path}: the tensor '{key}' has no place in {type(model).__name__}.{nearest(key, wanted)}"
            )
        if tensor.shape != wanted[key].shape:
            raise WorkloadError(
                f"{path}: '{key}' is {tuple(tensor.shape)}; the model needs {tuple(wanted[key].shape)}."
            )
    model.load_state_dict(state, strict=False)
    return model


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise WorkloadError(f"{path} is not a complete safetensors file: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what it does not take is raised
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WorkloadError(
            f"{path} does not load with weights_only=True: it is truncated, or it holds pickled objects, which could run code. "
            "Save only the state dict, with torch.save(model.state_dict(), …) or safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WorkloadError(f"{path} is not a complete checkpoint: {first_line(error)}") from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WorkloadError(f"{path} holds no state dict (a mapping of names to tensors).")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}
