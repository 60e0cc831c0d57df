"""The Gram matrices of a run: gathered once, kept with the run while candidates are made, read by its driver and workers.

They lie in a file that all of them read: beside a network of real size, its Gram matrices would take twice its memory.
"""

from __future__ import annotations

from pathlib import Path

from secateur.compression.compensation.gram import grams_of
from secateur.compression.compensation.readers import readers
from secateur.compression.tensor_files import TensorFile
from secateur.pipelines.preparation import Prepared
from secateur.records import Refitted


def give_grams(prepared: Prepared, file: Path, *, most: int | None = None) -> None:
    """Let the evaluator refit what reads cut channels, where the definition wants it. file: where they are, or will be.

    most: samples that are gathered from at most. Raises what `grams_of` raises, and StateError
    where the disk does not take them.
    """
    wanted = prepared.definition.evaluator.refit_images
    images = wanted if most is None else min(wanted, most)
    if not images:
        return
    if not file.is_file():
        TensorFile.written(file, grams_of(prepared.source, prepared.space.groups, prepared.workload, images))
    prepared.evaluator.cutting.grams = TensorFile(file)


def refitted(prepared: Prepared) -> Refitted:
    """Which of the layers that read channels which may be cut are refitted, and which are not."""
    names, reasons = readers(prepared.model, prepared.space.groups)
    return Refitted(prepared.definition.evaluator.refit_images, len(names), reasons)
