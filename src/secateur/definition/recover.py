"""The block `recover`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from secateur.definition.declared import Declared


class DistillDefinition(Declared):
    """Knowledge distillation from the dense model (Hinton et al. 2015, arXiv:1503.02531)."""

    temperature: float = Field(4.0, ge=1e-3, le=1e6, description="Softens both distributions.")
    weight: float = Field(
        0.9, ge=0.0, le=1.0, description="Share of the distillation loss; the rest is the workload's loss."
    )


class GatesDefinition(Declared):
    """Residual blocks run only for the samples that need them (Veit & Belongie 2018, arXiv:1711.11503)."""

    budget: float = Field(
        0.7,
        gt=0.0,
        lt=1.0,
        description="Share of the finalist's MACs that an average sample takes, those of the gates included.",
    )


class RecoverDefinition(Declared):
    """How the finalists are fine-tuned."""

    epochs: int = Field(3, ge=1, le=100_000, description="Passes over the training data.")
    finalists: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Networks of the search that are fine-tuned; `search.fidelities` says how they are chosen.",
    )
    learning_rate: float = Field(
        0.02, gt=0.0, le=1000.0, description="Peak of the cosine schedule (SGD, Nesterov momentum 0.9)."
    )
    batch: int = Field(128, ge=2, le=65_536, description="Samples per step.")
    weight_decay: float = Field(
        5e-4, ge=0.0, le=1000.0, description="L2 penalty on weights with more than one dimension."
    )
    masks: Literal["kept", "gradual", "movement"] = Field(
        "kept",
        description="Which weights are zero: those that the search has chosen (kept), or as many that training chooses, by "
        "magnitude (gradual) or by how they move (movement).",
    )
    steps: int = Field(
        1,
        ge=1,
        le=100,
        description="Steps in which a finalist is cut. Each is trained for `epochs`, then the criteria rank what is left.",
    )
    rewind: bool = Field(
        False,
        description="Each step trains from the workload's early weights (`build_early`), as lottery tickets are.",
    )
    distill: DistillDefinition | None = Field(
        DistillDefinition(temperature=4.0, weight=0.9), description="Distillation from the dense model; null for none."
    )
    gates: GatesDefinition | None = Field(
        None, description="A gate before every residual block that a finalist still has, learnt with it; null for none."
    )

    @property
    def passes(self) -> int:
        """Epochs of all steps."""
        return self.epochs * self.steps

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.masks != "kept" and (self.steps > 1 or self.rewind):
            raise ValueError(
                f"'masks: {self.masks}' sets more and more weights to zero while it trains: 'steps' and 'rewind' are another way. "
                "Leave one of the two out"
            )
        if self.gates and (self.steps > 1 or self.rewind or self.masks != "kept"):
            raise ValueError(
                "'gates' are learnt in one training with fixed masks: leave 'steps', 'masks' and 'rewind' out"
            )
        return self
