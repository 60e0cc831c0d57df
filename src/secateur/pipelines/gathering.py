"""The Gram matrices of a run: gathered once, kept with the run while candidates are made, read by its driver and workers.

All of them map the same file, so that it lies in memory once, and the system may take that memory back.
"""

from __future__ import annotations

from safetensors.torch import load_file, save

from secateur.compression.compensation.gram import grams_of
from secateur.compression.compensation.readers import readers
from secateur.files import write
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.state import RunFolder
from secateur.records import Refitted


def give_grams(prepared: Prepared, run: RunFolder | None = None, *, most: int | None = None) -> None:
    """Let the evaluator refit what reads cut channels, where the definition wants it. run: None for a dry run, which keeps nothing.

    most: samples that are gathered from at most. Raises what `grams_of` raises, and StateError
    where the disk does not take them.
    """
    wanted = prepared.definition.evaluator.refit_images
    images = wanted if most is None else min(wanted, most)
    if not images:
        return
    groups, workload = prepared.space.groups, prepared.workload
    if run is None:
        prepared.evaluator.cutting.grams = grams_of(prepared.model, groups, workload, images)
        return
    if not run.grams.is_file():
        write(run.grams, save(grams_of(prepared.model, groups, workload, images)))
    prepared.evaluator.cutting.grams = load_file(run.grams)


def refitted(prepared: Prepared) -> Refitted:
    """Which of the layers that read channels which may be cut are refitted, and which are not."""
    names, reasons = readers(prepared.model, prepared.space.groups)
    return Refitted(prepared.definition.evaluator.refit_images, len(names), reasons)
