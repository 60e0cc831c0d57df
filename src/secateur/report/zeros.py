"""What zeros gain on a runtime: whether its kernels skip them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from secateur.agent.runtimes import RUNTIMES
from secateur.records import BLOCKS, N_M, WEIGHTS

MASKS = {WEIGHTS: "single weights (`weights`)", N_M: "N:M patterns (`n_m`)", BLOCKS: "blocks of weights (`blocks`)"}
"""The transforms that leave zeros, in words."""


def no_kernel(transforms: Collection[str], runtime: str, options: Mapping[str, str]) -> str | None:
    """Which zeros do not make a model faster, or when they do; None where there are none.

    transforms: of a model or a search space. runtime, options: as the evaluator has them; None too for a runtime that is not known
    here, such as that of a plug-in which has not been loaded.
    """
    masks = [name for name in MASKS if name in transforms]
    if not masks or runtime not in RUNTIMES:
        return None
    known = RUNTIMES[runtime]
    skipped = known.skips(known.chosen(options))
    sentences = [f"{runtime} skips the zeros of {MASKS[name]} {skipped[name]}." for name in masks if name in skipped]
    if idle := [MASKS[name] for name in masks if name not in skipped]:
        names = ", ".join(idle)
        sentences.append(
            f"No kernel of {runtime} skips the zeros of {names}: they make the compressed download smaller and nothing faster."
        )
    return " ".join(sentences)
