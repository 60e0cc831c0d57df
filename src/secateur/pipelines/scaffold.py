"""`secateur init`: the three folders, and a pipeline with a comment for every line a person may want to change."""

from __future__ import annotations

import json
import os
from pathlib import Path

from secateur.compression.groups import FoundGroups, find_groups
from secateur.definition import WorkloadReference, shipped
from secateur.errors import StateError
from secateur.files import write
from secateur.pipelines.catalogue import schemas
from secateur.workloads.loading import build_model, load_workload

_EXAMPLE = '''"""The workload: your trained model and its data. Replace the bodies; keep the names."""

import torch
from torch.utils.data import TensorDataset

from secateur import Workload
from secateur.workloads.roles import split_roles
from secateur.workloads.scores import top1


def build_model() -> torch.nn.Module:
    """Your trained network. `secateur.workloads.checkpoints.load_weights(model, path)` reads weights safely."""
    torch.manual_seed(0)  # the same weights at every call; loaded ones are
    layers = [torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU()]
    layers += [torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10))


def workload() -> Workload:
    """Model, example inputs, data roles, loss and score. `secateur check` says whether they fit together."""
    images = torch.randn(2000, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 10, (2000,), generator=torch.Generator().manual_seed(1))
    return Workload(
        name="mine",
        build_model=build_model,
        example_inputs=(images[:2],),
        data=split_roles(TensorDataset(images, labels)),  # five disjoint roles; better: give test=, selection=, search=
        loss=torch.nn.functional.cross_entropy,
        score=top1,
    )
'''

_PIPELINE = """# yaml-language-server: $schema=../schemas/pipeline.json
# Check it with `secateur check {name}`, run it with `secateur run {name}`.
name: {name}
workload: {workload} # module:attribute or path/to/file.py:attribute

# Which groups of layers may lose channels. `search_space: cnn_channels` would take search_spaces/cnn_channels.yaml as it is.
search_space:
  groups:
    - match: "*" # glob on group names; the first rule that matches a group decides
      types: [Conv2d, Linear]
      methods: [l2, next_layer, fpgm, taylor, bn_scale, obs] # `secateur list methods`
      removed: [0.0, 0.8] # fraction of a group's channels
      multiple_of: 8 # widths that hardware likes
      at_least: 8
{groups}
evaluator: local_cpu # evaluators/local_cpu.yaml: objectives, constraints, runtime, device

search: {{sampler: tpe, trials: 60, seed: 0}} # `secateur list samplers`
recover: {{epochs: 3, finalists: 4, learning_rate: 0.02, batch: 128, distill: {{temperature: 4.0, weight: 0.9}}}}
register: {{name: {name}}} # MLflow; the best version gets the alias `candidate`
"""

_IGNORED = "mlruns/\n__pycache__/\n"


def lay_out(folder: Path, workload: str | None) -> list[Path]:
    """Write a project. workload: the user's factory; its groups are listed in the pipeline. Returns the files written.

    Raises StateError where one of the files exists already: nothing is overwritten.
    """
    files: dict[Path, str] = {}
    reference = workload or "my_model.py:workload"
    if workload is None:
        files[folder / "my_model.py"] = _EXAMPLE
        groups = "  # Once the model is yours, `secateur check compress` lists its groups by name.\n  exclude: []\n"
    else:
        root = folder if (folder / workload.split(":")[0]).exists() else Path.cwd()
        groups = _listed(_find_groups(workload, root))
        if ".py:" in workload:  # from here on it is seen from the new folder
            reference = os.path.relpath(root / workload, folder)
    files[folder / "pipelines" / "compress.yaml"] = _PIPELINE.format(name="compress", workload=reference, groups=groups)
    for kind, name in (("search_spaces", "cnn_channels"), ("evaluators", "local_cpu")):
        text = (shipped(kind) / f"{name}.yaml").read_text(encoding="utf-8")
        files[folder / kind / f"{name}.yaml"] = text.replace("../docs/schemas/", "../schemas/")
    for name, schema in schemas().items():
        files[folder / "schemas" / f"{name}.json"] = json.dumps(schema, indent=2) + "\n"
    if not (folder / ".gitignore").exists():
        files[folder / ".gitignore"] = _IGNORED
    existing = [file for file in files if file.exists()]
    if existing:
        raise StateError(f"{existing[0]} exists already; nothing was written. Choose another folder, or move it away.")
    for file, text in files.items():
        write(file, text)
    return list(files)


def _find_groups(reference: str, root: Path) -> FoundGroups:
    """The groups of the model that a factory builds. root: what its path is relative to."""
    loaded = load_workload(WorkloadReference(factory=reference), root)
    return find_groups(build_model(loaded), loaded.example_inputs)


def _listed(found: FoundGroups) -> str:
    """Every group as a commented exclusion, with what it weighs."""
    lines = [
        "  # Groups of this model. Take the # away in front of those that must stay whole, and remove the []:",
        "  exclude: []",
    ]
    width = max(len(group.name) for group in found.groups)
    for group in found.groups:
        layers = len({member.module for member in group.members})
        lines.append(
            f"  #  - {group.name:<{width}}  # {group.layer_type}, {group.width} channels, {layers} coupled layers, "
            f"{group.parameters:,} parameters"
        )
    lines += [f"  # stays whole: {entry.name} ({entry.reason})" for entry in found.excluded]
    return "\n".join(lines) + "\n"
