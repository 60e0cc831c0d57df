"""Sparse training: what candidates are cut from where the definition asks for it. Everything is compared with the original still.

sparse/checkpoint.safetensors    while it is trained, after each epoch
sparse/model.safetensors         when that is over; workers and restarts read it
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from secateur.compression.copies import copied
from secateur.compression.tensor_files import write_tensors
from secateur.definition import PipelineDefinition, RecoverDefinition, SparseTrainingDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.preparation import Prepared
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.sparsity import penalised, penalty_term
from secateur.recovery.terms import Term

OnShare = Callable[[str, float], None]


def give_sparse(
    prepared: Prepared, file: Path, device: str = "cpu", step: OnShare = lambda _text, _share: None
) -> None:
    """Let candidates be cut from the network after sparse training, where the definition wants it.

    file: where its tensors are, or will be. step: told of each epoch. Raises DefinitionError where the training diverges,
    ModelError where no file can be made of its network, and StateError where the disk does not take it.
    """
    settings = prepared.definition.sparse_training
    if settings is None:
        return
    if not file.is_file():
        _train(prepared, settings, file, device, step)
    model = copied(prepared.model)
    model.load_state_dict(load_file(file))
    prepared.evaluator.cut_from(model)


def settings_of(definition: PipelineDefinition, sparse: SparseTrainingDefinition) -> RecoverDefinition:
    """How it is trained: as finalists are, but for what its block says, and by SGD; distilled only where they are."""
    recover = definition.recover or RecoverDefinition(distill=None)
    own: dict[str, object] = {"learning_rate": sparse.learning_rate}
    if recover.optimizer != "sgd":  # AdamW's steps do not depend on how strong a penalty is
        own |= {"optimizer": "sgd", "weight_decay": RecoverDefinition().weight_decay}
    return recover.lasting(epochs=sparse.epochs).model_copy(update=own)


def penalty_of(prepared: Prepared, sparse: SparseTrainingDefinition) -> Callable[[nn.Module], Term]:
    """The penalty, for any network of the original's layers."""
    groups = penalised(sparse, prepared.space.by_channel, prepared.model)
    return partial(penalty_term, sparse, groups)


def _train(prepared: Prepared, settings: SparseTrainingDefinition, file: Path, device: str, step: OnShare) -> None:
    def told(epoch: float, loss: float) -> None:
        step(
            f"sparse training, epoch {math.ceil(epoch)} of {settings.epochs}: loss {loss:.4g}", epoch / settings.epochs
        )

    step("sparse training", 0.0)
    definition, checkpoint = prepared.definition, file.with_name("checkpoint.safetensors")
    penalty = penalty_of(prepared, settings)
    training = Training(device, definition.search.seed, checkpoint, told, penalty=penalty)
    model = prepared.model
    tuned = fine_tune(model, model, prepared.workload, settings_of(definition, settings), training)
    if tuned.stopped is not None:
        raise DefinitionError(
            f"{settings.where('learning_rate')}: sparse training ended early: {tuned.stopped}. Lower 'learning_rate' or 'strength'."
        )
    write_tensors(
        file, {name: tensor.clone() for name, tensor in tuned.module.state_dict().items()}
    )  # ties are refused
    checkpoint.unlink(missing_ok=True)
