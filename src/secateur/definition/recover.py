"""The block `recover`."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from secateur.definition.declared import Declared, Fraction

Optimizer = Literal["sgd", "adamw"]
LENGTHS = ("epochs", "training_steps", "minutes")
"""Keys that say how long a finalist is trained; one of them does."""
ADAMW = {"learning_rate": 0.001, "weight_decay": 0.01}
"""Defaults that AdamW has in place of SGD's."""


class DistillDefinition(Declared):
    """Knowledge distillation from the dense model (Hinton et al. 2015, arXiv:1503.02531)."""

    temperature: float = Field(4.0, ge=1e-3, le=1e6, description="Softens both distributions.")
    weight: float = Field(
        0.9, ge=0.0, le=1.0, description="Share of the distillation loss; the rest is the workload's loss."
    )
    attention: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="Layers, by name or glob, whose attention maps are to be the dense model's: where they are strong, over all "
        "channels (Zagoruyko & Komodakis 2017, arXiv:1612.03928). Outputs (n, channels, height, width) or (n, tokens, channels). "
        "Of a layer that computes attention: which token attends to which, over all heads (Jiao et al. 2020, arXiv:1909.10351).",
    )
    attention_weight: float = Field(
        10.0, ge=0.0, le=1e9, description="Factor of the mean squared distance of these maps, beside the two shares."
    )
    hints: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="Layers, by name or glob, whose outputs are to be the dense model's; where channels are gone, seen through a "
        "linear map over the channels that is learnt with the network (Romero et al. 2015, arXiv:1412.6550).",
    )
    hints_weight: float = Field(
        1.0,
        ge=0.0,
        le=1e9,
        description="Factor of the mean squared distance of these outputs, relative to the dense model's mean square, beside the "
        "two shares.",
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

    trainer: str | None = Field(
        None,
        description="A training of your own, `module:attribute`, `path/to/file.py:attribute` or a plug-in's name: "
        "train(model, teacher, data, budget, save) -> model. The built-in trainer's keys then concern rungs alone.",
    )

    epochs: int | None = Field(
        3,
        ge=1,
        le=100_000,
        description="Passes over the training data. One of `epochs`, `training_steps` and `minutes` says how long.",
    )
    training_steps: int | None = Field(
        None, ge=1, le=10**9, description="Steps of the optimizer, in place of `epochs`; the last pass may end early."
    )
    minutes: float | None = Field(
        None,
        gt=0.0,
        le=1e6,
        description="Time of a finalist's training, in place of `epochs`. The schedule follows the clock: no two runs are alike.",
    )
    finalists: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Networks of the search that are fine-tuned; `search.fidelities` says how they are chosen.",
    )
    optimizer: Optimizer = Field("sgd", description="sgd (Nesterov momentum 0.9) or adamw (betas 0.9 and 0.999).")
    learning_rate: float = Field(
        0.02, gt=0.0, le=1000.0, description="Peak of the cosine schedule; with adamw 0.001 by default."
    )
    warmup: Fraction = Field(
        0.0, description="Share of the training in which the learning rate rises to its peak; the cosine follows."
    )
    batch: int = Field(128, ge=2, le=65_536, description="Samples that go through the network at once.")
    accumulate: int = Field(
        1, ge=1, le=65_536, description="Batches whose gradients make one step. Batch norms see one batch at a time."
    )
    weight_decay: float = Field(
        5e-4,
        ge=0.0,
        le=1000.0,
        description="On weights with more than one dimension: an L2 penalty with sgd; with adamw decoupled, 0.01 by default.",
    )
    clip: float | None = Field(
        None,
        gt=0.0,
        le=1e9,
        description="Largest norm of a step's gradients, all together; larger ones are scaled down.",
    )
    ema: Fraction | None = Field(
        None,
        description="Decay of an exponential moving average of the weights, 0.999 say, which is kept in place of the last weights. "
        "Early on the decay is lower: (1 + n) / (10 + n) after n steps.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Of matrix products and convolutions: auto is fp32 on CPUs; on CUDA bf16, or fp16 where the GPU lacks it.",
    )
    compile: bool = Field(
        False,
        description="Train networks compiled (torch.compile). Compiling takes minutes for each finalist: measure whether it pays.",
    )
    workers: int = Field(
        0, ge=0, le=256, description="Processes that read and augment samples; 0: the process that trains."
    )
    checkpoint_minutes: float = Field(
        5.0,
        ge=0.0,
        le=1e6,
        description="The state of a training is kept after each epoch and in between this often; 0: after each step.",
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
        description="Steps in which a finalist is cut. Each is trained for `epochs` (or `training_steps` or `minutes`), "
        "then the criteria rank what is left.",
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

    def lasting(self, **length: float) -> Self:
        """The same for another length: `epochs`, `training_steps` or `minutes`."""
        return self.model_copy(update={name: length.get(name) for name in LENGTHS})

    def longer(self, times: int) -> Self:
        """The same for so many times its length."""
        (name,) = self._given
        return self.lasting(**{name: times * getattr(self, name)})

    def sizes(self, samples: int) -> tuple[int, int, int]:
        """Samples of a batch, batches of a step, steps of a pass: neither batch nor step is larger than the training data."""
        batch = min(self.batch, samples)
        parts = min(self.accumulate, samples // batch)
        return batch, parts, samples // (batch * parts)

    def passes(self, samples: int) -> int | None:
        """Passes over the training data in all `steps`, the last of each perhaps not whole; None where minutes say how long."""
        if self.epochs is not None:
            return self.steps * self.epochs
        if self.training_steps is None:
            return None
        return self.steps * math.ceil(self.training_steps / self.sizes(samples)[2])

    @property
    def _given(self) -> list[str]:
        return [name for name in LENGTHS if getattr(self, name) is not None]

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        """Defaults that depend on other keys."""
        if not isinstance(given, dict):
            return given
        filled: dict[str, float | None] = {**ADAMW} if given.get("optimizer") == "adamw" else {}
        if any(given.get(name) is not None for name in LENGTHS):
            filled = {"epochs": None, **filled}
        return {**filled, **given}

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if len(self._given) != 1:
            raise ValueError(
                f"one of {', '.join(LENGTHS)} says how long a finalist is trained; here "
                f"{' and '.join(self._given) or 'none'} would. Leave out the others, or set them to null"
            )
        return self

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.trainer is not None and self.masks != "kept":
            raise ValueError(
                f"'masks: {self.masks}' chooses zeros in the steps of the built-in trainer: leave one of 'masks' and 'trainer' out"
            )
        if self.trainer is not None and self.distill is not None and self.distill.hints:
            raise ValueError(
                "'hints' are seen through maps that the built-in trainer learns: leave one of 'hints' and 'trainer' out"
            )
        if self.compile and (self.gates or (self.distill and (self.distill.attention or self.distill.hints))):
            raise ValueError(
                "'compile' sees neither gates nor inner layers: leave it out, or 'gates', and 'attention' and 'hints' of 'distill'"
            )
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
