"""Import the user's factory, call it, and check what it returns before anything long begins."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.definition import WorkloadReference, one_of
from secateur.errors import DefinitionError, WorkloadError, nearest
from secateur.records import ROLES, DataRoles, Workload
from secateur.workloads import WORKLOADS
from secateur.workloads.attention import opened
from secateur.workloads.calls import calling, guarded
from secateur.workloads.functions import checked_loss, checked_output, checked_score, usable_as_score
from secateur.workloads.live import found as found_live
from secateur.workloads.pytrees import INPUT, length, named, tensors
from secateur.workloads.roles import check_roles
from secateur.workloads.samples import Samples, collate_of, map_style


def load_workload(reference: WorkloadReference, root: Path) -> Workload:
    """Call the factory of a definition. root: the project's folder, from which paths and the user's modules are found.

    Raises DefinitionError where the factory or one of its options does not exist, WorkloadError where it raises or where what
    it returns cannot be used (overlapping data roles included).
    """
    if (live := found_live(reference)) is not None:
        return guarded_workload(live)
    if reference.factory in WORKLOADS:
        factory = WORKLOADS[reference.factory]
    else:
        factory = load_attribute(reference.factory, root, reference.where("factory"), "workload factory")
    _check_options(factory, reference)
    with calling(f"{reference.where()}: the workload factory {reference.factory}"):
        workload = factory(**reference.options)
    if not isinstance(workload, Workload):
        raise WorkloadError(
            f"{reference.where()}: {reference.factory} returned a {type(workload).__name__}; a secateur.Workload is needed."
        )
    return guarded_workload(workload)


def guarded_workload(workload: Workload) -> Workload:
    """The same workload, checked: whatever its code raises is one line, and its roles are map-style data sets.

    Raises WorkloadError where a field is of the wrong type or where data roles are empty, without length, or overlap.
    """
    _check_fields(workload)
    data = {role: map_style(getattr(workload.data, role), role) for role in ROLES}
    roles = DataRoles(
        **{role: Samples(dataset, collate_of(dataset), role, workload.example_inputs) for role, dataset in data.items()}
    )
    check_roles(roles)
    return replace(
        workload,
        data=roles,
        loss=checked_loss(workload.loss),
        score=checked_score(workload.score),
        output=checked_output(workload.output),
        augment=guarded(workload.augment, "The workload's augment") if workload.augment is not None else None,
        slices=guarded(workload.slices, "The workload's slices") if workload.slices is not None else None,
    )


def _check_fields(workload: Workload) -> None:
    if not usable_as_score(workload.score):
        raise WorkloadError(
            f"The workload's score is a {type(workload.score).__name__}, neither a function nor an object with update and compute."
        )
    for name in ("build_model", "loss", "output"):
        if not callable(getattr(workload, name)):
            raise WorkloadError(f"The workload's {name} is a {type(getattr(workload, name)).__name__}, not a function.")
    for name in ("augment", "slices"):
        function = getattr(workload, name)
        if function is not None and not callable(function):
            raise WorkloadError(f"The workload's {name} is a {type(function).__name__}, not a function.")
    if not isinstance(workload.data, DataRoles):
        raise WorkloadError(
            f"The workload's data is a {type(workload.data).__name__}; make DataRoles, with "
            "secateur.workloads.roles.split_roles for example."
        )
    _check_example(workload.example_inputs)
    _check_axes(workload.dynamic_axes, named(workload.example_inputs, INPUT))


def _check_example(example_inputs: Any) -> None:
    wanted = (
        "The workload's example_inputs must be a tuple of the model's arguments, or a dict of its keyword arguments: tensors "
        "with a leading batch dimension: (images[:2],) or {'input_ids': ids, 'attention_mask': mask} for example"
    )
    if not isinstance(example_inputs, (tuple, Mapping)) or not tensors(example_inputs):
        raise WorkloadError(f"{wanted}; a {type(example_inputs).__name__} is there.")
    try:
        inputs_by_name = named(example_inputs, INPUT)
    except ValueError as error:
        raise WorkloadError(f"Of the workload's example_inputs, {error}. Rename one of them.") from error
    for name, x in inputs_by_name.items():
        if not x.dim() or len(x) != length(example_inputs):
            raise WorkloadError(
                f"{wanted}; '{name}' is {tuple(x.shape)}, another one has {length(example_inputs)} samples."
            )


def _check_axes(dynamic_axes: Any, inputs: Mapping[str, Tensor]) -> None:
    if not isinstance(dynamic_axes, Mapping) or not all(isinstance(axes, Mapping) for axes in dynamic_axes.values()):
        raise WorkloadError(
            "The workload's dynamic_axes must be input name → axis → name: {'input_ids': {1: 'length'}}."
        )
    sizes: dict[str, int] = {}
    for name, axes in dynamic_axes.items():
        one_of(name, inputs, "The workload's dynamic_axes", "input")
        for axis, called in axes.items():
            if not isinstance(axis, int) or not 0 < axis < inputs[name].dim():
                raise WorkloadError(
                    f"The workload's dynamic_axes give '{name}' the axis {axis}; it is {tuple(inputs[name].shape)}, whose axis "
                    "0, the batch, is always free."
                )
            size = inputs[name].shape[axis]
            if sizes.setdefault(called, size) != size or size < 2:  # a size of 1 is taken for a constant
                raise WorkloadError(
                    f"The example's '{called}' of dynamic_axes is {size} in '{name}'; it needs at least 2, the same in all inputs."
                )


def load_attribute(spec: str, root: Path, where: str, what: str) -> Callable[..., Any]:
    """The callable behind `module:attribute` or `path/to/file.py:attribute`.

    The project's folder comes first on the import path, so its own packages (one called `pipelines` included) are found.
    """
    target, separator, attribute = spec.rpartition(":")
    if not separator or not target:
        raise DefinitionError(
            f"{where}: '{spec}' is not a {what}: write module:attribute or path/to/file.py:attribute."
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module = _import_file(target, root, where, what) if target.endswith(".py") else _import_module(target, where, what)
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise DefinitionError(f"{where}: {target} has no '{attribute}'.{nearest(attribute, public)}")
    factory = getattr(module, attribute)
    if not callable(factory):
        raise DefinitionError(f"{where}: {spec} is a {type(factory).__name__}, not a function.")
    return factory  # type: ignore[no-any-return] # callable() has just been asked


def _import_file(target: str, root: Path, where: str, what: str) -> ModuleType:
    try:
        path = (root / Path(target).expanduser()).resolve()
        exists = path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, a NUL in it, `~somebody` who is not there
        path, exists = Path(target), False
    if not exists:
        raise DefinitionError(f"{where}: there is no file {str(path)[:200]} for the {what}.")
    name = f"secateur_user_{path.stem}_{abs(hash(path)):x}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise DefinitionError(f"{where}: {path} is not a Python file.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # its siblings, as if it were run
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        with calling(f"{where}: importing {path}"):
            specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(target: str, where: str, what: str) -> ModuleType:
    with calling(f"{where}: importing {target}"):
        try:
            return importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name and (target == error.name or target.startswith(f"{error.name}.")):
                raise DefinitionError(f"{where}: there is no module '{target}' for the {what}.") from error
            raise


def _check_options(factory: Callable[..., Any], reference: WorkloadReference) -> None:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some functions that are written in C do not say
        return
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in reference.options:
        if name not in parameters:
            raise DefinitionError(
                f"{reference.where(name)}: {reference.factory} takes no option '{name}'.{nearest(name, parameters)} "
                f"It takes: {', '.join(parameters) or 'none'}."
            )
    missing = [
        name
        for name, p in parameters.items()
        if p.default is inspect.Parameter.empty
        and p.kind is not inspect.Parameter.VAR_POSITIONAL
        and name not in reference.options
    ]
    if missing:
        raise DefinitionError(
            f"{reference.where()}: {reference.factory} needs {', '.join(missing)}; give it under `workload:` or with "
            f"--set workload.{missing[0]}=…"
        )


def build_model(workload: Workload) -> nn.Module:
    """The trained module, in float32 on the CPU, in evaluation mode, all of it trainable; torch's attention is `opened`.

    Raises WorkloadError where the factory raises.
    """
    with calling(f"build_model of '{workload.name}'"):
        model = workload.build_model()
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"build_model of '{workload.name}' returned a {type(model).__name__}, not a torch module.")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise WorkloadError(f"The weights of '{workload.name}' are not finite: '{name}' holds NaN or infinity.")
    return (
        opened(model).float().cpu().eval().requires_grad_(True)
    )  # frozen layers are ranked and fine-tuned like the others
