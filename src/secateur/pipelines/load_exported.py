"""Loads the model beside this file. It needs onnxruntime, or torch, safetensors and the code of your own model.

import load
load.session().run(None, {"input": array})     # ONNX Runtime; names of inputs: load.session().get_inputs()
load.module(build_my_model())                  # torch; the weights of the module that is passed do not matter
"""

import json
import runpy
from pathlib import Path

HERE = Path(__file__).resolve().parent


def session(**options):
    """An ONNX Runtime session. options: those of onnxruntime.InferenceSession."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(HERE / "model.onnx"), **options)


def module(dense):
    """The torch module, in evaluation mode: the original one, changed in place to the smaller widths and the trained weights."""
    import torch
    from safetensors.torch import load_file

    if (HERE / "attention.py").is_file():
        dense = runpy.run_path(str(HERE / "attention.py"))["opened"](dense)
    description = json.loads((HERE / "model.json").read_text())
    if description["gates"]:
        dense = runpy.run_path(str(HERE / "gates.py"))["gated"](dense, description["gates"])
    for name, values in description["attributes"].items():
        changed = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        vars(dense.get_submodule(name)).update(changed)
    for name, tensor in load_file(HERE / "model.safetensors").items():
        owner, _, leaf = name.rpartition(".")
        layer = dense.get_submodule(owner)
        setattr(layer, leaf, torch.nn.Parameter(tensor) if leaf in layer._parameters else tensor)
    return dense.eval()
