"""YAML → validated definition. Every error names file, line, what is allowed and the nearest match, before any long work."""

from secateur.definition.devices import DEVICE_KINDS, AdbDevice, DeviceDefinition, DeviceKind, LocalDevice, SshDevice
from secateur.definition.evaluator import LOWER_GOALS, UPPER_GOALS, ConstraintDefinition, EvaluatorDefinition
from secateur.definition.nni import NniDefinition
from secateur.definition.pipeline import PipelineDefinition
from secateur.definition.recover import LENGTHS, DistillDefinition, GatesDefinition, RecoverDefinition
from secateur.definition.register import GateDefinition, RegisterDefinition
from secateur.definition.resolve import Override, load_evaluator, load_pipeline, pipeline_from, project_root, shipped
from secateur.definition.retrain import RetrainDefinition
from secateur.definition.search import FidelitiesDefinition, LimitsDefinition, SearchDefinition
from secateur.definition.search_space import GroupRule, SearchSpaceDefinition
from secateur.definition.source import Source, expanded, one_of
from secateur.definition.sparse_training import SparseTrainingDefinition
from secateur.definition.workload import WorkloadReference

__all__ = [
    "DEVICE_KINDS",
    "LENGTHS",
    "LOWER_GOALS",
    "UPPER_GOALS",
    "AdbDevice",
    "ConstraintDefinition",
    "DeviceDefinition",
    "DeviceKind",
    "DistillDefinition",
    "EvaluatorDefinition",
    "FidelitiesDefinition",
    "GateDefinition",
    "GatesDefinition",
    "GroupRule",
    "LimitsDefinition",
    "LocalDevice",
    "NniDefinition",
    "Override",
    "PipelineDefinition",
    "RecoverDefinition",
    "RegisterDefinition",
    "RetrainDefinition",
    "SearchDefinition",
    "SearchSpaceDefinition",
    "Source",
    "SparseTrainingDefinition",
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
