"""Import the user's factory, call it, and check what it returns before anything long begins."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from secateur.definition import WorkloadReference
from secateur.errors import DefinitionError, SecateurError, WorkloadError, nearest
from secateur.records import Workload
from secateur.workloads.roles import check_roles


def load_workload(reference: WorkloadReference, root: Path) -> Workload:
    """Call the factory of a definition. root: the project's folder, from which paths and the user's modules are found.

    Raises DefinitionError where the factory or one of its options does not exist, WorkloadError where it raises or where what
    it returns cannot be used (overlapping data roles included).
    """
    factory = load_attribute(reference.factory, root, reference.where("factory"), "workload factory")
    _check_options(factory, reference)
    try:
        workload = factory(**reference.options)
    except SecateurError:
        raise
    except Exception as error:
        at = _last_line(error)
        raise WorkloadError(
            f"{reference.where()}: the workload factory {reference.factory} raised {type(error).__name__}: {error}{at}"
        ) from error
    if not isinstance(workload, Workload):
        raise WorkloadError(
            f"{reference.where()}: {reference.factory} returned a {type(workload).__name__}; a secateur.Workload is needed."
        )
    check_roles(workload.data)
    return workload


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
    found = getattr(module, attribute)
    if not callable(found):
        raise DefinitionError(f"{where}: {spec} is a {type(found).__name__}, not a function.")
    return found  # type: ignore[no-any-return] # callable() has just been asked


def _import_file(target: str, root: Path, where: str, what: str) -> ModuleType:
    path = (root / Path(target).expanduser()).resolve()
    if not path.is_file():
        raise DefinitionError(f"{where}: there is no file {path} for the {what}.")
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
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise WorkloadError(
            f"{where}: importing {path} raised {type(error).__name__}: {error}{_last_line(error)}"
        ) from error
    return module


def _import_module(target: str, where: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name and (target == error.name or target.startswith(f"{error.name}.")):
            raise DefinitionError(f"{where}: there is no module '{target}' for the {what}.") from error
        raise WorkloadError(f"{where}: importing {target} raised {type(error).__name__}: {error}") from error
    except Exception as error:
        raise WorkloadError(
            f"{where}: importing {target} raised {type(error).__name__}: {error}{_last_line(error)}"
        ) from error


def _check_options(factory: Callable[..., Any], reference: WorkloadReference) -> None:
    parameters = inspect.signature(factory).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in reference.options:
        if name not in parameters:
            raise DefinitionError(
                f"{reference.where(name)}: {reference.factory} takes no option '{name}'.{nearest(name, parameters)} "
                f"It takes: {', '.join(parameters) or 'none'}."
            )
    missing = [
        name for name, p in parameters.items() if p.default is inspect.Parameter.empty and name not in reference.options
    ]
    if missing:
        raise DefinitionError(
            f"{reference.where()}: {reference.factory} needs {', '.join(missing)}; give it under `workload:` or with "
            f"--set workload.{missing[0]}=…"
        )


def _last_line(error: Exception) -> str:
    """Where in the user's own code it happened."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    return f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def build_model(workload: Workload) -> nn.Module:
    """The trained module, in float32 on the CPU, in evaluation mode, all of it trainable.

    Raises WorkloadError where the factory raises.
    """
    try:
        model = workload.build_model()
    except SecateurError:
        raise
    except Exception as error:
        raise WorkloadError(
            f"build_model of '{workload.name}' raised {type(error).__name__}: {error}{_last_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"build_model of '{workload.name}' returned a {type(model).__name__}, not a torch module.")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise WorkloadError(f"The weights of '{workload.name}' are not finite: '{name}' holds NaN or infinity.")
    return model.float().cpu().eval().requires_grad_(True)  # frozen layers are ranked and fine-tuned like the others
