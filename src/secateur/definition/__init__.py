"""YAML → validated definition. Every error names file, line, what is allowed and the nearest match, before any long work."""

from secateur.definition.devices import AdbDevice, DeviceDefinition, LocalDevice, SshDevice
from secateur.definition.models import (
    LOWER_GOALS,
    UPPER_GOALS,
    ConstraintDefinition,
    DistillDefinition,
    EvaluatorDefinition,
    FidelitiesDefinition,
    GroupRule,
    LimitsDefinition,
    NniDefinition,
    PipelineDefinition,
    RecoverDefinition,
    RegisterDefinition,
    SearchDefinition,
    SearchSpaceDefinition,
    WorkloadReference,
)
from secateur.definition.resolve import Override, load_evaluator, load_pipeline, pipeline_from, project_root, shipped
from secateur.definition.source import Source, expanded, one_of

__all__ = [
    "LOWER_GOALS",
    "UPPER_GOALS",
    "AdbDevice",
    "ConstraintDefinition",
    "DeviceDefinition",
    "DistillDefinition",
    "EvaluatorDefinition",
    "FidelitiesDefinition",
    "GroupRule",
    "LimitsDefinition",
    "LocalDevice",
    "NniDefinition",
    "Override",
    "PipelineDefinition",
    "RecoverDefinition",
    "RegisterDefinition",
    "SearchDefinition",
    "SearchSpaceDefinition",
    "Source",
    "SshDevice",
    "WorkloadReference",
    "expanded",
    "load_evaluator",
    "load_pipeline",
    "one_of",
    "pipeline_from",
    "project_root",
    "shipped",
]
