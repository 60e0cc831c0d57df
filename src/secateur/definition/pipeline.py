"""A whole pipeline. The field descriptions of its blocks are the reference: `secateur schema` prints them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from secateur.definition.declared import Declared, Name
from secateur.definition.evaluator import EvaluatorDefinition
from secateur.definition.recover import RecoverDefinition
from secateur.definition.register import RegisterDefinition
from secateur.definition.retrain import RetrainDefinition
from secateur.definition.search import SearchDefinition
from secateur.definition.search_space import SearchSpaceDefinition
from secateur.definition.sparse_training import SparseTrainingDefinition
from secateur.definition.workload import WorkloadReference


class PipelineDefinition(Declared):
    """From a trained model to registered, verified, smaller ones."""

    name: Name = Field(description="Names the runs, the study and the experiment.")
    workload: WorkloadReference
    search_space: SearchSpaceDefinition
    evaluator: EvaluatorDefinition
    sparse_training: SparseTrainingDefinition | None = Field(
        None, description="Training before the search that makes channels small; left out, the original is cut."
    )
    search: SearchDefinition = Field(default_factory=lambda: SearchDefinition())
    recover: RecoverDefinition | None = Field(
        default_factory=lambda: RecoverDefinition(), description="Fine-tuning of the finalists; null for none."
    )
    quantize: list[Literal["none", "int8"]] = Field(
        ["none"],
        description="`[none, int8]`: of each finalist, after its training, and of the original there is one in int8 too, which is "
        "measured and judged as the others are.",
    )
    register_as: RegisterDefinition | None = Field(
        None, alias="register", description="Registration in MLflow; left out, the models stay in the run's folder."
    )
    retrain: RetrainDefinition = Field(
        default_factory=lambda: RetrainDefinition(), description="What `secateur retrain` does each night."
    )

    @field_validator("quantize")
    @classmethod
    def _beside_float32(cls, value: list[str]) -> list[str]:
        if sorted(value) not in (["none"], ["int8", "none"]):
            raise ValueError(
                "allowed are [none] and [none, int8]: an int8 model is made of the float32 one and compared with it"
            )
        return value

    @property
    def int8(self) -> bool:
        """Whether finalists in int8 are wanted."""
        return "int8" in self.quantize

    @model_validator(mode="after")
    def _training_is_declared(self) -> PipelineDefinition:
        if self.recover is None and self.search.baselines.small_dense:
            raise ValueError("search.baselines.small_dense is trained as a finalist is: it needs 'recover'")
        return self

    def as_written(self) -> dict[str, Any]:
        """The whole definition with defaults filled in and references spelled out; environment values stay unexpanded."""
        return {**self.model_dump(mode="json", by_alias=True), "workload": self.workload.as_written}
